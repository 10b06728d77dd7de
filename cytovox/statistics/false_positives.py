"""Rate of false positives of tests, for given numbers of units and of cells in them.

Means of fields with unequal numbers of cells have unequal variances: s2_field + s2_cell / n. The shares of both
variances are unknown, so a test is judged by the shares with its highest rate of false positives (worst case).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import combinations
from math import comb

import numpy as np
from scipy import optimize, stats

#: Cells of each field of each unit: ((10,), (8,)) are two fields of 10 and 8 cells; ((10, 9), (8,)) are two dishes.
Counts = tuple[tuple[int, ...], ...]

#: Highest accepted rate of false positives of a test at the nominal level of 0.05.
MAX_LEVEL = 0.065
#: Tests with a computed rate above this are not used: `MAX_LEVEL` minus two standard errors of 5,000 simulated draws.
DECIDING_LEVEL = 0.058
ALPHA = 0.05
#: Mixed model: fewest units in each group, determined by simulation (benchmarks/group_tests.py).
MIN_MIXED_UNITS = 4
#: Mixed model of the changes within one group: fewest units. The rate was up to 0.12 with 3 units, 0.062 with 4.
MIN_MIXED_UNITS_CHANGE = 5
#: Draws of a simulated rate; its standard error is then 0.0015.
DRAWS = 20_000


@dataclass(frozen=True, eq=False)
class Units:
    """Means of the units of one group."""

    means: np.ndarray
    """float, (units,)."""
    cells: Counts
    """Number of cells of each field of each unit."""


@dataclass(frozen=True)
class Student:
    """Result of Student's t test of two groups of units."""

    p: float
    margin: float
    """Half-width of the 95 % interval of the effect."""
    calibrated: bool
    """Whether p and margin are those of the worst case, because the plain test exceeds `DECIDING_LEVEL`."""


def student(one: Units, two: Units) -> Student:
    """Test the means of units by Student's t, calibrated for unequal variances where necessary.

    The plain test is exact if all units have the same number of cells. With unequal numbers it may reject too often,
    most of all if the group with fewer units also has fewer cells per unit. Then p is the largest probability of such a
    t over all shares of variance between and within units. This keeps the rate at 0.05 for any shares.
    """
    design = (one.cells, two.cells)
    k1, k2 = len(one.means), len(two.means)
    dof = k1 + k2 - 2
    sum_of_squares = float(((one.means - one.means.mean()) ** 2).sum() + ((two.means - two.means.mean()) ** 2).sum())
    error = float(np.sqrt(sum_of_squares / dof * (1 / k1 + 1 / k2)))
    t = abs(float(one.means.mean() - two.means.mean())) / error
    plain = float(stats.t.isf(ALPHA / 2, dof))
    if student_level(design) <= DECIDING_LEVEL:
        return Student(float(2 * stats.t.sf(t, dof)), plain * error, False)
    return Student(student_tail(t, design), critical_t(design) * error, True)


@lru_cache(maxsize=1024)
def student_level(design: tuple[Counts, Counts]) -> float:
    """Return the worst-case rate of false positives of Student's t at 0.05."""
    dof = len(design[0]) + len(design[1]) - 2
    return student_tail(float(stats.t.isf(ALPHA / 2, dof)), design)


@lru_cache(maxsize=1024)
def critical_t(design: tuple[Counts, Counts]) -> float:
    """Return the t that is exceeded with probability 0.05 in the worst case."""
    high = next(t for t in (8.0 * 2**k for k in range(1000)) if student_tail(t, design) <= ALPHA)
    return float(optimize.brentq(lambda t: student_tail(t, design) - ALPHA, 0.5, high, xtol=1e-6))


def student_tail(t: float, design: tuple[Counts, Counts]) -> float:
    """Return the worst-case P(|T| >= t) of Student's two-sample statistic without an effect.

    Parameters
    ----------
    t : float
        Threshold, not negative.
    design : pair of Counts
        Numbers of cells in the two groups.

    Returns
    -------
    float
        Exact for normal units. T**2 >= t**2 means that a quadratic form with one positive eigenvalue is positive; the
        probability of that is one integral over an angle (Craig 1991, MILCOM 2, 571, for the normal tail).
    """
    variances_SK = np.stack(list(_variances(design)))  # shares, units
    k1, k2 = len(design[0]), len(design[1])
    contrast = np.concatenate([np.full(k1, 1 / k1), np.full(k2, -1 / k2)])
    centring = np.zeros((k1 + k2, k1 + k2))
    centring[:k1, :k1] = np.eye(k1) - 1 / k1
    centring[k1:, k1:] = np.eye(k2) - 1 / k2
    form = np.outer(contrast, contrast) - t**2 * (1 / k1 + 1 / k2) / (k1 + k2 - 2) * centring
    root = np.sqrt(variances_SK)
    roots_SK = np.linalg.eigvalsh(root[:, :, None] * form * root[:, None, :])
    ratio_SK = np.maximum(-roots_SK[:, :-1], 0.0) / roots_SK[:, -1:]
    # logarithms, because a product of hundreds of factors underflows
    factors_SA = -0.5 * np.log1p(ratio_SK[:, :, None] / _SINES_SQUARED).sum(axis=1)
    return float((np.exp(factors_SA) @ _WEIGHTS).max())


_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(128)
_SINES_SQUARED, _WEIGHTS = np.sin(np.pi / 4 * (_NODES + 1)) ** 2, _NODE_WEIGHTS / 2


