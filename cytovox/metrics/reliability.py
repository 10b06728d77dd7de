"""Whether voxel probabilities mean what they say."""

import math

import numpy as np


class Reliability:
    """How often a voxel is inside, by the probability it was given; fed cell by cell, it keeps `bins` counts only."""

    def __init__(self, bins: int = 10) -> None:
        self.count_B = np.zeros(bins, np.int64)
        """Voxels whose probability lies in each of the equal bins of 0 to 1."""
        self.inside_B = np.zeros(bins, np.int64)
        """Those of them that are truly inside."""
        self.probability_sum_B = np.zeros(bins, np.float64)

    def add(self, probability_ZYX: np.ndarray, truth_ZYX: np.ndarray) -> None:
        """Count the voxels of one cell.

        Parameters
        ----------
        probability_ZYX : float array, (Z, Y, X)
            0 to 1: a network's probability, or the share of samples that are inside.
        truth_ZYX : bool array, (Z, Y, X)
            True inside.

        Raises
        ------
        ValueError
            The arrays differ in shape, or a probability is outside of 0..1 or nan.
        """
        if probability_ZYX.shape != truth_ZYX.shape:
            raise ValueError(f"expected one shape, got {probability_ZYX.shape} and {truth_ZYX.shape}")
        bins = len(self.count_B)
        for probability_YX, truth_YX in zip(probability_ZYX, truth_ZYX, strict=True):
            p = np.asarray(probability_YX, np.float64).ravel()
            if not ((p >= 0) & (p <= 1)).all():
                raise ValueError("a voxel's probability is nan or outside of 0..1: pass probabilities, not logits")
            at = np.minimum((p * bins).astype(np.int64), bins - 1)
            self.count_B += np.bincount(at, minlength=bins)
            self.inside_B += np.bincount(at[np.asarray(truth_YX).ravel() != 0], minlength=bins)
            self.probability_sum_B += np.bincount(at, weights=p, minlength=bins)

    def merge(self, other: "Reliability") -> None:
        """Add another's counts, of as many bins."""
        self.count_B += other.count_B
        self.inside_B += other.inside_B
        self.probability_sum_B += other.probability_sum_B

    @property
    def predicted_B(self) -> np.ndarray:
        """Mean probability given in each bin; nan in an empty one."""
        return _divided(self.probability_sum_B, self.count_B)

    @property
    def observed_B(self) -> np.ndarray:
        """Share of each bin's voxels that are truly inside; nan in an empty one."""
        return _divided(self.inside_B, self.count_B)

    def calibration_error(self) -> float:
        """Expected calibration error over the voxels in doubt: all but those of the first and the last bin.

        Nearly all voxels of a crop are plainly background; counted in, they would make any model look calibrated.
        nan where no voxel is in doubt.

        References
        ----------
        Naeini, Cooper and Hauskrecht 2015, AAAI, for the error over all bins.
        """
        doubt = np.arange(len(self.count_B))[1:-1]
        doubt = doubt[self.count_B[doubt] > 0]
        if not len(doubt):
            return math.nan
        gap = np.abs(self.predicted_B[doubt] - self.observed_B[doubt])
        return float(np.average(gap, weights=self.count_B[doubt]))


def _divided(values_B: np.ndarray, by_B: np.ndarray) -> np.ndarray:
    return np.divide(values_B, by_B, out=np.full(len(by_B), np.nan), where=by_B > 0)
