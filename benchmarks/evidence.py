"""How well the columns on evidence of a table of cells state whether a mask can be trusted.

Masks are predicted in the phantoms of the independent benchmark, cells are found from them, and each organelle of each
found cell is compared with the truth.

Run as ``python benchmarks/evidence.py [--weights NAME]``.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

import numpy as np
from sklearn.metrics import roc_auc_score

import cytovox
from benchmarks._common import Table, Watch, finish, options, say
from benchmarks._phantom_sets import SETS, Case, cached_cases
from benchmarks.independent import shown
from cytovox.measurement.evidence import evidence_of
from cytovox.metrics.matching import overlaps
from cytovox.organelles import WHOLE

COMPARTMENTS = (WHOLE, "nucleus", "nucleolus", "lipid")
#: Least Dice of a good mask.
GOOD = 0.8


@dataclass(frozen=True)
class Row:
    """One predicted mask of an organelle of a cell."""

    set: str
    phantom: str
    cell: int
    compartment: str
    dice: float
    """Against the organelle of the true cell that overlaps most; 0 if there is none."""
    volume_um3: float
    true_um3: float
    boundary_contrast: float
    edge_share: float
    expected_dice: float


def more(parser: argparse.ArgumentParser) -> None:
    """Add the options of this script."""
    parser.add_argument("--weights", default="organelle", help="name or file of organelle weights")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS), help="sets of phantoms")
    parser.add_argument("--count", type=int, help="phantoms of each set; all if left out")
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache" / "cytovox" / "phantoms", help="folder of the phantoms"
    )


def main() -> None:
    """Predict, compare, and print the tables."""
    arguments = options("evidence", "Evidence against the truth of phantoms.", 1, more)
    count = 1 if arguments.quick else arguments.count
    watch, rows = Watch(), list[Row]()
    with watch:
        model = cytovox.load_model(arguments.weights, task="organelle")
        for name in arguments.sets:
            cases = cached_cases(name, count or SETS[name].count, arguments.cache, os.cpu_count() or 1, say)
            for case in cases:
                rows += rows_of(name, case, model)
            say(f"{name}: {len(cases)} phantoms")
    tables = [evidence_table(rows)]
    finish(arguments, {"masks": [asdict(row) for row in rows]}, {}, tables, watch)


def rows_of(name: str, case: Case, model: cytovox.OrganelleModel) -> list[Row]:
    """Return one row per predicted mask of the organelles of the cells that are found in a phantom."""
    volume = cytovox.Volume(case.ri_ZYX, spacing_um=case.spacing_um)
    masks = model.predict(volume)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cytovox.QualityWarning)
        cells = cytovox.find_cells(masks, "watershed", volume=volume)
        table = cytovox.measure(volume, masks, cells, medium_ri=1.337)
    truths = {WHOLE: case.cells_ZYX > 0, "nucleus": case.nuclei_ZYX > 0,
              "nucleolus": case.nucleolus_ZYX, "lipid": case.lipid_ZYX}  # fmt: skip
    shared = overlaps(case.cells_ZYX.astype(np.int32), cells)
    voxel = float(np.prod(case.spacing_um))
    found = []
    for values in table.to_dict("records"):
        compartment, cell = str(values["compartment"]), int(values["cell"])
        if cell == 0 or not values["volume_um3"] or compartment not in COMPARTMENTS:
            continue
        inside = cells == cell
        own = shared.shared_TP[:, int(np.flatnonzero(shared.predicted_P == cell)[0])]
        label = int(shared.truth_T[own.argmax()]) if own.max(initial=0) else 0
        if compartment == WHOLE:
            predicted, truth = inside, (case.cells_ZYX == label) & (label > 0)
        else:  # organelles are right or wrong also where two cells were joined
            predicted = inside & np.asarray(masks[compartment], bool)
            truth = truths[compartment] & (inside | ((case.cells_ZYX == label) & (label > 0)))
        dice = 2 * int((predicted & truth).sum()) / int(predicted.sum() + truth.sum())
        found.append(
            Row(
                name, case.name, cell, compartment, dice, float(values["volume_um3"]), float(truth.sum()) * voxel,
                *(float(values[key]) for key in ("boundary_contrast", "edge_share", "expected_dice")),
            )
        )  # fmt: skip
    return found


def evidence_table(rows: Sequence[Row]) -> Table:
    """Return how well the columns distinguish good masks, and how many masks without evidence are good."""
    table = Table(
        f"area under the ROC curve for masks of Dice >= {GOOD:g}, and masks without evidence",
        ["organelle", "masks", "good", "expected_dice", "boundary_contrast", "edge_share", "mean expected Dice",
         "mean Dice", "evidence none", "good of these"],
    )  # fmt: skip
    for compartment in COMPARTMENTS:
        own = [row for row in rows if row.compartment == compartment]
        if not own:
            continue
        good = np.array([row.dice >= GOOD for row in own], bool)
        columns = [[row.expected_dice for row in own], [abs(row.boundary_contrast) for row in own],
                   [row.edge_share for row in own]]  # fmt: skip
        areas = [f"{roc_auc_score(good, np.nan_to_num(values)):.2f}" if 0 < good.sum() < len(own) else "-"
                 for values in columns]  # fmt: skip
        none = np.array([evidence_of(row.boundary_contrast, row.edge_share) == "none" for row in own], bool)
        table.rows.append(
            [
                compartment, str(len(own)), str(int(good.sum())), *areas, shown(columns[0]),
                shown([row.dice for row in own]), str(int(none.sum())), str(int(good[none].sum())),
            ]
        )  # fmt: skip
    return table


if __name__ == "__main__":
    main()
