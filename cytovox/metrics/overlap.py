"""How far two masks agree, and how far the refractive index alone would have come."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from cytovox.organelles import ORGANELLES, UNDRAWN


def dice(pred_ZYX: np.ndarray, truth_ZYX: np.ndarray) -> float:
    """Dice coefficient of two masks, 2 |A and B| / (|A| + |B|).

    Parameters
    ----------
    pred_ZYX, truth_ZYX : bool array, (Z, Y, X)
        True inside the organelle. Any other type counts as True where it is not zero.

    Returns
    -------
    float
        0 to 1; nan where both are empty, for there was nothing to find and nothing was found.

    Raises
    ------
    ValueError
        The two masks differ in shape.
    """
    if pred_ZYX.shape != truth_ZYX.shape:
        raise ValueError(f"masks of one shape were expected, got {pred_ZYX.shape} and {truth_ZYX.shape}")
    pred, truth = pred_ZYX != 0, truth_ZYX != 0
    total = np.count_nonzero(pred) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(pred & truth) / total if total else float("nan")


def dice_per_organelle(
    pred_CZYX: np.ndarray, truth_CZYX: np.ndarray, labelled_C: np.ndarray | None = None
) -> np.ndarray:
    """Dice of every organelle of one case.

    Parameters
    ----------
    pred_CZYX, truth_CZYX : bool array, (C, Z, Y, X)
        One mask an organelle, in the order of `ORGANELLES`. A truth of numbers may be `UNDRAWN` (255) in voxels without
        annotation, which do not count.
    labelled_C : bool array, (C,), optional
        False where nobody drew this organelle: its truth is unknown, whatever `truth_CZYX` holds there.

    Returns
    -------
    float64 array, (C,)
        nan where the organelle is unlabelled, or absent from truth and prediction both.

    Raises
    ------
    ValueError
        The arrays differ in shape.
    """
    if pred_CZYX.shape != truth_CZYX.shape:
        raise ValueError(f"masks of one shape were expected, got {pred_CZYX.shape} and {truth_CZYX.shape}")
    labelled_C = np.ones(len(truth_CZYX), bool) if labelled_C is None else np.asarray(labelled_C, bool)
    return np.array(
        [
            _dice_where_drawn(pred, truth) if known else np.nan
            for pred, truth, known in zip(pred_CZYX, truth_CZYX, labelled_C, strict=True)
        ]
    )


def _dice_where_drawn(pred_ZYX: np.ndarray, truth_ZYX: np.ndarray) -> float:
    if truth_ZYX.dtype == bool or not (undrawn_ZYX := truth_ZYX == UNDRAWN).any():
        return dice(pred_ZYX, truth_ZYX)
    return dice(np.where(undrawn_ZYX, 0, pred_ZYX), np.where(undrawn_ZYX, 0, truth_ZYX))


@dataclass(frozen=True)
class Spread:
    """A score over many cases. Every field but `n` is nan where there is no case."""

    n: int
    """Cases that have the score."""
    mean: float
    sd: float
    """Sample standard deviation (n - 1); nan below two cases."""
    minimum: float
    q1: float
    median: float
    q3: float
    maximum: float


def spread(values: Iterable[float]) -> Spread:
    """Mean, standard deviation and quartiles of the values that are not nan.

    Parameters
    ----------
    values : iterable of float
        One score a case; nan where the case has none.

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
    """A rule without learning: a voxel is the organelle if its refractive index lies in [ri_low, ri_high)."""

    organelle: str
    ri_low: float
    """-inf where the window has no lower end; nan where no case has the organelle."""
    ri_high: float
    """inf where the window has no upper end; nan where no case has the organelle."""
    dice: float
    """Mean over the cases that have the organelle."""
    n: int
    """Cases that have the organelle."""

    def mask(self, ri_ZYX: np.ndarray) -> np.ndarray:
        """The voxels inside the window, bool (Z, Y, X)."""
        return (ri_ZYX >= np.float64(self.ri_low)) & (ri_ZYX < np.float64(self.ri_high))


