"""Whether groups differ, when cells are nested in fields of view and fields in dishes.

Cells of one field resemble each other, so the unit of a test is the field, or the dish where the treatment is given to
dishes (Lazic et al. 2018, PLOS Biology 16(4) e2005282). Each unit counts by its mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from cytovox.statistics import false_positives
from cytovox.statistics.mixed_model import fit_mixed
from cytovox.statistics.samples import Sample, Unit

TestName = Literal["student", "welch", "permutation", "mixed"]
#: Fewest units of a group that any test takes: one unit has no spread.
MIN_UNITS = 2
NAN = float("nan")


@dataclass(frozen=True)
class TestResult:
    """A test, what it assumes, and the effect it is about."""

    __test__ = False

    test: str
    """Its name, in words."""
    assumes: str
    """In a sentence."""
    n: tuple[int, int]
    """Units of the group and of the control; the second is 0 of a test within one group."""
    effect: float
    """Group minus control, or mean change, of the means of units."""
    low: float
    """Lower end of the effect's 95 % interval; nan where the test is refused."""
    high: float
    p: float
    """Two-sided; nan where the test is refused."""
    refused: str = ""
    """Why there is no p, and what it needs."""


def compare_groups(group: Sample, control: Sample, test: TestName = "student", unit: Unit = "field") -> TestResult:
    """Test whether the mean of a group differs from the control's.

    Parameters
    ----------
    group, control : Sample
        The effect is `group` minus `control`.
    test : {"student", "welch", "permutation", "mixed"}
    unit : {"field", "dish"}

    Returns
    -------
    TestResult
        Refused, with p and interval nan, with fewer than two units in a group, without any spread, and where the
        test's rate of false positives for these numbers of units and cells would exceed `false_positives.MAX_LEVEL`.

    References
    ----------
    Student 1908, Biometrika 6(1); Welch 1947, Biometrika 34; Satterthwaite 1946, Biometrics Bulletin 2(6).
    """
    one, two = group.units(unit), control.units(unit)
    n = (len(one.means), len(two.means))
    effect = float(one.means.mean() - two.means.mean()) if min(n) else NAN
    name, assumes = _NAMES[test].replace("UNITS", _PLURAL[unit]), _ASSUMES[test].replace("UNITS", _PLURAL[unit])

    def refuse(why: str) -> TestResult:
        return TestResult(name, assumes, n, effect, NAN, NAN, NAN, why)

    short = [f"{k} {_plural(unit, k)} in the {who}" for k, who in zip(n, ("group", "control"), strict=True) if k < 2]
    if short:
        return refuse(f"{' and '.join(short)}: needs at least {MIN_UNITS} {_PLURAL[unit]} in each")
    if _flat(one.means) and _flat(two.means):
        return refuse(f"the {_PLURAL[unit]} of each group have the same mean: no spread to test against")
    why = false_positives.refusal(test, one, two, _PLURAL[unit])
    if why:
        return refuse(why)
    if test == "mixed":
        return _mixed(name, assumes, n, unit, group, control)
    if test == "student":
        found = false_positives.student(one, two)
        if found.calibrated:
            name += ", p calibrated for unequal numbers of cells"
            assumes += "; p is the largest over all shares of variance between and within " + _PLURAL[unit]
        return TestResult(name, assumes, n, effect, effect - found.margin, effect + found.margin, found.p)
    if test == "welch":
        welch = stats.ttest_ind(one.means, two.means, equal_var=False)
        low, high = welch.confidence_interval(0.95)
        return TestResult(name, assumes, n, effect, float(low), float(high), float(welch.pvalue))
    p, low, high = _permuted(one.means, two.means)
    return TestResult(name, assumes, n, effect, low, high, p)


def compare_with_zero(changes: Sample, test: TestName = "student", unit: Unit = "field") -> TestResult:
    """Test whether the mean change (or paired difference) of one group differs from 0.

    Parameters
    ----------
    changes : Sample
        Last minus first value of each cell.
    test : {"student", "welch", "permutation", "mixed"}
        `student` and `welch` are the same here: a one-sample t test on the means of units. With unequal variances it
        is conservative (Bakirov and Szekely 2006, J. Math. Sci. 139(3)).
    unit : {"field", "dish"}

    Returns
    -------
    TestResult
        Refused with fewer than two units (permutation: six) or without any spread.
    """
    units = changes.units(unit)
    means, n = units.means, (len(units.means), 0)
    effect = float(means.mean()) if n[0] else NAN
    name = _CHANGE_NAMES[test].replace("UNITS", _PLURAL[unit])
    assumes = _CHANGE_ASSUMES[test].replace("UNITS", _PLURAL[unit])
    needs = false_positives.units_needed_for_change(test)
    if n[0] < needs:
        why = f"{n[0]} {_plural(unit, n[0])} in the group: needs at least {needs} {_PLURAL[unit]}"
        return TestResult(name, assumes, n, effect, NAN, NAN, NAN, why)
    if _flat(means):
        why = f"all {_PLURAL[unit]} have the same mean change: no spread to test against"
        return TestResult(name, assumes, n, effect, NAN, NAN, NAN, why)
    if test == "mixed":
        return _mixed(name, assumes, n, unit, changes, None)
    if test == "permutation":
        p, low, high = _sign_flipped(means)
        return TestResult(name, assumes, n, effect, low, high, p)
    found = stats.ttest_1samp(means, 0.0)
    low, high = found.confidence_interval(0.95)
    return TestResult(name, assumes, n, effect, float(low), float(high), float(found.pvalue))


