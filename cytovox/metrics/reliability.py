"""Calibration of voxel probabilities: reliability diagram and expected calibration error."""

import math

import numpy as np

from cytovox.metrics.overlap import check_same_shape


class Reliability:
    """Reliability diagram of voxel probabilities in `bins` equal bins of 0 to 1; cells are added one at a time."""

    def __init__(self, bins: int = 10) -> None:
        self.count_B = np.zeros(bins, np.int64)
        """Number of voxels with a probability in each bin."""
        self.inside_B = np.zeros(bins, np.int64)
        """Number of these voxels that are inside the true mask."""
        self.probability_sum_B = np.zeros(bins, np.float64)
        """Sum of the probabilities in each bin."""

    def add(self, probability_ZYX: np.ndarray, truth_ZYX: np.ndarray) -> None:
        """Count the voxels of one cell.

        Parameters
        ----------
        probability_ZYX : float array, (Z, Y, X)
            Probability of being inside, 0 to 1: from a network, or the fraction of samples that are inside.
        truth_ZYX : bool array, (Z, Y, X)
            True inside.

        Raises
        ------
        ValueError
            The arrays differ in shape, or a probability is nan or outside 0..1.
        """
        check_same_shape("masks", probability_ZYX, truth_ZYX)
        bins = len(self.count_B)
        for probability_YX, truth_YX in zip(probability_ZYX, truth_ZYX, strict=True):
            p = np.asarray(probability_YX, np.float64).ravel()
            if not ((p >= 0) & (p <= 1)).all():
                raise ValueError("a voxel's probability is nan or outside 0..1: expected probabilities, not logits")
            at = np.minimum((p * bins).astype(np.int64), bins - 1)
            self.count_B += np.bincount(at, minlength=bins)
            self.inside_B += np.bincount(at[np.asarray(truth_YX).ravel() != 0], minlength=bins)
            self.probability_sum_B += np.bincount(at, weights=p, minlength=bins)

    def merge(self, other: "Reliability") -> None:
        """Add the counts of another diagram with the same bins."""
        self.count_B += other.count_B
        self.inside_B += other.inside_B
        self.probability_sum_B += other.probability_sum_B

    @property
    def predicted_B(self) -> np.ndarray:
        """Mean probability in each bin; nan in an empty bin."""
        return _divided(self.probability_sum_B, self.count_B)

    @property
    def observed_B(self) -> np.ndarray:
        """Fraction of each bin's voxels that are inside the true mask; nan in an empty bin."""
        return _divided(self.inside_B, self.count_B)

    def calibration_error(self) -> float:
        """Return the expected calibration error over the inner bins; nan if they are empty.

        The first and last bins are left out: nearly all voxels of a crop are certain background, and would hide errors
        of the other voxels.

        References
        ----------
        Naeini, Cooper and Hauskrecht 2015, AAAI, for the error over all bins.
        """
        inner = np.flatnonzero(self.count_B[1:-1]) + 1
        if not len(inner):
            return math.nan
        gap = np.abs(self.predicted_B[inner] - self.observed_B[inner])
        return float(np.average(gap, weights=self.count_B[inner]))


def _divided(values_B: np.ndarray, by_B: np.ndarray) -> np.ndarray:
    return np.divide(values_B, by_B, out=np.full(len(by_B), np.nan), where=by_B > 0)
