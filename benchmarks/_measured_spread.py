"""How many true volumes the intervals hold, and how wide they must be to hold 90 %."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from benchmarks._common import Table
from cytovox.measurement.volume_interval import DEVIATIONS_90, volume_intervals
from cytovox.metrics.matching import match_by_dice, overlaps
from cytovox.segmentation.field import CellField, SeedRule
from cytovox.simulation.tomogram import simulate
from experiments.tasks.analyze.frames import MIRRORS
from experiments.tasks.analyze.predictors import cell_finder, cell_weights, organelle_model, organelle_weights

LINES = ("NIH3T3", "A549", "HeLa", "MDA-MB-231", "RAW264.7")
#: No network has seen these.
FIRST_SEED = 940_001
#: Dice from which a found cell is the true one.
SAME = 0.7
SHAPE, SPACING = (64, 160, 160), (0.3, 0.3, 0.3)


def spread_tables(arguments: argparse.Namespace) -> tuple[list[Table], dict[str, Any]]:
    """Two fields a line: one to find the width on, one to test it on."""
    shape = (24, 48, 48) if arguments.quick else SHAPE
    spacing = (0.6, 0.6, 0.6) if arguments.quick else SPACING
    model = organelle_model(organelle_weights("organelle"))
    inferer, names = model.inferer, model.organelles
    both = [names.index("membrane"), names.index("nucleus")]
    finder = cell_finder("offsets", cell_weights("offsets", None), SeedRule())
    errors: dict[str, list[float]] = {"found on": [], "tested on": []}
    widths: list[float] = []
    for number, line in enumerate(LINES[: 1 if arguments.quick else None]):
        for part, side in enumerate(errors):
            seen = simulate(line, FIRST_SEED + 2 * number + part, shape, spacing)

            def cells(axes: tuple[int, ...], ri: np.ndarray = seen.ri_ZYX) -> np.ndarray:
                mirrored = np.ascontiguousarray(np.flip(ri, axes))
                said = inferer(mirrored, spacing)[both]
                return np.flip(finder(CellField(said[0], said[1], spacing, mirrored)).cells_ZYX, axes)

            main = np.ascontiguousarray(cells(()))
            found = volume_intervals(main, [cells(axes) for axes in MIRRORS], float(np.prod(spacing)))
            truth = seen.cells_ZYX.astype(np.int32)
            pairs = match_by_dice(overlaps(truth, main))
            for label, partner, score in zip(pairs.truth_M, pairs.predicted_M, pairs.score_M, strict=True):
                if score < SAME:  # another cell, or two: no interval on a volume is about that
                    continue
                own = found[int(partner)]
                true_um3 = float((truth == label).sum() * np.prod(spacing))
                errors[side].append(abs(true_um3 - own.volume_um3) / own.deviation_um3)
                widths.append(own.deviation_um3 / own.volume_um3)
            print(line, side, flush=True)
    needed = float(np.quantile(errors["found on"], 0.9, method="higher")) if errors["found on"] else float("nan")
    rows = [
        [side, str(len(values)), f"{np.mean(np.array(values) <= DEVIATIONS_90):.3f}",
         f"{np.mean(np.array(values) <= needed):.3f}"]
        for side, values in errors.items() if values
    ]  # fmt: skip
    shown = Table(
        f"share of true volumes inside the interval ({DEVIATIONS_90:g} deviations as shipped; 90 % of the first fields "
        f"need {needed:.2f}; a deviation is {100 * np.median(widths):.1f} % of the volume in the median)",
        ["cells", "n", "as shipped", "with the width found"],
        rows,
    )
    return [shown], {"errors": errors, "needed": needed}
