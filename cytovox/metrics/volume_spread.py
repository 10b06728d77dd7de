"""Whether the spread of sampled shapes is honest: coverage and CRPS of their volumes.

The bar that a spread must pass is a conformal one: a deterministic prediction, and around it the relative errors that
such predictions made on cells they were not trained on.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cytovox.statistics.bootstrap import Interval, interval, mean_of

Row = dict[str, str | int | float]


@dataclass(frozen=True)
class VolumeScores:
    """How well forecasts of the volume did, cell by cell; join folds with `joined`."""

    covered_N: np.ndarray
    """float64, 1 where the true volume lies in the central interval, else 0; nan where there is no such interval."""
    width_N: np.ndarray
    """Width of that interval over the true volume; inf where too few residuals were there to close it, nan where too
    few samples."""
    crps_N: np.ndarray
    """Continuous ranked probability score in the unit of the volumes; lower is better."""
    relative_crps_N: np.ndarray
    """The same over the true volume, so that a large cell does not outweigh ten small ones."""


def sampled_scores(
    volumes_NS: np.ndarray, truth_N: np.ndarray, *, level: float = 0.9, fair: bool = True
) -> VolumeScores:
    """Score the volumes of sampled shapes.

    Parameters
    ----------
    volumes_NS : array, (N, S)
        Volumes of S samples for each of N cells, in voxels or µm³.
    truth_N : array, (N,)
        True volumes, above 0.
    level : float
        Of the central interval, whose coverage and width are scored. With fewer samples than `samples_needed` there
        is none, and only the CRPS is scored.
    fair : bool
        True scores the distribution that the samples are from, as if there were infinitely many; see `crps`.

    Raises
    ------
    ValueError
        Volumes of another number of cells, or a truth that is not above 0.
    """
    volumes_NS, truth_N = np.asarray(volumes_NS, np.float64), _checked(volumes_NS, truth_N)
    found = central_interval(volumes_NS, level)
    crps_N = crps(volumes_NS, truth_N, fair=fair)
    return _scores(found.low_N, found.high_N, crps_N, truth_N)


def conformal_scores(
    predicted_N: np.ndarray, truth_N: np.ndarray, residuals_R: np.ndarray, *, level: float = 0.9
) -> VolumeScores:
    """Score the conformal intervals and predictive distributions around deterministic volumes.

    Parameters
    ----------
    predicted_N, truth_N : array, (N,)
        Predicted and true volumes of cells that the residuals are not from.
    residuals_R : array, (R,)
        From `log_residuals`.
    level : float
        Of the central interval.
    """
    truth_N = _checked(predicted_N, truth_N)
    low_N, high_N = conformal_interval(predicted_N, residuals_R, level)
    # the forecast is the empirical distribution of the residuals itself: nothing to be fair to
    crps_N = crps(conformal_volumes(predicted_N, residuals_R), truth_N, fair=False)
    return _scores(low_N, high_N, crps_N, truth_N)


def joined(parts: Sequence[VolumeScores]) -> VolumeScores:
    """The scores of several folds as one, in the order given."""
    names = ("covered_N", "width_N", "crps_N", "relative_crps_N")
    return VolumeScores(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class CentralInterval:
    """Central interval of samples, one row each: what is scored and what is written to tables."""

    low_N: np.ndarray
    """Lower ends, in the unit of the samples; nan where there are too few samples for the level."""
    high_N: np.ndarray
    """Upper ends."""
    coverage: float
    """Probability that one more draw from the samples' own continuous distribution lies inside: at least the level.
    nan where there are too few samples."""


def samples_needed(level: float = 0.9) -> int:
    """Return the fewest samples whose range covers one more of them with probability `level`: 19 for 0.9."""
    # the small amount keeps 2 / 0.1 from being just above 20
    return max(2, math.ceil(2 / (1 - level) - 1e-9) - 1)


def central_interval(volumes_NS: np.ndarray, level: float = 0.9) -> CentralInterval:
    """Return the narrowest interval between order statistics of equal rank from both ends that covers `level`.

    If the truth is one more draw from the distribution of S samples, all S + 1 ranks are equally likely for it, so that
    it lies between the k-th smallest and the k-th largest sample with probability (S + 1 - 2 k) / (S + 1). The largest
    k with at least `level` is taken. Plain quantiles of the samples are narrower: 0.82 for 20 samples and level 0.9.

    Parameters
    ----------
    volumes_NS : array, (N, S)
        S samples of each of N forecasts.
    level : float
        Above 0 and below 1.

    Returns
    -------
    CentralInterval
        nan where S is below `samples_needed(level)`.

    Raises
    ------
    ValueError
        The array is not two-dimensional, or the level is not between 0 and 1.

    References
    ----------
    Wilks 1941, Determination of sample sizes for setting tolerance limits, Ann. Math. Stat. 12:91; the same ranks as
    those of `conformal_interval`.
    """
    sorted_NS = np.sort(np.asarray(volumes_NS, np.float64), axis=1)
    if sorted_NS.ndim != 2 or not 0 < level < 1:
        raise ValueError(f"samples of shape {sorted_NS.shape} at level {level}: expected (N, S), and 0 < level < 1")
    n, s = sorted_NS.shape
    k = math.floor((s + 1) * (1 - level) / 2 + 1e-9)
    if k < 1:
        return CentralInterval(np.full(n, math.nan), np.full(n, math.nan), math.nan)
    return CentralInterval(sorted_NS[:, k - 1], sorted_NS[:, s - k], (s + 1 - 2 * k) / (s + 1))


def crps(samples_NS: np.ndarray, truth_N: np.ndarray, *, fair: bool = True) -> np.ndarray:
    """Continuous ranked probability score of forecasts given by samples, mean |x - y| - mean |x - x'| / 2.

    Parameters
    ----------
    samples_NS : array, (N, S)
        S samples of each forecast.
    truth_N : array, (N,)
        What came true.
    fair : bool
        True averages |x - x'| over pairs of different samples, and so estimates without bias the score of the
        distribution the samples are from: forecasts with different S are then comparable. False scores the samples'
        empirical distribution, which a spread of few samples makes larger.

    Returns
    -------
    float64 array, (N,)
        In the unit of the samples. A single sample has no spread: it scores |x - y|.

    References
    ----------
    Gneiting and Raftery 2007, J. Am. Stat. Assoc. 102:359, eq. 21; Ferro 2014, Q. J. R. Meteorol. Soc. 140:1917.
    """
    x_NS = np.sort(np.asarray(samples_NS, np.float64), axis=1)
    s = x_NS.shape[1]
    error_N = np.abs(x_NS - np.asarray(truth_N, np.float64)[:, None]).mean(axis=1)
    if s == 1:
        return error_N
    # sorted, the sum of |x_i - x_j| over i < j is that of (2 i - S - 1) x_i
    pairs_N = x_NS @ (2.0 * np.arange(1, s + 1) - s - 1)
    return error_N - pairs_N / (s * (s - 1) if fair else s * s)


def log_residuals(predicted_N: np.ndarray, truth_N: np.ndarray) -> np.ndarray:
    """log(true / predicted) volume of training cells, sorted.

    The predictions must be out of fold: each cell's from a model that was not trained on it. On cells that were
    trained on the residuals would be too small, and so would the intervals. A predicted volume below 1 counts as 1.
    """
    return np.sort(np.log(_checked(predicted_N, truth_N)) - np.log(_at_least_one(predicted_N)))


def conformal_volumes(predicted_N: np.ndarray, residuals_R: np.ndarray) -> np.ndarray:
    """Support (N, R) of the conformal predictive distributions: each prediction times the R relative errors seen.

    References
    ----------
    Vovk, Nouretdinov, Manokhin and Gammerman 2018, Cross-conformal predictive distributions, PMLR 91:37.
    """
    return _at_least_one(predicted_N)[:, None] * np.exp(np.asarray(residuals_R, np.float64))[None]


def conformal_interval(
    predicted_N: np.ndarray, residuals_R: np.ndarray, level: float = 0.9
) -> tuple[np.ndarray, np.ndarray]:
    """Ends (low_N, high_N) of the conformal interval with equal tails.

    The residuals of rank floor((R + 1) tail) and ceil((R + 1) (1 - tail)) are its ends, 0 or inf where R is too small
    for that rank. With residuals of one held-out set (split conformal) it covers at least `level` of exchangeable
    cells; pooled from folds (cross-conformal) that holds nearly, not strictly.

    References
    ----------
    Vovk 2015, Cross-conformal predictors, Ann. Math. Artif. Intell. 74:9; Lei et al. 2018, J. Am. Stat. Assoc.
    113:1094.
    """
    residuals = np.sort(np.asarray(residuals_R, np.float64))
    r, tail = len(residuals), (1 - level) / 2
    # the small amounts keep 0.05 * 20 from being a hair above or below 1
    low = math.floor((r + 1) * tail + 1e-9)
    high = math.ceil((r + 1) * (1 - tail) - 1e-9)
    factors = (
        math.exp(residuals[low - 1]) if low >= 1 else 0.0,
        math.exp(residuals[high - 1]) if high <= r else math.inf,
    )
    predicted_N = _at_least_one(predicted_N)
    return predicted_N * factors[0], predicted_N * factors[1]


def spread_rows(
    scores: Mapping[str, VolumeScores],
    reference: str | None = None,
    *,
    strata: Sequence[object] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """Coverage, width and CRPS of every model with 95 % bootstrap intervals over cells.

    Parameters
    ----------
    scores : dict of model -> VolumeScores
        The cells in one order for all models.
    reference : str, optional
        A model: for the others `crps_change` is their mean CRPS over its mean CRPS, minus 1, paired over cells.
    strata, resamples, seed
        As for `cytovox.statistics.bootstrap.interval`.

    Returns
    -------
    list of dict
        One a model: `model`, `cells`, and `coverage`, `width`, `crps`, `relative_crps`, each also with `_low` and
        `_high`.
    """
    rows: list[Row] = []
    for model, of in scores.items():
        n = len(of.crps_N)
        means = {
            "coverage": mean_of(of.covered_N),
            "width": mean_of(of.width_N),
            "crps": mean_of(of.crps_N),
            "relative_crps": mean_of(of.relative_crps_N),
        }
        if reference is not None and model != reference:
            base = scores[reference].crps_N
            if len(base) != n:
                raise ValueError(f"{model} has {n} cells, {reference} {len(base)}: expected the same cells")
            means["crps_change"] = lambda drawn, a=of.crps_N, b=base: float(a[drawn].sum() / b[drawn].sum() - 1)  # type: ignore[misc]
        row: Row = {"model": model, "cells": n}
        for name, statistic in means.items():
            row |= _columns(name, interval(statistic, n, resamples=resamples, seed=seed, strata=strata))
        rows.append(row)
    return rows


def _columns(name: str, found: Interval) -> Row:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _scores(low_N: np.ndarray, high_N: np.ndarray, crps_N: np.ndarray, truth_N: np.ndarray) -> VolumeScores:
    covered_N = np.where(np.isnan(low_N), math.nan, (low_N <= truth_N) & (truth_N <= high_N))
    return VolumeScores(covered_N, (high_N - low_N) / truth_N, crps_N, crps_N / truth_N)


def _checked(volumes: np.ndarray, truth_N: np.ndarray) -> np.ndarray:
    truth_N = np.asarray(truth_N, np.float64)
    if len(volumes) != len(truth_N):
        raise ValueError(f"volumes of {len(volumes)} cells for {len(truth_N)} true ones")
    if not (truth_N > 0).all():
        raise ValueError("a true volume is not above 0: leave empty cells out")
    return truth_N


def _at_least_one(volumes_N: np.ndarray) -> np.ndarray:
    return np.maximum(np.asarray(volumes_N, np.float64), 1.0)
