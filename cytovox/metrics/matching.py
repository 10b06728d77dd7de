"""How far predicted cells are the true ones: the Hungarian method, and the scores that the field reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sparse
from scipy.optimize import linear_sum_assignment

#: IoU thresholds of the average precision.
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
#: A part of a cell that is smaller than this share of it makes neither a split nor a merge.
MIN_PART = 0.1


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Voxels that each true cell shares with each predicted one."""

    truth_T: np.ndarray
    """Labels of the true cells, rising."""
    predicted_P: np.ndarray
    """Labels of the predicted cells, rising."""
    truth_voxels_T: np.ndarray
    """Size of each true cell."""
    predicted_voxels_P: np.ndarray
    """Size of each predicted cell."""
    shared_TP: np.ndarray
    """int64 voxels in both."""

    @cached_property
    def dice_TP(self) -> np.ndarray:
        """2 |A and B| / (|A| + |B|)."""
        return 2 * self.shared_TP / (self.truth_voxels_T[:, None] + self.predicted_voxels_P[None])

    @cached_property
    def iou_TP(self) -> np.ndarray:
        """|A and B| / |A or B|."""
        return self.shared_TP / (self.truth_voxels_T[:, None] + self.predicted_voxels_P[None] - self.shared_TP)


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of a true and a predicted cell; a cell is in one pair at most."""

    truth_M: np.ndarray
    """Labels of the true cells."""
    predicted_M: np.ndarray
    """Labels of their partners."""
    score_M: np.ndarray
    """Dice or IoU of each pair, above 0."""
    unmatched_truth: int
    """True cells without a partner."""
    unmatched_predicted: int
    """Predicted cells without one."""

    @property
    def matched_only(self) -> float:
        """Mean score of the pairs; nan where there is none."""
        return float(self.score_M.mean()) if len(self.score_M) else float("nan")

    @property
    def unmatched_as_zero(self) -> float:
        """Mean score where every cell without a partner, true or predicted, counts as a pair of score 0.

        nan where there is no cell in either.
        """
        counted = len(self.score_M) + self.unmatched_truth + self.unmatched_predicted
        return float(self.score_M.sum()) / counted if counted else float("nan")


@dataclass(frozen=True)
class Detection:
    """Cells found, missed and invented at one IoU threshold."""

    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    segmentation_quality: float
    """SQ: mean IoU of the true positives; nan without any."""

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN), as StarDist and Cellpose report it; nan where there is no cell at all."""
        counted = self.true_positives + self.false_positives + self.false_negatives
        return self.true_positives / counted if counted else float("nan")

    @property
    def recognition_quality(self) -> float:
        """RQ: 2 TP / (2 TP + FP + FN), the F1 score; nan where there is no cell at all."""
        counted = 2 * self.true_positives + self.false_positives + self.false_negatives
        return 2 * self.true_positives / counted if counted else float("nan")

    @property
    def panoptic_quality(self) -> float:
        """PQ = SQ x RQ; 0 where cells are there but none was found."""
        return self.segmentation_quality * self.recognition_quality if self.true_positives else self.recognition_quality


def overlaps(truth_ZYX: np.ndarray, predicted_ZYX: np.ndarray) -> Overlaps:
    """Count what two label images share, in one pass over the voxels.

    Parameters
    ----------
    truth_ZYX, predicted_ZYX : integer array, (Z, Y, X)
        Labels of cells, 0 is the background. Any number of axes will do.

    Raises
    ------
    ValueError
        The arrays differ in shape, or hold a negative label.
    """
    if truth_ZYX.shape != predicted_ZYX.shape:
        raise ValueError(f"labels of one shape were expected, got {truth_ZYX.shape} and {predicted_ZYX.shape}")
    if min(truth_ZYX.min(initial=0), predicted_ZYX.min(initial=0)) < 0:
        raise ValueError("labels are 0 or larger")
    either = (truth_ZYX != 0) | (predicted_ZYX != 0)
    truth_T, rows = np.unique(truth_ZYX[either], return_inverse=True)
    predicted_P, columns = np.unique(predicted_ZYX[either], return_inverse=True)
    shape = len(truth_T), len(predicted_P)
    counted = sparse.coo_array((np.ones(len(rows), np.int64), (rows, columns)), shape=shape).toarray()
    sizes_T, sizes_P = counted.sum(axis=1), counted.sum(axis=0)
    t, p = truth_T > 0, predicted_P > 0
    return Overlaps(
        truth_T[t].astype(np.int64), predicted_P[p].astype(np.int64), sizes_T[t], sizes_P[p], counted[np.ix_(t, p)]
    )


