"""Which cells and which time points the time series of a study are made of.

A curve over whatever cells there are at each time point falls when large cells drop out, although every cell grows.
So a curve is made of one fixed set of cells, or of the changes of those cells that are there before and after each
step; and time-lapses of other lengths or intervals are compared at the time points that all of them have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Cohort = Literal["complete", "available"]
#: Frames belong to the same time point when they differ by less than this share of the shortest interval.
TOLERANCE = 0.25
#: A cohort with fewer cells than this, or less than half of the cells seen, is flagged.
FEW_CELLS = 3

COHORTS: dict[str, str] = {
    "complete": "cells with a value at every time point of the window",
    "available": "cells with a value at both ends of the window; curves add up the mean changes of the cells with a "
    "value before and after each step",
}


@dataclass(frozen=True)
class Window:
    """The time points that all time-lapses of a study have."""

    points: tuple[float, ...]
    """Seconds or numbers of frames, rising: the mean over the time-lapses."""
    in_frames: bool
    """Whether points are numbers of frames, since no time-lapse has time stamps."""
    frames: Mapping[str, tuple[int, ...]]
    """For each time-lapse, its frame at each point."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Files that are not part of it, and why."""
    spread: float = 0.0
    """Largest difference of a frame's time from its point."""
    shortened: Sequence[str] = ()
    """Files with frames after the window's end."""

    def describe(self) -> str:
        """Return the window in words, such as "0 to 8 h (17 time points)"."""
        if not self.points:
            return "none"
        if len(self.points) == 1:
            return f"frame {self.points[0]:g}" if self.in_frames else "one time point"
        hours = self.points[-1] >= 3600
        unit = 1.0 if self.in_frames else 3600.0 if hours else 60.0
        first, last = (f"{round(point / unit, 2):g}" for point in (self.points[0], self.points[-1]))
        count = f"({len(self.points)} time points)"
        return (
            f"frames {first} to {last} {count}"
            if self.in_frames
            else f"{first} to {last} {'h' if hours else 'min'} {count}"
        )


def common_window(times: Mapping[str, Sequence[float] | int], given: Sequence[float] | None = None) -> Window:
    """Return the time points that all time-lapses have.

    Parameters
    ----------
    times : dict of file -> sequence of float, or int
        Time of every frame in seconds, rising; or the number of frames of a file without time stamps.
    given : (first, last), optional
        Only points between these, in seconds (numbers of frames where no file has time stamps). Time-lapses that do
        not cover them are left out; without `given`, the window is what all cover.

    Returns
    -------
    Window
        Files of a single frame are left out unless all are; so are files without time stamps beside files with them.
        Two frames are the same point when they differ by at most `TOLERANCE` of the shortest interval. Without a
        common point, `points` is empty.
    """
    left_out: dict[str, str] = {}
    lengths = {file: value if isinstance(value, int) else len(value) for file, value in times.items()}
    files = [file for file, n in lengths.items() if n > 0]
    if all(lengths[file] == 1 for file in files):
        return Window((0.0,) if files else (), True, dict.fromkeys(files, (0,)))
    for file in files:
        if lengths[file] == 1:
            left_out[file] = "a single frame beside time-lapses"
    files = [file for file in files if file not in left_out]
    in_frames = all(isinstance(times[file], int) for file in files)
    if not in_frames:
        left_out |= {f: "no time stamps (set interval_min)" for f in files if isinstance(times[f], int)}
        files = [file for file in files if file not in left_out]
    axes = {f: np.arange(lengths[f], dtype=float) if in_frames else np.asarray(times[f], float) for f in files}
    tolerance = TOLERANCE * min(float(np.median(np.diff(axis))) for axis in axes.values())
    if given is not None:
        for file, axis in axes.items():
            if axis[0] > given[0] + tolerance or axis[-1] < given[1] - tolerance:
                left_out[file] = "does not cover the window that was asked for"
        axes = {file: axis for file, axis in axes.items() if file not in left_out}
    return _matched(axes, tolerance, given, in_frames, left_out)