@dataclass
class RIWindowFit:
    """Finds, for each organelle, the single window of refractive index with the best mean Dice over the cases.

    It is the baseline that a network must beat: fitted on the very test set, it is as good as any threshold can be.
    Cases are taken in one at a time and only their histograms are kept. The search is exact over all pairs of bins.

    Raises
    ------
    ValueError
        `ri_min` is not below `ri_max` by at least two bins.
    """

    organelles: tuple[str, ...] = ORGANELLES
    ri_min: float = 1.33
    """Lowest threshold that is tried; the bin below it is open-ended."""
    ri_max: float = 1.45
    """Highest threshold that is tried; the bin above it is open-ended."""
    bin_width: float = 2e-4
    """Step between thresholds. The noise of a tomogram is some 5e-4."""

    edges: np.ndarray = field(init=False, repr=False)
    _all: dict[str, list[np.ndarray]] = field(init=False, repr=False)
    _inside: dict[str, list[np.ndarray]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        steps = round((self.ri_max - self.ri_min) / self.bin_width)
        if steps < 2:
            raise ValueError(f"ri_min {self.ri_min} must lie two bins of {self.bin_width} below ri_max {self.ri_max}")
        # Rounded to float32, so that a float32 and a float64 volume are cut at the very same value.
        edges = np.linspace(self.ri_min, self.ri_max, steps + 1).astype(np.float32).astype(np.float64)
        self.edges = np.concatenate([[-np.inf], edges, [np.inf]])
        self._all = {organelle: [] for organelle in self.organelles}
        self._inside = {organelle: [] for organelle in self.organelles}

    def add(self, ri_ZYX: np.ndarray, masks: Mapping[str, np.ndarray | None]) -> None:
        """Take one case in.

        Parameters
        ----------
        ri_ZYX : float array, (Z, Y, X)
            Observed refractive index.
        masks : dict of organelle -> bool array, (Z, Y, X)
            True masks; voxels that are `UNDRAWN` do not count. An organelle that is missing or None
            is unlabelled, one that is empty is absent; either way this case does not count for it.

        Raises
        ------
        ValueError
            A mask differs from the volume in shape, or the volume holds NaN.
        """
        if np.isnan(ri_ZYX).any():
            raise ValueError("the volume holds NaN: no window can hold such a voxel")
        bins_ZYX = np.searchsorted(self.edges[1:-1], ri_ZYX, side="right")
        everything = np.bincount(bins_ZYX.ravel(), minlength=len(self.edges) - 1)
        for organelle in self.organelles:
            mask = masks.get(organelle)
            if mask is None:
                continue
            if mask.shape != ri_ZYX.shape:
                raise ValueError(f"{organelle}: the mask is {mask.shape}, the volume {ri_ZYX.shape}")
            undrawn_ZYX = mask == UNDRAWN if mask.dtype != bool else np.zeros((), bool)
            inside = np.bincount(bins_ZYX[(mask != 0) & ~undrawn_ZYX], minlength=len(self.edges) - 1)
            if inside.any():
                left_out = np.bincount(bins_ZYX[undrawn_ZYX], minlength=len(self.edges) - 1) if undrawn_ZYX.ndim else 0
                self._all[organelle].append(everything - left_out)
                self._inside[organelle].append(inside)

    def merge(self, other: "RIWindowFit") -> None:
        """Take in the cases of another fit with the same organelles and thresholds, such as another process's."""
        for organelle in self.organelles:
            self._all[organelle] += other._all[organelle]
            self._inside[organelle] += other._inside[organelle]

    def fit(self) -> dict[str, RIWindow]:
        """The best window of every organelle; one of nan and `n` 0 where no case has it."""
        return {organelle: self._fit_one(organelle) for organelle in self.organelles}

    def _fit_one(self, organelle: str) -> RIWindow:
        n = len(self._all[organelle])
        if not n:
            return RIWindow(organelle, float("nan"), float("nan"), float("nan"), 0)
        low, high, score = best_window(np.stack(self._inside[organelle]), np.stack(self._all[organelle]))
        return RIWindow(organelle, float(self.edges[low]), float(self.edges[high]), score, n)


def best_window(inside_NB: np.ndarray, all_NB: np.ndarray) -> tuple[int, int, float]:
    """The run of bins that maximises the mean Dice over cases, by looking at every run.

    Parameters
    ----------
    inside_NB : int array, (N, B)
        Voxels of the organelle in each bin, for each case; every case has some.
    all_NB : int array, (N, B)
        All voxels in each bin.

    Returns
    -------
    low, high : int
        The run is bins low, low + 1, ... high - 1.
    score : float
        Its mean Dice. Of equal runs the one with the lowest ends is taken.
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
