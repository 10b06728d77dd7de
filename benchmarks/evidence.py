"""How well `evidence` and the volume intervals of a table of cells state whether a mask can be trusted.

Masks are predicted in the phantoms of the independent benchmark, cells are found from them, and each organelle of each
found cell is compared with the truth. The rules are chosen on half of the sets of phantoms and scored on the others.

Run as ``python benchmarks/evidence.py [--weights NAME]``. ``--calibrate`` prints the constants of
`cytovox.measurement.evidence` that the first half gives.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

import numpy as np
import scipy.ndimage as ndi

import cytovox
from benchmarks._common import Table, Watch, finish, options, say
from benchmarks._phantom_sets import SETS, Case, cached_cases
from benchmarks.independent import shown
from cytovox.measurement.evidence import SHELL_UM, EvidenceRule, evidence_of, probable_voxels, volume_interval
from cytovox.metrics.matching import overlaps
from cytovox.organelles import WHOLE

COMPARTMENTS = (WHOLE, "nucleus", "nucleolus", "lipid")
#: Sets on which the rules are chosen; they are scored on all others.
CALIBRATION = ("single_scattered", "fields")
#: Least Dice of a good mask, and least share of good masks among those that are called strong.
GOOD, PRECISION = 0.8, 0.95


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
    likely_um3: float
    """Volume of voxels with a probability of at least `evidence.LIKELY`."""
    possible_um3: float
    """Volume of voxels with a probability of at least `evidence.POSSIBLE`."""
    boundary_contrast: float
    edge_share: float
    expected_dice: float


def more(parser: argparse.ArgumentParser) -> None:
    """Add the options of this script."""
    parser.add_argument("--weights", default="organelle", help="name or file of organelle weights")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS), help="sets of phantoms")
    parser.add_argument("--count", type=int, help="phantoms of each set; all if left out")
    parser.add_argument("--calibrate", action="store_true", help="print the rules that the calibration sets give")
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache" / "cytovox" / "phantoms", help="folder of the phantoms"
    )


def main() -> None:
    """Predict, compare, and print the tables."""
    arguments = options("evidence", "Evidence and volume intervals against the truth of phantoms.", 1, more)
    count = 1 if arguments.quick else arguments.count
    watch, rows = Watch(), list[Row]()
    with watch:
        model = cytovox.load_model(arguments.weights, task="organelle")
        for name in arguments.sets:
            cases = cached_cases(name, count or SETS[name].count, arguments.cache, os.cpu_count() or 1, say)
            for case in cases:
                rows += rows_of(name, case, model)
            say(f"{name}: {len(cases)} phantoms")
    if arguments.calibrate:
        for compartment in COMPARTMENTS:
            chosen = [row for row in rows if row.set in CALIBRATION and row.compartment == compartment]
            print(f'    "{compartment}": {calibrated(chosen)!r},')
    tables = [evidence_table(rows), interval_table(rows)]
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
        around = (cells == 0) | inside if compartment == WHOLE else inside
        probability = masks.probabilities["membrane" if compartment == WHOLE else compartment]
        if compartment == WHOLE:  # the shell around the cell, as in `cytovox.measurement.evidence`
            around &= ndi.distance_transform_edt(~inside, sampling=case.spacing_um) <= SHELL_UM + max(case.spacing_um)
        likely, possible = probable_voxels(probability, around)
        found.append(
            Row(
                name, case.name, cell, compartment, dice, float(values["volume_um3"]), float(truth.sum()) * voxel,
                likely * voxel, possible * voxel,
                *(float(values[key]) for key in ("boundary_contrast", "edge_share", "expected_dice")),
            )
        )  # fmt: skip
    return found


def calibrated(rows: Sequence[Row]) -> EvidenceRule:
    """Return the rule that calls most good masks strong, of those that are right often enough, and its interval.

    Parameters
    ----------
    rows : sequence of Row
        Masks of one organelle.
    """
    good = np.array([row.dice >= GOOD for row in rows])
    values = [
        np.array([row.expected_dice for row in rows]),
        np.abs([row.boundary_contrast for row in rows]),
        np.nan_to_num([row.edge_share for row in rows]),
    ]
    best, rule = -1, (math.inf, math.inf, math.inf)
    for least in itertools.product(
        np.arange(0.5, 0.98, 0.02), (0.0, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5), (0.0, 0.6, 0.7, 0.8, 0.9)
    ):
        strong = np.all([value >= bound for value, bound in zip(values, least, strict=True)], axis=0)
        if strong.sum() >= 5 and good[strong].mean() >= PRECISION + 0.5 / strong.sum() and good[strong].sum() > best:
            best, rule = int(good[strong].sum()), least
    spread, below, above = interval_of(rows)
    return EvidenceRule(*(round(float(bound), 2) for bound in (*rule, spread, below, above)))


def interval_of(rows: Sequence[Row]) -> tuple[float, float, float]:
    """Return weight of the spread and distances of both ends for the narrowest interval that holds 90 % of volumes."""
    rows = [row for row in rows if row.true_um3 > 0]
    error = np.array([math.log(row.true_um3 / row.volume_um3) for row in rows])
    spread = np.array([spread_of(row) for row in rows])
    found = []
    for weight in np.arange(0.0, 2.01, 0.1):
        below, above = (float(np.quantile(sign * error - weight * spread, 0.95)) for sign in (-1, 1))
        width = np.mean(np.exp(weight * spread + above) - np.exp(-weight * spread - below))
        found.append((float(width), float(weight), below, above))
    return min(found)[1:]


def spread_of(row: Row) -> float:
    """Return the logarithm of the possible over the likely volume, as `volume_interval` does."""
    return math.log(max(row.possible_um3, row.volume_um3) / max(min(row.likely_um3, row.volume_um3),
                                                                0.01 * row.volume_um3))  # fmt: skip


def evidence_table(rows: Sequence[Row]) -> Table:
    """Return how often strong masks are good, and which share of good masks is called strong."""
    table = Table(
        f"evidence: masks of Dice >= {GOOD:g} among those called strong, weak and none",
        ["sets", "organelle", "masks", "good", "strong", "good of the strong", "good masks called strong", "weak",
         "good of the weak", "none", "good of none"],
    )  # fmt: skip
    for title, compartment, own in _parts(rows):
        kinds = [evidence_of(row.compartment, row.boundary_contrast, row.edge_share, row.expected_dice) for row in own]
        good = np.array([row.dice >= GOOD for row in own], bool)
        is_kind = {kind: np.array([one == kind for one in kinds], bool) for kind in ("strong", "weak", "none")}
        cells = [title, compartment, str(len(own)), str(int(good.sum())), str(int(is_kind["strong"].sum()))]
        cells += [_share(good[is_kind["strong"]]), _share(is_kind["strong"][good])]
        for kind in ("weak", "none"):
            cells += [str(int(is_kind[kind].sum())), _share(good[is_kind[kind]])]
        table.rows.append(cells)
    return table


def interval_table(rows: Sequence[Row]) -> Table:
    """Return coverage, width and interval score of the intervals, beside intervals of a constant percentage."""
    table = Table(
        "90 % intervals of volumes: share of true volumes inside, mean width over the volume, interval score over the "
        "volume (lower is better); beside an interval of constant percentage from the calibration sets",
        ["sets", "organelle", "masks", "covered", "width", "score", "constant: covered", "constant: width",
         "constant: score"],
    )  # fmt: skip
    for title, compartment, own in _parts(rows):
        own = [row for row in own if row.true_um3 > 0]
        calibration = [r for r in rows if r.set in CALIBRATION and r.compartment == compartment and r.true_um3 > 0]
        if not own or not calibration:
            continue
        error = [math.log(row.true_um3 / row.volume_um3) for row in calibration]
        low, high = np.quantile(error, [0.05, 0.95])
        ours = [volume_interval(row.compartment, row.volume_um3, row.likely_um3, row.possible_um3) for row in own]
        constant = [(row.volume_um3 * math.exp(low), row.volume_um3 * math.exp(high)) for row in own]
        table.rows.append([title, compartment, str(len(own)), *_scores(own, ours), *_scores(own, constant)])
    return table


def _parts(rows: Sequence[Row]) -> Iterable[tuple[str, str, list[Row]]]:
    for title, calibration in (("calibration", True), ("others", False)):
        for compartment in COMPARTMENTS:
            own = [row for row in rows if (row.set in CALIBRATION) == calibration and row.compartment == compartment]
            if own:
                yield title, compartment, own


def _share(values: np.ndarray) -> str:
    return shown(values.astype(float).tolist()) if len(values) else "-"


def _scores(rows: Sequence[Row], ends: Sequence[tuple[float, float]]) -> list[str]:
    """Return coverage, width and the interval score (Gneiting and Raftery 2007, eq. 43) at 90 %."""
    covered, widths, scores = [], [], []
    for row, (low, high) in zip(rows, ends, strict=True):
        covered.append(float(low <= row.true_um3 <= high))
        widths.append((high - low) / row.volume_um3)
        missed = max(0.0, low - row.true_um3) + max(0.0, row.true_um3 - high)
        scores.append((high - low + 2 / 0.1 * missed) / row.volume_um3)
    return [shown(covered), f"{np.mean(widths):.2f}", f"{np.mean(scores):.2f}"]


if __name__ == "__main__":
    main()
