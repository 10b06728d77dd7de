"""Treated against control: how one quantity of many cells goes over time, and whether groups differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

#: Fields of view a group from which the field, not the cell, is the unit of a test: an exact permutation test of three
#: against three can reach p = 0.1 at best, of four against four 0.03.
MIN_FIELDS = 4


@dataclass(frozen=True, eq=False)
class Course:
    """One quantity of one cell over time."""

    cell: str
    """Names the track."""
    group: str
    """Such as "control"."""
    field: str
    """The field of view (file) that the cell was seen in: cells of one field are not independent."""
    times_s: np.ndarray
    """Seconds, rising."""
    values: np.ndarray
    """Of the quantity at those times; nan where it is unknown."""

    @property
    def change(self) -> float:
        """Last known value minus the first; nan where fewer than two are known."""
        known = self.values[np.isfinite(self.values)]
        return float(known[-1] - known[0]) if len(known) > 1 else float("nan")

    @property
    def ends(self) -> tuple[float, float]:
        """First and last known value; nan where fewer than two are known."""
        known = self.values[np.isfinite(self.values)]
        return (float(known[0]), float(known[-1])) if len(known) > 1 else (float("nan"), float("nan"))


@dataclass(frozen=True)
class Moment:
    """A group at one time."""

    time_s: float
    cells: int
    mean: float
    sd: float
    """Sample standard deviation (n - 1); nan of a single cell."""


@dataclass(frozen=True)
class Difference:
    """A test, what it assumes, and the effect it is about."""

    test: str
    """Its name."""
    assumes: str
    """In a sentence."""
    n: tuple[int, int]
    """Units compared: of the first and the second group, or pairs twice."""
    effect: float
    """Median of all differences, second minus first (Hodges and Lehmann 1963), in the quantity's unit."""
    p: float
    """Two-sided; nan where there are too few units for the test to say anything."""


def curve(courses: Sequence[Course], times_s: Sequence[float], tolerance_s: float) -> list[Moment]:
    """Mean and spread of a group's cells at given times.

    Parameters
    ----------
    courses : sequence of Course
    times_s : sequence of float
        Where the curve is wanted.
    tolerance_s : float
        A cell counts at a time with its nearest value, if that is no further away than this. Frames keep their own time
        stamps, which differ a little from file to file.

    Returns
    -------
    list of Moment
        One a time; mean and deviation are nan where no cell has a value.
    """
    moments = []
    for time_s in times_s:
        found = []
        for course in courses:
            known = np.isfinite(course.values)
            if not known.any():
                continue
            away = np.abs(course.times_s[known] - time_s)
            if away.min() <= tolerance_s:
                found.append(course.values[known][away.argmin()])
        mean = float(np.mean(found)) if found else float("nan")
        sd = float(np.std(found, ddof=1)) if len(found) > 1 else float("nan")
        moments.append(Moment(float(time_s), len(found), mean, sd))
    return moments


def first_to_last(courses: Sequence[Course]) -> Difference:
    """Whether the cells of one group changed: Wilcoxon's signed-rank test on each cell's first and last value.

    References
    ----------
    Wilcoxon 1945, Biometrics Bulletin 1(6).
    """
    ends = np.array([course.ends for course in courses if np.isfinite(course.change)]).reshape(-1, 2)
    changes = ends[:, 1] - ends[:, 0]
    p = float("nan")
    if len(changes) > 1 and changes.any():
        p = float(stats.wilcoxon(ends[:, 1], ends[:, 0]).pvalue)
    i, j = np.triu_indices(len(changes))
    effect = float(np.median((changes[i] + changes[j]) / 2)) if len(changes) else float("nan")
    return Difference(
        "Wilcoxon signed-rank, first against last frame, paired by cell",
        "cells are independent and their changes symmetric about the median",
        (len(changes), len(changes)),
        effect,
        p,
    )


def between(first: Sequence[Course], second: Sequence[Course]) -> Difference:
    """Whether two groups changed differently.

    With `MIN_FIELDS` fields of view a group or more, the unit is the field: the mean change of its cells, compared by a
    permutation test. With fewer, cells are compared by Mann and Whitney's test, which takes them for independent; the
    result says so.

    References
    ----------
    Mann and Whitney 1947, Ann. Math. Statist. 18; Lazic et al. 2018, PLOS Biology 16(4), for the unit of a test.
    """
    fields = [_by_field(group) for group in (first, second)]
    if min(len(values) for values in fields) >= MIN_FIELDS:
        one, two = fields
        found = stats.permutation_test(
            (two, one),
            lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
            vectorized=True,
            n_resamples=99_999,
            rng=np.random.default_rng(0),
        )
        return Difference(
            "permutation of fields, mean change of each field's cells",
            "fields of view are independent and exchangeable between the groups",
            (len(one), len(two)),
            _shift(one, two),
            float(found.pvalue),
        )
    one, two = (_changes(group) for group in (first, second))
    p = float(stats.mannwhitneyu(two, one).pvalue) if min(len(one), len(two)) > 1 else float("nan")
    return Difference(
        "Mann-Whitney U, change of each cell",
        f"cells are independent, though some share a field of view (fewer than {MIN_FIELDS} fields a group)",
        (len(one), len(two)),
        _shift(one, two),
        p,
    )


def _changes(courses: Sequence[Course]) -> np.ndarray:
    return np.array([course.change for course in courses if np.isfinite(course.change)])


def _by_field(courses: Sequence[Course]) -> np.ndarray:
    fields: dict[str, list[float]] = {}
    for course in courses:
        if np.isfinite(course.change):
            fields.setdefault(course.field, []).append(course.change)
    return np.array([np.mean(values) for values in fields.values()])


def _shift(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.median(two[:, None] - one[None])) if len(one) and len(two) else float("nan")
