"""Selection of the cells and time points of a study's time series.

A mean over the cells present at each time point falls when large cells drop out, even if every cell grows. A curve is
therefore computed from one fixed set of cells, or from the changes of the cells present before and after each step.
Time-lapses of different lengths or intervals are compared at their common time points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Cohort = Literal["complete", "available"]
#: Largest time difference of frames of the same time point, as a share of the shortest interval.
TOLERANCE = 0.25
#: Cohorts with fewer cells than this, or fewer than half of the cells seen, are flagged.
FEW_CELLS = 3

COHORTS: dict[str, str] = {
    "complete": "cells with a value at every time point of the window",
    "available": "cells with a value at both ends of the window; curves add up the mean changes of the cells with a "
    "value before and after each step",
}


@dataclass(frozen=True)
class Window:
    """Time points common to all time-lapses of a study."""

    points: tuple[float, ...]
    """Seconds or frame numbers, ascending: means over the time-lapses."""
    in_frames: bool
    """Whether points are frame numbers, because no time-lapse has time stamps."""
    frames: Mapping[str, tuple[int, ...]]
    """Frame of each time-lapse at each point."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Files that are not part of the window, and the reasons."""
    spread: float = 0.0
    """Largest difference between the time of a frame and its point."""
    shortened: Sequence[str] = ()
    """Files with frames after the end of the window."""

    def describe(self) -> str:
        """Return the window in words, such as "0 to 8 h (17 time points)"."""
        if not self.points:
            return "none"
        if len(self.points) == 1:
            return f"frame {self.points[0]:g}" if self.in_frames else "one time point"
        name, seconds = ("h", 3600.0) if self.points[-1] >= 3600 else ("min", 60.0)
        unit = 1.0 if self.in_frames else seconds
        first, last = (f"{round(point / unit, 2):g}" for point in (self.points[0], self.points[-1]))
        span = f"frames {first} to {last}" if self.in_frames else f"{first} to {last} {name}"
        return f"{span} ({len(self.points)} time points)"


def common_window(times: Mapping[str, Sequence[float] | int], given: Sequence[float] | None = None) -> Window:
    """Return the time points common to all time-lapses.

    Parameters
    ----------
    times : dict of file -> sequence of float, or int
        Time of every frame in seconds, ascending; for a file without time stamps, its number of frames.
    given : (first, last), optional
        Range of points in seconds (frame numbers if no file has time stamps). Time-lapses that do not cover it are left
        out. Without `given`, the window is the range that all time-lapses cover.

    Returns
    -------
    Window
        If there are time-lapses, files of a single frame are left out. If any file has time stamps, files without are
        left out. Frames are of the same point if they differ by at most `TOLERANCE` of the shortest interval. `points`
        is empty if there is no common point.
    """
    lengths = {file: value if isinstance(value, int) else len(value) for file, value in times.items()}
    files = [file for file, n in lengths.items() if n > 0]
    if all(lengths[file] == 1 for file in files):
        return Window((0.0,) if files else (), True, dict.fromkeys(files, (0,)))
    left_out = {f: "a single frame, while other files are time-lapses" for f in files if lengths[f] == 1}
    in_frames = all(isinstance(times[f], int) for f in files if f not in left_out)
    if not in_frames:
        undated = [f for f in files if f not in left_out and isinstance(times[f], int)]
        left_out |= dict.fromkeys(undated, "no time stamps (set interval_min)")
    axes = {
        f: np.arange(lengths[f], dtype=float) if in_frames else np.asarray(times[f], float)
        for f in files
        if f not in left_out
    }
    tolerance = TOLERANCE * min(float(np.median(np.diff(axis))) for axis in axes.values())
    if given is not None:
        for file, axis in axes.items():
            if axis[0] > given[0] + tolerance or axis[-1] < given[1] - tolerance:
                left_out[file] = "does not cover the requested window"
        axes = {file: axis for file, axis in axes.items() if file not in left_out}
    return _matched(axes, tolerance, given, in_frames, left_out)


def _matched(
    axes: Mapping[str, np.ndarray],
    tolerance: float,
    given: Sequence[float] | None,
    in_frames: bool,
    left_out: Mapping[str, str],
) -> Window:
    """Match each frame of the time-lapse with the longest interval to one frame of every other time-lapse."""
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
    """Mean and spread of a group at one time point."""

    time: float
    cells: int
    """Number of cells with a value at this point."""
    step_cells: int
    """Number of cells with a value at this point and the previous one; `cells` at the first point."""
    mean: float
    """Mean over the cohort; nan without a cell."""
    sd: float
    """Sample standard deviation (n - 1) of the cells with a value; nan for fewer than two."""


def cohort_members(values_NT: np.ndarray, cohort: Cohort) -> np.ndarray:
    """Return which cells (rows) belong to the cohort.

    Parameters
    ----------
    values_NT : float array, (cells, time points)
        nan for a missing value.
    cohort : {"complete", "available"}
        `complete`: cells with a value at every point; `available`: cells with a value at any point.

    Returns
    -------
    bool array, (cells,)
    """
    known = np.isfinite(values_NT)
    return known.all(axis=1) if cohort == "complete" else known.any(axis=1)


def curve(values_NT: np.ndarray, points: Sequence[float], cohort: Cohort) -> list[TimePoint]:
    """Return mean and spread of a group's cells at every time point.

    `complete` averages the cells with a value at every point. `available` starts at the mean of the cells at the first
    point. At each step it adds the mean change of the cells with a value before and after it. If every cell grows, the
    curve therefore rises, even when cells drop out. It ends at a step without such a cell.

    Parameters
    ----------
    values_NT : float array, (cells, time points)
        nan for a missing value.
    points : sequence of float
        Times of the columns.
    cohort : {"complete", "available"}
        See `cohort_members`.
    """
    values = np.asarray(values_NT, float)[cohort_members(values_NT, cohort)]
    known = np.isfinite(values)
    found: list[TimePoint] = []
    level = float("nan")
    for t, time in enumerate(points):
        here = values[known[:, t], t]
        both = known[:, t] & known[:, t - 1] if t else known[:, 0]
        if t == 0 or cohort == "complete":  # `complete`: equal to the sum of changes, without its rounding errors
            level = float(here.mean()) if len(here) else float("nan")
        else:
            level += float((values[both, t] - values[both, t - 1]).mean()) if both.any() else float("nan")
        sd = float(here.std(ddof=1)) if len(here) > 1 else float("nan")
        found.append(TimePoint(float(time), len(here), int(both.sum()), level, sd))
    return found


def first_and_last(values_NT: np.ndarray, cohort: Cohort) -> np.ndarray:
    """Return the values at both ends of the window, (cells, 2); nan in the rows of cells outside the cohort.

    A cell without a value at both ends has no change: its own first and last values are not used instead.
    """
    values = np.asarray(values_NT, float)
    ends = values[:, [0, -1]].copy() if values.shape[1] else np.full((len(values), 2), np.nan)
    ends[~cohort_members(values, cohort) | ~np.isfinite(ends).all(axis=1)] = np.nan
    return ends


def cohort_flag(members: int, seen: int, cohort: Cohort) -> str:
    """Return a warning for a cohort of `members` out of `seen` cells that is too small; "" otherwise."""
    if members >= FEW_CELLS and 2 * members >= seen:
        return ""
    count = f"only {members}" if members else "none"
    return f"{count} of {seen} {COHORTS[cohort].split(';')[0]}"
