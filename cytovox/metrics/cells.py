"""Scores of cell-by-cell segmentation: an image in one row, many images with their intervals, line by line."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from cytovox.metrics.matching import (
    THRESHOLDS,
    Overlaps,
    average_precision,
    count_merges,
    count_splits,
    detect,
    match_by_dice,
    overlaps,
)
from cytovox.statistics.bootstrap import Interval, interval, mean_of


@dataclass(frozen=True)
class CellScores:
    """Scores of one image; nan where there is nothing to score."""

    dice: float
    """Mean Dice of matched cells, every cell without a partner counting 0: the main score."""
    dice_matched: float
    """Mean Dice of matched cells only."""
    ap_50: float
    """TP / (TP + FP + FN) at an IoU of 0.5; then at 0.6 and on."""
    ap_60: float
    ap_70: float
    ap_80: float
    ap_90: float
    pq: float
    """Panoptic quality at an IoU of 0.5, SQ x RQ."""
    sq: float
    rq: float
    splits: int
    """True cells that were cut."""
    merges: int
    """Predicted cells that hold several true ones."""
    cells: int
    """True cells that count."""
    predicted: int
    """Predicted cells that count."""
    left_out: int
    """True cells that do not count."""


def score_cells(truth_ZYX: np.ndarray, predicted_ZYX: np.ndarray, left_out: Collection[int] = ()) -> CellScores:
    """Score the cells of one image.

    Parameters
    ----------
    truth_ZYX, predicted_ZYX : integer array, (Z, Y, X)
        Labels, 0 is the background.
    left_out : collection of int
        True cells that nobody could have found: without a nucleus in the field, for a method that starts from nuclei.
        They do not count as missed. A predicted cell that lies on them more than on any other true cell or the
        background is left out, too; of all others, what lies on them counts as wrongly claimed, since a cell that
        swallowed its neighbour is measured too large. The number left out stands in the scores.

    Raises
    ------
    ValueError
        The arrays differ in shape, hold a negative label, or a cell to leave out is not there.
    """
    found = overlaps(truth_ZYX, predicted_ZYX)
    unknown = set(left_out) - set(found.truth_T.tolist())
    if unknown:
        raise ValueError(f"cells to leave out that are not there: {sorted(unknown)}")
    if left_out:
        found = _without(found, left_out)
    pairs, at_50, precision = match_by_dice(found), detect(found, 0.5), average_precision(found)
    ap_50, ap_60, ap_70, ap_80, ap_90 = (precision[threshold] for threshold in THRESHOLDS)
    return CellScores(
        dice=pairs.unmatched_as_zero,
        dice_matched=pairs.matched_only,
        ap_50=ap_50,
        ap_60=ap_60,
        ap_70=ap_70,
        ap_80=ap_80,
        ap_90=ap_90,
        pq=at_50.panoptic_quality,
        sq=at_50.segmentation_quality,
        rq=at_50.recognition_quality,
        splits=count_splits(found),
        merges=count_merges(found),
        cells=len(found.truth_T),
        predicted=len(found.predicted_P),
        left_out=len(left_out),
    )


def _without(found: Overlaps, left_out: Collection[int]) -> Overlaps:
    out_T = np.isin(found.truth_T, list(left_out))
    on_P = found.shared_TP[out_T].sum(axis=0)
    kept = found.shared_TP[~out_T]
    background_P = found.predicted_voxels_P - found.shared_TP.sum(axis=0)
    most_P = np.maximum(kept.max(axis=0, initial=0), background_P)
    counts_P = on_P <= most_P
    return Overlaps(
        found.truth_T[~out_T],
        found.predicted_P[counts_P],
        found.truth_voxels_T[~out_T],
        found.predicted_voxels_P[counts_P],
        kept[:, counts_P],
    )


def summary(scores: Sequence[CellScores], strata: Sequence[str] | None = None) -> dict[str, Interval]:
    """Mean over images of every score, with its bootstrap interval over images.

    Parameters
    ----------
    scores : sequence of CellScores
        One an image.
    strata : sequence of str, optional
        Cell line of each image: images are drawn within their line.

    Returns
    -------
    dict of name -> Interval
        By the names of `CellScores`; images without a score are left out of it.
    """
    rows = [asdict(score) for score in scores]
    return {
        field.name: interval(mean_of([float(row[field.name]) for row in rows]), len(rows), strata=strata)
        for field in fields(CellScores)
    }


def by_cell_line(scores: Sequence[CellScores], lines: Sequence[str]) -> dict[str, dict[str, Interval]]:
    """`summary` of the images of each cell line, in the order of first appearance."""
    return {
        line: summary([score for score, own in zip(scores, lines, strict=True) if own == line])
        for line in dict.fromkeys(lines)
    }