def _matched(
    axes: Mapping[str, np.ndarray],
    tolerance: float,
    given: Sequence[float] | None,
    in_frames: bool,
    left_out: Mapping[str, str],
) -> Window:
    """Match every frame of the coarsest time-lapse with a frame of each other one."""
    if not axes:
        return Window((), in_frames, {}, left_out)
    coarsest = max(sorted(axes), key=lambda file: float(np.median(np.diff(axes[file]))))
    found: list[list[int]] = []
    for time in axes[coarsest]:
        if given is not None and not given[0] - tolerance <= time <= given[1] + tolerance:
            continue
        nearest = [int(np.abs(axis - time).argmin()) for axis in axes.values()]
        near = np.ptp([axis[k] for axis, k in zip(axes.values(), nearest, strict=True)]) <= tolerance
        if near and (not found or all(k > before for k, before in zip(nearest, found[-1], strict=True))):
            found.append(nearest)
    if not found:
        return Window((), in_frames, dict.fromkeys(axes, ()), left_out)
    frames = {file: tuple(point[n] for point in found) for n, file in enumerate(axes)}
    at = np.array([axes[file][list(frames[file])] for file in axes])
    points = at.mean(axis=0)
    longer = [file for file, axis in axes.items() if given is None and frames[file][-1] < len(axis) - 1]
    return Window(tuple(map(float, points)), in_frames, frames, left_out, float(np.abs(at - points).max()), longer)


@dataclass(frozen=True)
class TimePoint:
    """A group at one time point."""

    time: float
    cells: int
    """Cells with a value at this point."""
    step_cells: int
    """Cells with a value at this point and the one before; `cells` at the first point."""
    mean: float
    """Mean over the cohort; nan where no cell counts."""
    sd: float
    """Sample standard deviation (n - 1) of the cells with a value; nan of fewer than two."""


def cohort_members(values_NT: np.ndarray, cohort: Cohort) -> np.ndarray:
    """Return which cells (rows) belong to the cohort.

    Parameters
    ----------
    values_NT : float array, (cells, time points)
        nan where there is no value.
    cohort : {"complete", "available"}

    Returns
    -------
    bool array, (cells,)
        `complete`: a value at every point; `available`: a value at any point.
    """
    known = np.isfinite(values_NT)
    return known.all(axis=1) if cohort == "complete" else known.any(axis=1)


def curve(values_NT: np.ndarray, points: Sequence[float], cohort: Cohort) -> list[TimePoint]:
    """Return mean and spread of a group's cells at every time point.

    `complete` averages the cells that have a value at every point. `available` starts at the mean of the cells at the
    first point and adds, at each step, the mean change of the cells that have a value before and after it: if every
    cell grows, so does the curve, whichever cells drop out. It stops where no cell is seen on both sides of a step.

    Parameters
    ----------
    values_NT : float array, (cells, time points)
        nan where there is no value.
    points : sequence of float
        Times of the columns.
    cohort : {"complete", "available"}
    """
    values = np.asarray(values_NT, float)[cohort_members(values_NT, cohort)]
    known = np.isfinite(values)
    found: list[TimePoint] = []
    level = float("nan")
    for t, time in enumerate(points):
        here = values[known[:, t], t]
        both = known[:, t] & known[:, t - 1] if t else known[:, 0]
        if t == 0:
            level = float(here.mean()) if len(here) else float("nan")
        else:
            level += float((values[both, t] - values[both, t - 1]).mean()) if both.any() else float("nan")
        if cohort == "complete":
            level = float(here.mean()) if len(here) else float("nan")  # the same, without sums of rounding errors
        sd = float(here.std(ddof=1)) if len(here) > 1 else float("nan")
        found.append(TimePoint(float(time), len(here), int(both.sum()), level, sd))
    return found


def first_and_last(values_NT: np.ndarray, cohort: Cohort) -> np.ndarray:
    """Return the values at the window's two ends, (cells, 2); nan in rows of cells that are not in the cohort.

    A cell that is not seen at both ends has no change: its own first and last value are never taken instead.
    """
    values = np.asarray(values_NT, float)
    ends = values[:, [0, -1]].copy() if values.shape[1] else np.full((len(values), 2), np.nan)
    ends[~cohort_members(values, cohort) | ~np.isfinite(ends).all(axis=1)] = np.nan
    return ends


def cohort_flag(members: int, seen: int, cohort: Cohort) -> str:
    """Return why a cohort of `members` cells out of `seen` should not be trusted; "" where nothing is wrong."""
    asked = COHORTS[cohort].split(";")[0]
    if members == 0:
        return f"none of {seen} {asked}"
    if members < FEW_CELLS or 2 * members < seen:
        return f"only {members} of {seen} {asked}"
    return ""
