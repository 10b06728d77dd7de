"""Tests of groups of cells that are nested in fields of view, and fields in dishes.

Cells of one field resemble each other. The unit of a test is therefore the field, or the dish if dishes are treated
(Lazic et al. 2018, PLOS Biology 16(4) e2005282). Each unit is represented by its mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from scipy import stats

from cytovox.statistics import false_positives
from cytovox.statistics.mixed_model import fit_mixed
from cytovox.statistics.samples import Sample, Unit

TestName = Literal["student", "welch", "permutation", "mixed"]
#: Fewest units per group of any test, since one unit has no spread.
MIN_UNITS = 2
NAN = float("nan")


@dataclass(frozen=True)
class TestResult:
    """Effect, interval and p value of a test."""

    __test__ = False

    test: str
    """Name of the test, in words."""
    assumes: str
    """Assumptions of the test, in words."""
    n: tuple[int, int]
    """Number of units of the group and of the control; 0 for the control in a test within one group."""
    effect: float
    """Group minus control, or mean change, of the means of units."""
    low: float = NAN
    """Lower end of the effect's 95 % interval; nan if the test is refused."""
    high: float = NAN
    p: float = NAN
    """Two-sided p value; nan if the test is refused."""
    refused: str = ""
    """Reason for a missing p value, and what the test needs."""


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
        Refused, with p and interval nan, if a group has fewer than two units, if there is no spread, or if the test's
        rate of false positives for these numbers of units and cells would exceed `false_positives.MAX_LEVEL`.

    References
    ----------
    Student 1908, Biometrika 6(1); Welch 1947, Biometrika 34; Satterthwaite 1946, Biometrics Bulletin 2(6).
    """
    one, two = group.units(unit), control.units(unit)
    n = (len(one.means), len(two.means))
    effect = float(one.means.mean() - two.means.mean()) if min(n) else NAN
    units = _PLURAL[unit]
    name, assumes = _NAMES[test].replace("UNITS", units), _ASSUMES[test].replace("UNITS", units)
    refuse = partial(TestResult, name, assumes, n, effect, NAN, NAN, NAN)
    counts = zip(n, ("group", "control"), strict=True)
    if short := [f"{k} {unit if k == 1 else units} in the {who}" for k, who in counts if k < MIN_UNITS]:
        return refuse(f"{' and '.join(short)}: needs at least {MIN_UNITS} {units} in each")
    if _flat(one.means) and _flat(two.means):
        return refuse(f"the {units} of each group have the same mean: no spread to test against")
    if why := false_positives.refusal(test, one, two, units):
        return refuse(why)
    if test == "mixed":
        fit = fit_mixed([group, control], unit)
        return TestResult(name, assumes, n, fit.effect, fit.low, fit.high, fit.p, fit.failure)
    if test == "student":
        student = false_positives.student(one, two)
        if student.calibrated:
            name += ", p calibrated for unequal numbers of cells"
            assumes += f"; p is the largest over all shares of variance between and within {units}"
        return TestResult(name, assumes, n, effect, effect - student.margin, effect + student.margin, student.p)
    if test == "welch":
        return TestResult(name, assumes, n, effect, *_t_numbers(stats.ttest_ind(one.means, two.means, equal_var=False)))
    return TestResult(name, assumes, n, effect, *_permuted(one.means, two.means))


def compare_with_zero(changes: Sample, test: TestName = "student", unit: Unit = "field") -> TestResult:
    """Test whether the mean change (or paired difference) of one group differs from 0.

    Parameters
    ----------
    changes : Sample
        Last minus first value of each cell.
    test : {"student", "welch", "permutation", "mixed"}
        `student` and `welch` are the same here: a one-sample t test of the means of units. With unequal variances it
        is conservative (Bakirov and Szekely 2006, J. Math. Sci. 139(3)).
    unit : {"field", "dish"}

    Returns
    -------
    TestResult
        Refused if there are fewer than two units (permutation: six, mixed: five) or no spread.
    """
    means, units = changes.units(unit).means, _PLURAL[unit]
    n = (len(means), 0)
    effect = float(means.mean()) if n[0] else NAN
    name, assumes = _CHANGE_NAMES[test].replace("UNITS", units), _CHANGE_ASSUMES[test].replace("UNITS", units)
    refuse = partial(TestResult, name, assumes, n, effect, NAN, NAN, NAN)
    needs = false_positives.units_needed_for_change(test)
    if n[0] < needs:
        return refuse(f"{n[0]} {unit if n[0] == 1 else units} in the group: needs at least {needs} {units}")
    if _flat(means):
        return refuse(f"all {units} have the same mean change: no spread to test against")
    if test == "mixed":
        fit = fit_mixed([changes], unit)
        return TestResult(name, assumes, n, fit.effect, fit.low, fit.high, fit.p, fit.failure)
    if test == "permutation":
        return TestResult(name, assumes, n, effect, *_permuted(means))
    return TestResult(name, assumes, n, effect, *_t_numbers(stats.ttest_1samp(means, 0.0)))


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


def _flat(means: np.ndarray) -> bool:
    """Whether means differ by rounding errors only."""
    return bool(np.ptp(means) <= 1e-12 * max(1e-300, float(np.abs(means).max())))


def _t_numbers(found: Any) -> tuple[float, float, float]:
    """Return the 95 % interval and p value of a result of scipy."""
    low, high = found.confidence_interval(0.95)
    return float(low), float(high), float(found.pvalue)


def _permuted(one: np.ndarray, *control: np.ndarray) -> tuple[float, float, float]:
    """Return the 95 % interval (the shifts that the same test does not reject) and p value.

    The test permutes units between the group and its control. Without a control, it flips the signs of the units.
    """

    def difference(*means: np.ndarray, axis: int) -> np.ndarray:
        first, *others = (np.mean(part, axis=axis) for part in means)
        return first - others[0] if others else first

    def p_of(shift: float) -> float:
        found = stats.permutation_test(
            (one - shift, *control), difference, permutation_type="independent" if control else "samples",
            vectorized=True, n_resamples=9_999, rng=np.random.default_rng(0),
        )  # fmt: skip
        return float(found.pvalue)

    scale = float(sum(np.ptp(part) for part in (one, *control))) + 1e-300
    effect = float(one.mean() - control[0].mean()) if control else float(one.mean())
    return *_not_rejected(p_of, effect, scale), p_of(0.0)


def _not_rejected(p_of: Callable[[float], float], effect: float, scale: float) -> tuple[float, float]:
    """Return the shifts with p above 0.05, by bisection; p decreases stepwise with distance from the effect."""
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