def match_by_dice(found: Overlaps) -> Matches:
    """Pair cells so that the sum of their Dice coefficients is the largest possible; pairs that share nothing are none.

    References
    ----------
    Kuhn 1955, Naval Research Logistics 2; Choi et al. 2021, bioRxiv 2021.05.23.445351, for Dice as the score.
    """
    return _matched(found, found.dice_TP, 0.0)


def detect(found: Overlaps, threshold: float = 0.5) -> Detection:
    """True positives, false positives and false negatives at an IoU threshold.

    Parameters
    ----------
    found : Overlaps
    threshold : float
        Pairs count from this IoU on. As many pairs as possible are made; above 0.5 there is only one way to make them.

    References
    ----------
    Schmidt et al. 2018, MICCAI (StarDist), for the average precision; Kirillov et al. 2019, CVPR, for PQ = SQ x RQ.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold}: expected an IoU above 0, 1 at most")
    # a pair that passes weighs more than any gain in IoU
    weight = np.where(found.iou_TP >= threshold, 1 + found.iou_TP / (2 * max(found.iou_TP.shape) + 1), 0)
    pairs = _matched(found, weight, 0.0)
    t, p = np.searchsorted(found.truth_T, pairs.truth_M), np.searchsorted(found.predicted_P, pairs.predicted_M)
    iou_M = found.iou_TP[t, p]
    quality = float(iou_M.mean()) if len(iou_M) else float("nan")
    return Detection(threshold, len(iou_M), pairs.unmatched_predicted, pairs.unmatched_truth, quality)


def average_precision(found: Overlaps, thresholds: Sequence[float] = THRESHOLDS) -> dict[float, float]:
    """TP / (TP + FP + FN) at each IoU threshold."""
    return {threshold: detect(found, threshold).average_precision for threshold in thresholds}


def count_splits(found: Overlaps) -> int:
    """True cells that were cut into several predicted ones.

    A predicted cell is a part of the true cell that it shares most voxels with; it counts from a tenth of that cell's
    voxels on.
    """
    return _of_several_parts(found.shared_TP, found.truth_voxels_T)


def count_merges(found: Overlaps) -> int:
    """Predicted cells that hold several true ones: `count_splits` with the two exchanged."""
    return _of_several_parts(found.shared_TP.T, found.predicted_voxels_P)


def _of_several_parts(shared_WP: np.ndarray, voxels_W: np.ndarray) -> int:
    """How many wholes W have two parts P or more."""
    if not shared_WP.size:
        return 0
    whole_P = shared_WP.argmax(axis=0)
    part_P = shared_WP[whole_P, np.arange(shared_WP.shape[1])]
    counts = part_P >= np.maximum(MIN_PART * voxels_W[whole_P], 1)
    return int(np.count_nonzero(np.bincount(whole_P[counts], minlength=len(voxels_W)) >= 2))


def _matched(found: Overlaps, weight_TP: np.ndarray, least: float) -> Matches:
    t, p = linear_sum_assignment(weight_TP, maximize=True)
    kept = weight_TP[t, p] > least
    t, p = t[kept], p[kept]
    return Matches(
        found.truth_T[t],
        found.predicted_P[p],
        weight_TP[t, p],
        len(found.truth_T) - len(t),
        len(found.predicted_P) - len(p),
    )
