"""Percentile bootstrap intervals of a score, over cells."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

#: A function of an int array of cell indices, which may repeat, that returns a score.
Statistic = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Interval:
    """A score and its bootstrap interval; all nan if there is no cell."""

    value: float
    """Statistic of all cells, each taken once."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""

    def columns(self, name: str) -> dict[str, float]:
        """Return the columns of a table: `name`, `<name>_low` and `<name>_high`."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def interval(
    statistic: Statistic,
    n: int,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    strata: Sequence[object] | np.ndarray | None = None,
) -> Interval:
    """Return the percentile bootstrap interval of a statistic over `n` cells.

    The same `n`, `resamples`, `seed` and `strata` give the same resamples. Intervals of two models are therefore
    computed on the same draws. Resamples with a statistic that is not finite are left out, such as those in which a
    class is missing. If they are more than half of all resamples, both ends are nan.

    Parameters
    ----------
    statistic : callable
        Function of an int array of cell indices (a resample of range(n) with replacement); returns a float.
    n : int
        Number of cells.
    resamples : int
        Number of resamples.
    level : float
        Coverage probability of the interval, 0 to 1.
    seed : int
        Random seed of the draws.
    strata : n labels, optional
        Class or fold of each cell. Cells are drawn within their stratum, so that every resample has as many of each.

    Returns
    -------
    Interval
        All nan if `n` is 0.

    Raises
    ------
    ValueError
        The level is outside 0..1, there is no resample, or there is not one stratum per cell.

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
    labels = [0] * n if strata is None else list(strata)
    groups = [np.array([i for i in range(n) if labels[i] == label]) for label in dict.fromkeys(labels)]
    rng = np.random.default_rng(seed)
    draws = np.array(
        [
            float(statistic(np.concatenate([rng.choice(group, size=len(group)) for group in groups])))
            for _ in range(resamples)
        ]
    )
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
    """Return the paired interval of `first` minus `second`, both computed on the same cells of each resample.

    Parameters are those of `interval`. The statistics differ at that level if the interval excludes 0.
    """
    return interval(
        lambda cells: first(cells) - second(cells), n, resamples=resamples, level=level, seed=seed, strata=strata
    )


def mean_of(values: Sequence[float] | np.ndarray) -> Statistic:
    """Return a statistic: the mean of `values`, one per cell, without nan values; nan if all are nan."""
    values_N = np.asarray(values, dtype=np.float64)

    def mean(cells: np.ndarray) -> float:
        drawn = values_N[cells]
        drawn = drawn[~np.isnan(drawn)]
        return float(drawn.mean()) if len(drawn) else math.nan

    return mean
