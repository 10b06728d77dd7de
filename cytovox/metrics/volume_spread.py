"""Coverage and CRPS of the volumes of sampled shapes, compared with a conformal baseline.

The baseline is a deterministic prediction with the distribution of the relative errors of such predictions for cells
on which the model was not trained.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from cytovox.statistics.bootstrap import interval, mean_of

Row = dict[str, str | int | float]


@dataclass(frozen=True)
class VolumeScores:
    """Scores of forecasts of the volume, one per cell."""

    covered_N: np.ndarray
    """1 if the true volume lies in the central interval, 0 if not, nan without an interval; float64."""
    width_N: np.ndarray
    """Width of the interval over the true volume; inf with too few residuals, nan with too few samples."""
    crps_N: np.ndarray
    """Continuous ranked probability score (CRPS) in the unit of the volumes; lower is better."""
    relative_crps_N: np.ndarray
    """CRPS over the true volume, so that the mean is not dominated by large cells."""


def sampled_scores(
    volumes_NS: np.ndarray, truth_N: np.ndarray, *, level: float = 0.9, fair: bool = True
) -> VolumeScores:
    """Return the scores of the volumes of sampled shapes.

    Parameters
    ----------
    volumes_NS : array, (N, S)
        Volumes of S samples for each of N cells, in voxels or µm³.
    truth_N : array, (N,)
        True volumes, above 0.
    level : float
        Level of the central interval. With fewer samples than `samples_needed` there is no interval, and only the CRPS
        is computed.
    fair : bool
        Whether to score the distribution of the samples, as if there were infinitely many; see `crps`.

    Raises
    ------
    ValueError
        The numbers of cells differ, or a true volume is not above 0.
    """
    volumes_NS, truth_N = np.asarray(volumes_NS, np.float64), _checked(volumes_NS, truth_N)
    found = central_interval(volumes_NS, level)
    return _scores(found.low_N, found.high_N, crps(volumes_NS, truth_N, fair=fair), truth_N)


def conformal_scores(
    predicted_N: np.ndarray, truth_N: np.ndarray, residuals_R: np.ndarray, *, level: float = 0.9
) -> VolumeScores:
    """Return the scores of the conformal intervals and predictive distributions of deterministic volumes.

    Parameters
    ----------
    predicted_N, truth_N : array, (N,)
        Predicted and true volumes; the residuals are of other cells.
    residuals_R : array, (R,)
        Result of `log_residuals`.
    level : float
        Level of the central interval.
    """
    truth_N = _checked(predicted_N, truth_N)
    low_N, high_N = conformal_interval(predicted_N, residuals_R, level)
    # the forecast is the empirical distribution of the residuals itself, so that no correction applies
    crps_N = crps(conformal_volumes(predicted_N, residuals_R), truth_N, fair=False)
    return _scores(low_N, high_N, crps_N, truth_N)


def joined(parts: Sequence[VolumeScores]) -> VolumeScores:
    """Return the scores of several folds as one, in the order given."""
    return VolumeScores(*(np.concatenate([getattr(part, of.name) for part in parts]) for of in fields(VolumeScores)))


@dataclass(frozen=True)
class CentralInterval:
    """Central interval of the samples of each forecast."""

    low_N: np.ndarray
    """Lower ends, in the unit of the samples; nan if there are too few samples for the level."""
    high_N: np.ndarray
    """Upper ends, likewise."""
    coverage: float
    """Probability that one more draw from the samples' continuous distribution lies inside, at least the level; nan if
    there are too few samples."""


def samples_needed(level: float = 0.9) -> int:
    """Return the smallest number of samples whose range contains one more draw with probability `level`: 19 for 0.9."""
    # 1e-9 corrects the rounding error of 2 / 0.1, which is just above 20
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
    """Return the continuous ranked probability score of samples, mean |x - y| - mean |x - x'| / 2.

    Parameters
    ----------
    samples_NS : array, (N, S)
        S samples of each forecast.
    truth_N : array, (N,)
        Observed values.
    fair : bool
        If True, |x - x'| is averaged over pairs of different samples. The result is an unbiased estimate of the score
        of the distribution of the samples, and is comparable between forecasts with different S. If False, the
        empirical distribution of the samples is scored; its score increases as S decreases.

    Returns
    -------
    float64 array, (N,)
        In the unit of the samples; |x - y| for a single sample.

    References
    ----------
    Gneiting and Raftery 2007, J. Am. Stat. Assoc. 102:359, eq. 21; Ferro 2014, Q. J. R. Meteorol. Soc. 140:1917.
    """
    x_NS = np.sort(np.asarray(samples_NS, np.float64), axis=1)
    s = x_NS.shape[1]
    error_N = np.abs(x_NS - np.asarray(truth_N, np.float64)[:, None]).mean(axis=1)
    if s == 1:
        return error_N
    # for sorted samples, the sum of |x_i - x_j| over i < j equals that of (2 i - S - 1) x_i
    pairs_N = x_NS @ (2.0 * np.arange(1, s + 1) - s - 1)
    return error_N - pairs_N / (s * (s - 1) if fair else s * s)


def log_residuals(predicted_N: np.ndarray, truth_N: np.ndarray) -> np.ndarray:
    """Return log(true / predicted) of the volumes of training cells, sorted.

    Each prediction must come from a model that was not trained on the cell (out of fold); otherwise the residuals, and
    with them the intervals, are too small. Predicted volumes below 1 are set to 1.
    """
    return np.sort(np.log(_checked(predicted_N, truth_N)) - np.log(_at_least_one(predicted_N)))


def conformal_volumes(predicted_N: np.ndarray, residuals_R: np.ndarray) -> np.ndarray:
    """Return the support (N, R) of the conformal predictive distributions: predictions times R relative errors.

    References
    ----------
    Vovk, Nouretdinov, Manokhin and Gammerman 2018, Cross-conformal predictive distributions, PMLR 91:37.
    """
    return _at_least_one(predicted_N)[:, None] * np.exp(np.asarray(residuals_R, np.float64))[None]


def conformal_interval(
    predicted_N: np.ndarray, residuals_R: np.ndarray, level: float = 0.9
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends (low_N, high_N) of the conformal interval with equal tails.

    The ends are given by the residuals of rank floor((R + 1) tail) and ceil((R + 1) (1 - tail)), and are 0 and inf if R
    is too small for these ranks. With residuals of one held-out set (split conformal) the interval covers at least
    `level` of exchangeable cells. With residuals pooled from folds (cross-conformal) the coverage is approximate.

    References
    ----------
    Vovk 2015, Cross-conformal predictors, Ann. Math. Artif. Intell. 74:9; Lei et al. 2018, J. Am. Stat. Assoc.
    113:1094.
    """
    residuals = np.sort(np.asarray(residuals_R, np.float64))
    r, tail = len(residuals), (1 - level) / 2
    # 1e-9 corrects rounding errors of products such as 0.05 * 20
    low, high = math.floor((r + 1) * tail + 1e-9), math.ceil((r + 1) * (1 - tail) - 1e-9)
    predicted_N = _at_least_one(predicted_N)
    return (
        predicted_N * (math.exp(residuals[low - 1]) if low >= 1 else 0.0),
        predicted_N * (math.exp(residuals[high - 1]) if high <= r else math.inf),
    )