_PLURAL: dict[str, str] = {"field": "fields", "dish": "dishes"}
_NAMES = {
    "student": "Student's t on means of UNITS",
    "welch": "Welch's t on means of UNITS",
    "permutation": "permutation of UNITS, difference of their means",
    "mixed": "linear mixed model of cells in UNITS, Satterthwaite's t",
}
_ASSUMES = {
    "student": "UNITS are independent, their means about normal, with the same variances in both groups",
    "welch": "UNITS are independent and their means about normal; variances may differ between groups",
    "permutation": "UNITS are independent and, without an effect, exchangeable between the groups",
    "mixed": "UNITS are independent; effects of UNITS and cells are normal, with the same variances in both groups",
}
_CHANGE_NAMES = {
    "student": "Student's t on UNITS' mean changes (paired)",
    "welch": "Student's t on UNITS' mean changes (paired)",
    "permutation": "sign flips of UNITS' mean changes (paired)",
    "mixed": "linear mixed model of cells' changes in UNITS, Satterthwaite's t",
}
_CHANGE_ASSUMES = {
    "student": "UNITS are independent and their mean changes about normal",
    "welch": "UNITS are independent and their mean changes about normal",
    "permutation": "UNITS are independent and, without an effect, their mean changes symmetric about 0",
    "mixed": "UNITS are independent; effects of UNITS and cells are normal",
}


def _plural(unit: Unit, k: int) -> str:
    return unit if k == 1 else _PLURAL[unit]


def _flat(means: np.ndarray) -> bool:
    """Whether means differ by rounding errors only."""
    return bool(np.ptp(means) <= 1e-12 * max(1e-300, float(np.abs(means).max())))


def _permuted(one: np.ndarray, two: np.ndarray) -> tuple[float, float, float]:
    """p and 95 % interval (the shifts that the same test does not reject)."""

    def p_of(shift: float) -> float:
        found = stats.permutation_test(
            (one - shift, two), _mean_difference, vectorized=True, n_resamples=9_999, rng=np.random.default_rng(0)
        )
        return float(found.pvalue)

    return p_of(0.0), *_not_rejected(p_of, float(one.mean() - two.mean()), _scale(one, two))


def _mean_difference(one: np.ndarray, two: np.ndarray, axis: int) -> np.ndarray:
    return np.mean(one, axis=axis) - np.mean(two, axis=axis)


def _sign_flipped(means: np.ndarray) -> tuple[float, float, float]:
    def p_of(shift: float) -> float:
        found = stats.permutation_test(
            (means - shift,), np.mean, vectorized=True, permutation_type="samples", n_resamples=9_999,
            rng=np.random.default_rng(0),
        )  # fmt: skip
        return float(found.pvalue)

    return p_of(0.0), *_not_rejected(p_of, float(means.mean()), _scale(means))


def _scale(*samples: np.ndarray) -> float:
    return float(sum(np.ptp(sample) for sample in samples)) + 1e-300


def _not_rejected(p_of: Callable[[float], float], effect: float, scale: float) -> tuple[float, float]:
    """Ends of the shifts with p above 0.05, by bisection: p falls in steps away from the effect."""
    ends = []
    for sign in (-1.0, 1.0):
        inside, outside = 0.0, scale
        while p_of(effect + sign * outside) > 0.05:
            inside, outside = outside, 2 * outside
            if outside > 1e6 * scale:
                return -np.inf, np.inf
        for _ in range(20):
            middle = 0.5 * (inside + outside)
            if p_of(effect + sign * middle) > 0.05:
                inside = middle
            else:
                outside = middle
        ends.append(effect + sign * outside)
    return ends[0], ends[1]


def _mixed(
    name: str, assumes: str, n: tuple[int, int], unit: Unit, group: Sample, control: Sample | None
) -> TestResult:
    """Fit cells ~ group + (1 | unit) by REML; fields are a second random effect where the unit is the dish."""
    samples = [group] if control is None else [group, control]
    found = fit_mixed(samples, unit)
    return TestResult(name, assumes, n, found.effect, found.low, found.high, found.p, found.failure)
