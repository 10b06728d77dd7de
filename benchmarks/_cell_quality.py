"""Quality of each cell segmentation method, from true and from predicted seeds, and of the simplest method."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import Table
from cytovox.io import read_mask
from cytovox.metrics.cells import CellScores, score_cells, summary
from cytovox.segmentation.field import CellField, SeedRule
from cytovox.segmentation.seeds import SPLIT_DEPTH_UM
from cytovox.statistics.bootstrap import interval, mean_of
from datamodules.cells import CellsDataModule
from datamodules.cells_config import CellsSimulator
from datamodules.config import SimulatedSet
from experiments.tasks.analyze.predictors import cell_finder, organelle_model, organelle_weights
from experiments.weights import weights_path
from lightning_modules.cells import field_of, true_seeds

LINES = ("NIH3T3", "A549", "HeLa", "MDA-MB-231", "RAW264.7")
#: Fields of 64x192x192 voxels of 0.3 µm, whose seeds no training has.
FIRST_SEED, FIELDS = 200_000, 5
SHOWN = ("dice", "dice_matched", "ap_50", "ap_70", "pq", "splits", "merges")
HEADS = ("Dice, unmatched as 0", "matched only", "AP 0.5", "AP 0.7", "PQ", "splits", "merges")


def quality_table(arguments: argparse.Namespace) -> tuple[list[Table], dict[str, Any]]:
    """Simulated touching cells."""
    finders = finders_of(arguments)
    lines = tuple(arguments.lines.split(","))
    counts = dict.fromkeys(LINES, FIELDS)
    shape = [16, 48, 48] if arguments.quick else [64, 192, 192]
    config = CellsSimulator(
        shape=shape, train=SimulatedSet(count=0), val=SimulatedSet(count=0, first_seed=100_000),
        test=SimulatedSet(counts=counts, first_seed=FIRST_SEED),
    )  # fmt: skip
    cases = CellsDataModule(config, 0, "offsets", splits=("test",)).find()["test"]
    cases = [case for case in cases if case.cell_line in lines][: 2 if arguments.quick else None]
    model = organelle_model(organelle_weights("organelle"))
    both = [model.organelles.index("membrane"), model.organelles.index("nucleus")]
    scores: dict[str, list[CellScores]] = {}
    for case in cases:
        raw = case.load()
        field, truth, unassigned = field_of(raw)
        predicted = model.inferer(raw.ri_ZYX, raw.spacing_um)[both]
        fields = {
            "true masks, true nuclei": dataclasses.replace(field, seeds_ZYX=true_seeds(raw)),
            "true masks, found nuclei": field,
            "predicted masks and nuclei": CellField(predicted[0], predicted[1], raw.spacing_um, field.ri_ZYX),
        }
        for seeds, given in fields.items():
            for name, finder in finders.items():
                scores.setdefault(f"{name}: {seeds}", []).append(
                    score_cells(truth, finder(given).cells_ZYX, unassigned)
                )
        print(case.name, flush=True)
    strata = [case.cell_line for case in cases]
    table = Table(f"{len(cases)} simulated fields of {', '.join(lines)}", ["method: seeds", *HEADS])
    rows: dict[str, Any] = {}
    for name, found in scores.items():
        summaries = summary(found, strata)
        rows[name] = {key: dataclasses.asdict(summaries[key]) for key in SHOWN}
        table.rows.append([name, *(_shown(summaries[key]) for key in SHOWN)])
    return [table, _differences(scores, strata)], rows


def finders_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Each method with its weights, and the watershed without and with geometric splitting."""
    fast, network = (weights_path(given, "weights") for given in (arguments.fast, arguments.network))
    return {
        "centre offsets": cell_finder("offsets", fast, SeedRule()),
        "nucleus by nucleus (published)": cell_finder("network", network, SeedRule()),
        "seeded watershed": cell_finder("watershed", None, SeedRule()),
        "seeded watershed, nuclei split": cell_finder("watershed", None, SeedRule(split_depth_um=SPLIT_DEPTH_UM)),
    }


def _differences(scores: dict[str, list[CellScores]], strata: list[str]) -> Table:
    """The fast way less each other, image by image."""
    table = Table("the fast way less another, paired by image: Dice, unmatched as 0", ["against", "difference"])
    for name, found in scores.items():
        method, _, seeds = name.partition(": ")
        if method != "centre offsets":
            mine = scores[f"centre offsets: {seeds}"]
            differences = [a.dice - b.dice for a, b in zip(mine, found, strict=True)]
            table.rows.append([name, _shown(interval(mean_of(differences), len(differences), strata=strata))])
    return table


def tissue_table(folder: Path, finders: dict[str, Any]) -> Table:
    """Real tissue: a membrane stain and 50 touching cells; no nuclei, so seeds are the labels' cores."""
    import scipy.ndimage as ndi

    mask = read_mask(folder / "ovule_cells.ome.tif")
    cells, spacing = mask.labels_ZYX.astype(np.int32), mask.spacing_um
    assert spacing is not None
    cores = np.zeros_like(cells)
    for label, box in enumerate(ndi.find_objects(cells), start=1):
        if box is not None:
            depth = ndi.distance_transform_edt(np.pad(cells[box] == label, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
            cores[box][depth >= 0.6 * depth.max()] = label
    field = CellField(cells > 0, cores > 0, spacing, None, cores)
    table = Table(f"real tissue, {len(np.unique(cells)) - 1} cells, seeds from their cores", ["method", *HEADS])
    for name, finder in finders.items():
        if "split" not in name:
            found = score_cells(cells, finder(field).cells_ZYX)
            table.rows.append([name, *(f"{getattr(found, key):.3f}" for key in SHOWN)])
    return table


def _shown(found: Any) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
