"""Dice of masks, its spread over cases, and a baseline: the best thresholds of the refractive index."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from cytovox.organelles import ORGANELLES


def check_same_shape(kind: str, pred: np.ndarray, truth: np.ndarray) -> None:
    """Raise a ValueError if a prediction and its truth differ in shape; `kind` is the plural in the message."""
    if pred.shape != truth.shape:
        raise ValueError(f"expected {kind} of one shape, got {pred.shape} predicted and {truth.shape} true")


def dice(pred_ZYX: np.ndarray, truth_ZYX: np.ndarray) -> float:
    """Return the Dice coefficient of two masks, 2 |A and B| / (|A| + |B|).

    Parameters
    ----------
    pred_ZYX, truth_ZYX : bool array, (Z, Y, X)
        True inside the organelle. In arrays of other types, nonzero voxels are inside.

    Returns
    -------
    float
        0 to 1; nan if both are empty.

    Raises
    ------
    ValueError
        The masks differ in shape.
    """
    check_same_shape("masks", pred_ZYX, truth_ZYX)
    pred, truth = pred_ZYX != 0, truth_ZYX != 0
    total = np.count_nonzero(pred) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(pred & truth) / total if total else float("nan")


def dice_per_organelle(
    pred_CZYX: np.ndarray, truth_CZYX: np.ndarray, labelled_C: np.ndarray | None = None
) -> np.ndarray:
    """Return the Dice coefficient of every organelle of one case.

    Parameters
    ----------
    pred_CZYX, truth_CZYX : bool array, (C, Z, Y, X)
        One mask per organelle, in the order of `ORGANELLES`.
    labelled_C : bool array, (C,), optional
        False for organelles that were not annotated; their masks in `truth_CZYX` are ignored. By default all were.

    Returns
    -------
    float64 array, (C,)
        nan if the organelle was not annotated, or is absent from both truth and prediction.

    Raises
    ------
    ValueError
        The arrays differ in shape.
    """
    check_same_shape("masks", pred_CZYX, truth_CZYX)
    labelled_C = np.ones(len(truth_CZYX), bool) if labelled_C is None else np.asarray(labelled_C, bool)
    return np.array(
        [
            dice(pred, truth) if known else np.nan
            for pred, truth, known in zip(pred_CZYX, truth_CZYX, labelled_C, strict=True)
        ]
    )


@dataclass(frozen=True)
class Spread:
    """Distribution of a score over cases. Without cases, all fields but `n` are nan."""

    n: int
    """Number of cases that have the score."""
    mean: float
    sd: float
    """Sample standard deviation (n - 1); nan with fewer than two cases."""
    minimum: float
    q1: float
    median: float
    q3: float
    maximum: float


def spread(values: Iterable[float]) -> Spread:
    """Return the mean, standard deviation and quartiles of the values that are not nan.

    Parameters
    ----------
    values : iterable of float
        One score per case; nan if the case has none.

    Returns
    -------
    Spread
        Quartiles are linear interpolations, as in numpy and R's type 7.
    """
    known = np.asarray([value for value in values if not np.isnan(value)], dtype=np.float64)
    if not known.size:
        return Spread(0, *[float("nan")] * 7)
    quartiles = (float(q) for q in np.quantile(known, [0, 0.25, 0.5, 0.75, 1]))
    sd = float(known.std(ddof=1)) if known.size > 1 else float("nan")
    return Spread(known.size, float(known.mean()), sd, *quartiles)


@dataclass(frozen=True)
class RIWindow:
    """Interval [ri_low, ri_high) of the refractive index, used as a segmentation of an organelle."""

    organelle: str
    ri_low: float
    """-inf if the window has no lower end; nan if no case has the organelle."""
    ri_high: float
    """inf if the window has no upper end; nan if no case has the organelle."""
    dice: float
    """Mean Dice over the cases that have the organelle."""
    n: int
    """Number of cases that have the organelle."""

    def mask(self, ri_ZYX: np.ndarray) -> np.ndarray:
        """Return a mask of the voxels whose refractive index is inside the window, bool (Z, Y, X)."""
        return (ri_ZYX >= np.float64(self.ri_low)) & (ri_ZYX < np.float64(self.ri_high))


@dataclass
class RIWindowFit:
    """Search, for each organelle, for the window of refractive index with the highest mean Dice over the cases.

    This is a baseline for networks. Fitted to the test set itself, it is an upper bound of segmentation by two
    thresholds. Only histograms of the added cases are kept. The search is exhaustive over all pairs of bin edges.

    Raises
    ------
    ValueError
        There are fewer than two bins between `ri_min` and `ri_max`.
    """

    organelles: tuple[str, ...] = ORGANELLES
    ri_min: float = 1.33
    """Lowest threshold; the bin below it is open-ended."""
    ri_max: float = 1.45
    """Highest threshold; the bin above it is open-ended."""
    bin_width: float = 2e-4
    """Step between thresholds. The noise of a tomogram is about 5e-4."""

    edges: np.ndarray = field(init=False, repr=False)
    # histograms of all voxels, and of those inside the organelle, per organelle and case
    _all: dict[str, list[np.ndarray]] = field(init=False, repr=False, default_factory=lambda: defaultdict(list))
    _inside: dict[str, list[np.ndarray]] = field(init=False, repr=False, default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        steps = round((self.ri_max - self.ri_min) / self.bin_width)
        if steps < 2:
            raise ValueError(f"ri_min {self.ri_min} must lie two bins of {self.bin_width} below ri_max {self.ri_max}")
        # rounded to float32, so that float32 and float64 volumes have the same thresholds
        edges = np.linspace(self.ri_min, self.ri_max, steps + 1).astype(np.float32).astype(np.float64)
        self.edges = np.concatenate([[-np.inf], edges, [np.inf]])

    def add(self, ri_ZYX: np.ndarray, masks: Mapping[str, np.ndarray | None]) -> None:
        """Add one case.

        Parameters
        ----------
        ri_ZYX : float array, (Z, Y, X)
            Refractive index.
        masks : dict of organelle -> bool array, (Z, Y, X)
            True masks. A mask that is missing or None was not annotated. The case is ignored for this organelle, as it
            is if the mask is empty.

        Raises
        ------
        ValueError
            A mask differs from the volume in shape, or the volume contains NaN.
        """
        if np.isnan(ri_ZYX).any():
            raise ValueError("the volume contains NaN: expected finite refractive indices")
        bins_ZYX = np.searchsorted(self.edges[1:-1], ri_ZYX, side="right")
        everything = np.bincount(bins_ZYX.ravel(), minlength=len(self.edges) - 1)
        for organelle in self.organelles:
            if (mask := masks.get(organelle)) is None:
                continue
            if mask.shape != ri_ZYX.shape:
                raise ValueError(f"{organelle}: the mask is {mask.shape}, the volume {ri_ZYX.shape}")
            inside = np.bincount(bins_ZYX[mask != 0], minlength=len(self.edges) - 1)
            if inside.any():
                self._all[organelle].append(everything)
                self._inside[organelle].append(inside)

    def merge(self, other: "RIWindowFit") -> None:
        """Add the cases of another fit with the same organelles and thresholds, such as that of another process."""
        for organelle in self.organelles:
            self._all[organelle] += other._all[organelle]
            self._inside[organelle] += other._inside[organelle]

    def fit(self) -> dict[str, RIWindow]:
        """Return the best window of every organelle; nan with `n` 0 if no case has the organelle."""
        return {organelle: self._fit_one(organelle) for organelle in self.organelles}

    def _fit_one(self, organelle: str) -> RIWindow:
        if not (n := len(self._all[organelle])):
            return RIWindow(organelle, float("nan"), float("nan"), float("nan"), 0)
        low, high, score = best_window(np.stack(self._inside[organelle]), np.stack(self._all[organelle]))
        return RIWindow(organelle, float(self.edges[low]), float(self.edges[high]), score, n)


def best_window(inside_NB: np.ndarray, all_NB: np.ndarray) -> tuple[int, int, float]:
    """Return the range of bins with the highest mean Dice over cases, by exhaustive search.

    Parameters
    ----------
    inside_NB : int array, (N, B)
        Number of voxels of the organelle in each bin of each case; above 0 in some bin of every case.
    all_NB : int array, (N, B)
        Number of all voxels in each bin.

    Returns
    -------
    low, high : int
        The range consists of bins low, low + 1, ..., high - 1.
    score : float
        Mean Dice of the range. Of ranges with the same score, the one with the lowest ends is returned.
    """
    zero = np.zeros((len(inside_NB), 1))
    inside = np.concatenate([zero, np.cumsum(inside_NB, axis=1)], axis=1)
    everything = np.concatenate([zero, np.cumsum(all_NB, axis=1)], axis=1)
    truth = inside[:, -1:]
    best = (0, 1, -1.0)
    for low in range(inside_NB.shape[1]):
        hits = inside[:, low + 1 :] - inside[:, low : low + 1]
        taken = everything[:, low + 1 :] - everything[:, low : low + 1]
        score_B = (2 * hits / (taken + truth)).mean(axis=0)
        high = int(score_B.argmax())
        if score_B[high] > best[2]:
            best = (low, low + 1 + high, float(score_B[high]))
    return best