def _variances(design: tuple[Counts, Counts]) -> Iterator[np.ndarray]:
    """Yield the variances of the units' means, for every mixture of variances between dishes, fields and cells."""
    units = [*design[0], *design[1]]
    parts = [
        np.ones(len(units)),
        np.array([1 / len(fields) for fields in units]),
        np.array([sum(1 / n for n in fields) / len(fields) ** 2 for fields in units]),
    ]
    nested = any(len(fields) > 1 for fields in units)
    steps = (10 if nested else 20) if len(units) <= 40 else 5
    for i in range(steps + 1):
        for j in range(steps + 1 - i) if nested else [0]:
            shares = (1 - (i + j) / steps, j / steps, i / steps)
            yield sum((share * part for share, part in zip(shares, parts, strict=True)), np.zeros(len(units)))


def refusal(test: str, one: Units, two: Units, units: str) -> str:
    """Return why a test cannot be used for these units, and what it needs; "" if it can be used."""
    k1, k2 = len(one.means), len(two.means)
    if test == "mixed" and min(k1, k2) < MIN_MIXED_UNITS:
        return (
            f"{k1} and {k2} {units}: the mixed model needs at least {MIN_MIXED_UNITS} {units} in each group to "
            f"hold its rate of false positives at {MAX_LEVEL}; test=student holds it"
        )
    if test == "permutation" and 2 / comb(k1 + k2, k1) > ALPHA:
        least = min(m for m in range(2, 30) if 2 / comb(2 * m, m) <= ALPHA)
        return f"{k1} and {k2} {units}: no permutation can reach p = 0.05; needs at least {least} {units} in each group"
    if test in ("welch", "permutation"):
        level = simulated_level(test, (one.cells, two.cells), DRAWS if test == "welch" else DRAWS // 4)
        if level > DECIDING_LEVEL:
            return (
                f"{k1} and {k2} {units} with these numbers of cells: false positives up to {100 * level:.1f} %; needs "
                f"{_needed(test, (one.cells, two.cells), units)}; test=student holds 5 %"
            )
    return ""


def _needed(test: str, design: tuple[Counts, Counts], units: str) -> str:
    """Return the number of units that both groups need, if the numbers of cells in them are as now."""
    for k in range(max(map(len, design)), 13):
        larger = tuple(tuple(cells[n % len(cells)] for n in range(k)) for cells in design)
        if simulated_level(test, (larger[0], larger[1]), DRAWS // 10) <= DECIDING_LEVEL:
            return f"at least {k} {units} in each group"
    return f"{units} with more equal numbers of cells"


@lru_cache(maxsize=1024)
def simulated_level(test: str, design: tuple[Counts, Counts], most: int = DRAWS) -> float:
    """Return the worst-case rate of false positives of a test at 0.05, by simulation."""
    variances = list(_variances(design))
    if all(np.ptp(variance) == 0 for variance in variances):
        variances = variances[:1]
    units, k1 = len(design[0]) + len(design[1]), len(design[0])
    standard = np.random.default_rng(0).normal(size=(min(most, 4_000_000 // units), units))
    some = [variances[k] for k in np.unique(np.linspace(0, len(variances) - 1, 8).astype(int))]
    return max(float(np.mean(REJECTS[test](standard * np.sqrt(variance), k1))) for variance in some)


def t_rejects(means_DK: np.ndarray, k1: int, equal_var: bool = True) -> np.ndarray:
    """Return which draws the plain Student's t (or Welch's) rejects at 0.05; the first `k1` columns are one group."""
    found = stats.ttest_ind(means_DK[:, :k1], means_DK[:, k1:], axis=1, equal_var=equal_var)
    return np.asarray(found.pvalue <= ALPHA)


def permutation_rejects(means_DK: np.ndarray, k1: int) -> np.ndarray:
    """Return which draws the permutation of units rejects at 0.05: all splits, or 999 random ones of more than 1000."""
    contrasts = _splits(means_DK.shape[1], k1)
    rejected = np.zeros(len(means_DK), bool)
    for start in range(0, len(means_DK), 2000):
        some = means_DK[start : start + 2000]
        seen = some @ contrasts[0]
        null = some @ contrasts.T
        close = 1e-12 * np.abs(null).max(axis=1, keepdims=True)
        low = (null <= seen[:, None] + close).mean(axis=1)
        high = (null >= seen[:, None] - close).mean(axis=1)
        rejected[start : start + 2000] = 2 * np.minimum(low, high) <= ALPHA
    return rejected


@lru_cache(maxsize=32)
def _splits(k: int, k1: int) -> np.ndarray:
    """Return the contrasts of all (or 999 random) choices of the first group, the real one first."""
    rng = np.random.default_rng(0)
    chosen = (
        [list(c) for c in combinations(range(k), k1)]
        if comb(k, k1) <= 1000
        else [list(range(k1)), *(rng.permutation(k)[:k1].tolist() for _ in range(999))]
    )
    contrasts = np.full((len(chosen), k), -1 / (k - k1))
    for row, members in zip(contrasts, chosen, strict=True):
        row[members] = 1 / k1
    return contrasts


REJECTS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "welch": partial(t_rejects, equal_var=False), "student": t_rejects, "permutation": permutation_rejects,
}  # fmt: skip


def units_needed_for_change(test: str) -> int:
    """Return the fewest units for a test of the changes of one group."""
    if test == "permutation":
        return next(k for k in range(2, 30) if 2 / 2**k <= ALPHA)
    return MIN_MIXED_UNITS_CHANGE if test == "mixed" else 2
