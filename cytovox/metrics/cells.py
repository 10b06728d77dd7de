"""Scores of instance segmentation of cells: of one image, and means over images with bootstrap intervals."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from cytovox.metrics.matching import (
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
    """Mean Dice of matched cells; each unmatched cell counts as 0. The main score."""
    dice_matched: float
    """Mean Dice of the matched cells only."""
    ap_50: float
    """Average precision TP / (TP + FP + FN) at an IoU of 0.5; the next fields: at 0.6 to 0.9."""
    ap_60: float
    ap_70: float
    ap_80: float
    ap_90: float
    pq: float
    """Panoptic quality at an IoU of 0.5, SQ x RQ."""
    sq: float
    rq: float
    splits: int
    """Number of true cells that are divided among several predicted cells."""
    merges: int
    """Number of predicted cells that contain several true cells."""
    cells: int
    """Number of true cells that are scored."""
    predicted: int
    """Number of predicted cells that are scored."""
    left_out: int
    """Number of true cells that are not scored."""


def score_cells(truth_ZYX: np.ndarray, predicted_ZYX: np.ndarray, left_out: Collection[int] = ()) -> CellScores:
    """Return the scores of the cells of one image.

    Parameters
    ----------
    truth_ZYX, predicted_ZYX : integer array, (Z, Y, X)
        Labels; 0 is the background.
    left_out : collection of int
        Labels of true cells that cannot be found, such as cells whose nucleus is outside the field if the method starts
        from nuclei. They do not count as missed. A predicted cell is left out, too, if it shares more voxels with them
        than with any other true cell and than with the background. In the other predicted cells, the voxels that are
        shared with left-out cells count as false, since such a cell is measured too large.

    Raises
    ------
    ValueError
        The arrays differ in shape or contain a negative label, or a label in `left_out` is missing from the truth.
    """
    found = overlaps(truth_ZYX, predicted_ZYX)
    if unknown := set(left_out) - set(found.truth_T.tolist()):
        raise ValueError(f"left_out: {sorted(unknown)} not among the true labels")
    if left_out:
        found = _without(found, left_out)
    pairs, at_50 = match_by_dice(found), detect(found, 0.5)
    precision = {f"ap_{round(100 * threshold)}": value for threshold, value in average_precision(found).items()}
    return CellScores(
        dice=pairs.unmatched_as_zero,
        dice_matched=pairs.matched_only,
        **precision,
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
    """Return the overlaps without the true cells `left_out` and the predicted cells that lie mostly on them."""
    kept_T = ~np.isin(found.truth_T, list(left_out))
    shared = found.shared_TP[kept_T]
    background_P = found.predicted_voxels_P - found.shared_TP.sum(axis=0)
    kept_P = found.shared_TP[~kept_T].sum(axis=0) <= np.maximum(shared.max(axis=0, initial=0), background_P)
    return Overlaps(
        found.truth_T[kept_T],
        found.predicted_P[kept_P],
        found.truth_voxels_T[kept_T],
        found.predicted_voxels_P[kept_P],
        shared[:, kept_P],
    )


def summary(scores: Sequence[CellScores], strata: Sequence[str] | None = None) -> dict[str, Interval]:
    """Return the mean of every score over images, with its bootstrap interval.

    Parameters
    ----------
    scores : sequence of CellScores
        One per image.
    strata : sequence of str, optional
        Cell line of each image. Images are drawn within their cell line.

    Returns
    -------
    dict of name -> Interval
        By the field names of `CellScores`. Images whose score is nan are left out of the mean.
    """
    rows = [asdict(score) for score in scores]
    return {
        field.name: interval(mean_of([float(row[field.name]) for row in rows]), len(rows), strata=strata)
        for field in fields(CellScores)
    }


def by_cell_line(scores: Sequence[CellScores], cell_lines: Sequence[str]) -> dict[str, dict[str, Interval]]:
    """Return the `summary` of the images of each cell line, in the order of first appearance."""
    return {
        name: summary([score for score, own in zip(scores, cell_lines, strict=True) if own == name])
        for name in dict.fromkeys(cell_lines)
    }
