"""Matching of predicted to true cells, and the scores of detection and segmentation derived from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sparse
from scipy.optimize import linear_sum_assignment

from cytovox.metrics.overlap import check_same_shape

#: IoU thresholds of the average precision.
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
#: Smallest fraction of a cell that counts as a part of it in a split or a merge.
MIN_PART = 0.1


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Number of voxels that each true cell shares with each predicted cell."""

    truth_T: np.ndarray
    """Labels of the true cells, ascending."""
    predicted_P: np.ndarray
    """Labels of the predicted cells, ascending."""
    truth_voxels_T: np.ndarray
    """Number of voxels of each true cell."""
    predicted_voxels_P: np.ndarray
    """Number of voxels of each predicted cell."""
    shared_TP: np.ndarray
    """Number of voxels in both cells, int64."""

    @cached_property
    def dice_TP(self) -> np.ndarray:
        """Dice coefficient of each pair, 2 |A and B| / (|A| + |B|)."""
        return 2 * self.shared_TP / (self.truth_voxels_T[:, None] + self.predicted_voxels_P[None])

    @cached_property
    def iou_TP(self) -> np.ndarray:
        """Intersection over union of each pair, |A and B| / |A or B|."""
        return self.shared_TP / (self.truth_voxels_T[:, None] + self.predicted_voxels_P[None] - self.shared_TP)


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of a true and a predicted cell; each cell is in at most one pair."""

    truth_M: np.ndarray
    """Labels of the true cells."""
    predicted_M: np.ndarray
    """Labels of the predicted cells, in the order of `truth_M`."""
    score_M: np.ndarray
    """Dice or IoU of each pair, above 0."""
    unmatched_truth: int
    """Number of unmatched true cells."""
    unmatched_predicted: int
    """Number of unmatched predicted cells."""

    @property
    def matched_only(self) -> float:
        """Mean score of the pairs; nan without pairs."""
        return float(self.score_M.mean()) if len(self.score_M) else float("nan")

    @property
    def unmatched_as_zero(self) -> float:
        """Mean score over the pairs and the unmatched cells, which have the score 0; nan without cells."""
        counted = len(self.score_M) + self.unmatched_truth + self.unmatched_predicted
        return float(self.score_M.sum()) / counted if counted else float("nan")


@dataclass(frozen=True)
class DetectionScores:
    """Numbers of true positives, false positives and false negatives at one IoU threshold."""

    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    segmentation_quality: float
    """Segmentation quality SQ: mean IoU of the true positives; nan without any."""

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN), as defined by StarDist and Cellpose; nan without cells."""
        counted = self.true_positives + self.false_positives + self.false_negatives
        return self.true_positives / counted if counted else float("nan")

    @property
    def recognition_quality(self) -> float:
        """Recognition quality RQ, the F1 score 2 TP / (2 TP + FP + FN); nan without cells."""
        counted = 2 * self.true_positives + self.false_positives + self.false_negatives
        return 2 * self.true_positives / counted if counted else float("nan")

    @property
    def panoptic_quality(self) -> float:
        """Panoptic quality PQ = SQ x RQ; 0 without true positives, nan without cells."""
        return self.segmentation_quality * self.recognition_quality if self.true_positives else self.recognition_quality


def overlaps(truth_ZYX: np.ndarray, predicted_ZYX: np.ndarray) -> Overlaps:
    """Return the numbers of voxels that the cells of two label images share.

    Parameters
    ----------
    truth_ZYX, predicted_ZYX : integer array, (Z, Y, X)
        Labels of cells; 0 is the background. Any number of axes.

    Raises
    ------
    ValueError
        The arrays differ in shape, or contain a negative label.
    """
    check_same_shape("labels", predicted_ZYX, truth_ZYX)
    if min(truth_ZYX.min(initial=0), predicted_ZYX.min(initial=0)) < 0:
        raise ValueError("negative label: expected labels of 0 or larger")
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
    """Return the pairs with the largest sum of Dice coefficients; cells without shared voxels are not paired.

    References
    ----------
    Kuhn 1955, Naval Research Logistics 2; Choi et al. 2021, bioRxiv 2021.05.23.445351, for Dice as the score.
    """
    return _matched(found, found.dice_TP)


def detect(found: Overlaps, threshold: float = 0.5) -> DetectionScores:
    """Count true positives, false positives and false negatives at an IoU threshold.

    Parameters
    ----------
    found : Overlaps
    threshold : float
        Smallest IoU of a pair. The number of pairs is the largest possible; above 0.5 the pairs are unique.

    References
    ----------
    Schmidt et al. 2018, MICCAI (StarDist), for the average precision; Kirillov et al. 2019, CVPR, for PQ = SQ x RQ.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold}: expected an IoU above 0 and at most 1")
    # one more pair outweighs any increase in IoU
    weight = np.where(found.iou_TP >= threshold, 1 + found.iou_TP / (2 * max(found.iou_TP.shape) + 1), 0)
    pairs = _matched(found, weight)
    t, p = np.searchsorted(found.truth_T, pairs.truth_M), np.searchsorted(found.predicted_P, pairs.predicted_M)
    iou_M = found.iou_TP[t, p]
    quality = float(iou_M.mean()) if len(iou_M) else float("nan")
    return DetectionScores(threshold, len(iou_M), pairs.unmatched_predicted, pairs.unmatched_truth, quality)


def average_precision(found: Overlaps, thresholds: Sequence[float] = THRESHOLDS) -> dict[float, float]:
    """Return TP / (TP + FP + FN) at each IoU threshold."""
    return {threshold: detect(found, threshold).average_precision for threshold in thresholds}


def count_splits(found: Overlaps) -> int:
    """Return the number of true cells that are divided among several predicted cells.

    A predicted cell is a part of the true cell with which it shares the most voxels, if it has at least `MIN_PART` of
    that cell's voxels.
    """
    return _of_several_parts(found.shared_TP, found.truth_voxels_T)


def count_merges(found: Overlaps) -> int:
    """Return the number of predicted cells that contain several true cells: `count_splits` with the two exchanged."""
    return _of_several_parts(found.shared_TP.T, found.predicted_voxels_P)


def _of_several_parts(shared_WP: np.ndarray, voxels_W: np.ndarray) -> int:
    """Return how many of the wholes W have two or more parts P."""
    if not shared_WP.size:
        return 0
    whole_P = shared_WP.argmax(axis=0)
    part_P = shared_WP[whole_P, np.arange(shared_WP.shape[1])]
    counts = part_P >= np.maximum(MIN_PART * voxels_W[whole_P], 1)
    return int(np.count_nonzero(np.bincount(whole_P[counts], minlength=len(voxels_W)) >= 2))


def _matched(found: Overlaps, weight_TP: np.ndarray) -> Matches:
    """Return the pairs with the largest sum of weights (Hungarian method), without pairs of weight 0."""
    t, p = linear_sum_assignment(weight_TP, maximize=True)
    kept = weight_TP[t, p] > 0
    t, p = t[kept], p[kept]
    return Matches(
        found.truth_T[t],
        found.predicted_P[p],
        weight_TP[t, p],
        len(found.truth_T) - len(t),
        len(found.predicted_P) - len(p),
    )