def spread_rows(
    scores: Mapping[str, VolumeScores],
    reference: str | None = None,
    *,
    strata: Sequence[object] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """Return coverage, width and CRPS of every model, with 95 % bootstrap intervals over cells.

    Parameters
    ----------
    scores : dict of model -> VolumeScores
        The cells are in the same order for all models.
    reference : str, optional
        A model. The other models have `crps_change`: their mean CRPS divided by its mean CRPS, minus 1, paired over
        cells.
    strata, resamples, seed
        See `cytovox.statistics.bootstrap.interval`.

    Returns
    -------
    list of dict
        One per model: `model`, `cells`, and `coverage`, `width`, `crps`, `relative_crps`, each also with `_low` and
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
            row |= interval(statistic, n, resamples=resamples, seed=seed, strata=strata).columns(name)
        rows.append(row)
    return rows


def _scores(low_N: np.ndarray, high_N: np.ndarray, crps_N: np.ndarray, truth_N: np.ndarray) -> VolumeScores:
    covered_N = np.where(np.isnan(low_N), math.nan, (low_N <= truth_N) & (truth_N <= high_N))
    return VolumeScores(covered_N, (high_N - low_N) / truth_N, crps_N, crps_N / truth_N)


def _checked(volumes: np.ndarray, truth_N: np.ndarray) -> np.ndarray:
    """Return the true volumes as float64, checked to be positive and as many as `volumes`."""
    truth_N = np.asarray(truth_N, np.float64)
    if len(volumes) != len(truth_N):
        raise ValueError(f"predicted volumes of {len(volumes)} cells for {len(truth_N)} true volumes")
    if not (truth_N > 0).all():
        raise ValueError("a true volume is not above 0: leave empty cells out")
    return truth_N


def _at_least_one(volumes_N: np.ndarray) -> np.ndarray:
    return np.maximum(np.asarray(volumes_N, np.float64), 1.0)
