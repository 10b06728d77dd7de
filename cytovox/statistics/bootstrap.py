"""Percentile bootstrap intervals over cells: how far a score would move if other cells had been imaged."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

#: A score of the cells named by an int array of indices, which may hold a cell more than once.
Statistic = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Interval:
    """A score and its bootstrap interval; all nan where no cell has a score."""

    value: float
    """The statistic on all cells, each once."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside the interval: False where the interval is nan."""
        return value < self.low or value > self.high


def interval(
    statistic: Statistic,
    n: int,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    strata: Sequence[object] | np.ndarray | None = None,
) -> Interval:
    """Percentile bootstrap interval of a statistic over `n` cells.

    The same `n`, `resamples`, `seed` and `strata` give the same resamples, so that the intervals of two models are over
    the same draws. A resample on which the statistic is not finite (a class that was not drawn, say) is left out; where
    that is more than half of them, the ends are nan rather than an interval of the lucky ones.

    Parameters
    ----------
    statistic : callable
        Takes an int array of indices, a resample of range(n) with repeats, and returns a float.
    n : int
        Number of cells.
    resamples : int
        Number of resamples.
    level : float
        Probability that the interval is to cover, 0 to 1.
    seed : int
        Of the random draws.
    strata : n labels, optional
        Cells are drawn within their stratum (class, fold), so that every resample has as many of each.

    Returns
    -------
    Interval
        All nan where `n` is 0.

    Raises
    ------
    ValueError
        A level outside 0..1, no resample, or another number of strata than of cells.

    References
    ----------
    Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level {level} of {resamples} resamples: expected 0 < level < 1 and at least one resample")
    if strata is not None and len(strata) != n:
        raise ValueError(f"{len(strata)} strata for {n} cells: expected one per cell")
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    groups = _groups(n, strata)
    rng = np.random.default_rng(seed)
    draws = np.array([float(statistic(_resample(groups, rng))) for _ in range(resamples)])
    value = float(statistic(np.arange(n)))
    finite = draws[np.isfinite(draws)]
    if 2 * len(finite) < resamples:
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def difference(
    first: Statistic,
    second: Statistic,
    n: int,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    strata: Sequence[object] | np.ndarray | None = None,
) -> Interval:
    """Paired interval of `first` minus `second`: both see the same cells in each resample.

    Parameters and rules are those of `interval`. An interval that excludes 0 is a difference at that level.
    """
    return interval(
        lambda cells: first(cells) - second(cells), n, resamples=resamples, level=level, seed=seed, strata=strata
    )


def mean_of(values: Sequence[float] | np.ndarray) -> Statistic:
    """The statistic "mean of these values, one per cell"; nan values are left out of it, all nan gives nan."""
    values_N = np.asarray(values, dtype=np.float64)

    def mean(cells: np.ndarray) -> float:
        drawn = values_N[cells]
        drawn = drawn[~np.isnan(drawn)]
        return float(drawn.mean()) if len(drawn) else math.nan

    return mean


def _groups(n: int, strata: Sequence[object] | np.ndarray | None) -> list[np.ndarray]:
    """The indices of each stratum, in the order of first appearance."""
    if strata is None:
        return [np.arange(n)]
    members: dict[object, list[int]] = {}
    for cell, label in enumerate(np.asarray(strata).tolist() if isinstance(strata, np.ndarray) else strata):
        members.setdefault(label, []).append(cell)
    return [np.array(cells) for cells in members.values()]


def _resample(groups: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([rng.choice(group, size=len(group)) for group in groups])
