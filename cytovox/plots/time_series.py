"""Draw cells over time: curves of groups, box plots of changes, and lineages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cytovox.plots.figures import DPI, INK, MUTED, save_figure
from cytovox.statistics.cohort import Cohort, TimePoint, cohort_members, curve, first_and_last
from cytovox.tracking.tracking import Track

#: Colours of Okabe and Ito, distinguishable with any common colour blindness, for groups in alphabetical order.
GROUP_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
COLUMNS = 4
#: Most time points for which the number of cells is printed below each.
MAX_COUNTS = 18


@dataclass(frozen=True, eq=False)
class Panel:
    """One quantity of all groups."""

    name: str
    """Name of the quantity, with its unit."""
    groups: Mapping[str, np.ndarray]
    """Values of each group by its name: float, (cells, time points); nan for a missing value."""
    points: Sequence[float]
    """Time points in seconds, or frame numbers."""
    cohort: Cohort = "complete"
    """Selection of cells."""


def curves_figure(path: str | Path, panels: Sequence[Panel], in_frames: bool) -> Path | None:
    """Draw every cell of the cohort as a thin line, and the mean with a band of one standard deviation.

    The number of cells of each group at each time point is printed below each panel.

    Parameters
    ----------
    path : str or Path
        PNG file to write, complete or not at all.
    panels : sequence of Panel
        Panels without groups are omitted.
    in_frames : bool
        Whether times are frame numbers instead of seconds.

    Returns
    -------
    Path or None
        None, and no file, if there are fewer than two time points, or no cells.
    """
    shown = [panel for panel in panels if len(panel.points) > 1 and panel.groups]
    if not shown:
        return None
    colours = colours_of(shown)
    figure, axes = _grid(len(shown), 2.6 + 0.11 * len(colours))
    unit = 1.0 if in_frames else 3600.0
    for ax, panel in zip(axes, shown, strict=True):
        times = np.asarray(panel.points) / unit
        for row, (group, values_NT) in enumerate(panel.groups.items()):
            points = curve(values_NT, panel.points, panel.cohort)
            _draw_group(ax, values_NT, panel.cohort, times, points, colours[group], group)
            _print_counts(ax, times, [point.cells for point in points], row, colours[group])
        ax.set_title(panel.name, fontsize=9, color=INK, loc="left")
        ax.set_xlabel("frame" if in_frames else "hours", fontsize=8, labelpad=3 + 9 * len(panel.groups))
    if len(colours) > 1:
        handles = [Line2D([], [], color=colour, lw=2) for colour in colours.values()]
        figure.legend(handles, list(colours), loc="outside upper right", ncols=len(colours), frameon=False, fontsize=9)
    return save_figure(figure, path)


def _draw_group(
    ax: Axes, values_NT: np.ndarray, cohort: Cohort, times: np.ndarray, points: Sequence[TimePoint], colour: str,
    group: str,
) -> None:  # fmt: skip
    """Draw every cell of a group, the mean, and a band of one standard deviation."""
    members = values_NT[cohort_members(values_NT, cohort)]
    for values in members:
        ax.plot(times, values, color=colour, lw=0.6, alpha=min(0.35, 8 / len(members)), zorder=1)
    mean, sd = np.array([(point.mean, point.sd) for point in points]).T
    ax.plot(times, mean, color=colour, lw=2, label=group, zorder=3)
    known = np.isfinite(mean) & np.isfinite(sd)
    ax.fill_between(times[known], (mean - sd)[known], (mean + sd)[known], color=colour, alpha=0.15, lw=0, zorder=2)


def _print_counts(ax: Axes, times: np.ndarray, counts: Sequence[int], row: int, colour: str) -> None:
    """Print the number of cells below each time point; if there are many, only at both ends and where it changes."""
    every = len(counts) <= MAX_COUNTS
    for k, (time, count) in enumerate(zip(times, counts, strict=True)):
        if every or k in (0, len(counts) - 1) or count != counts[k - 1]:
            ax.annotate(
                str(count), (time, 0), (0, -16 - 9 * row), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="center", va="top", fontsize=6, color=colour, annotation_clip=False,
            )  # fmt: skip
    ax.annotate(
        "n", (0, 0), (-8, -16 - 9 * row), xycoords="axes fraction", textcoords="offset points", ha="right", va="top",
        fontsize=6, color=colour,
    )  # fmt: skip


def boxes_figure(path: str | Path, panels: Sequence[Panel]) -> Path | None:
    """Draw box plots of the values at the first and last time point, and the two values of every cell.

    Boxes are quartiles, whiskers minimum and maximum. With a single time point there is one box per group. Parameters
    and result are those of `curves_figure`.
    """
    shown = [panel for panel in panels if panel.points and panel.groups]
    if not shown:
        return None
    figure, axes = _grid(len(shown), 2.7)
    colours = colours_of(shown)
    for ax, panel in zip(axes, shown, strict=True):
        place, ticks = 0.0, []
        for group, values_NT in panel.groups.items():
            ends = first_and_last(values_NT, panel.cohort)
            ends = ends[np.isfinite(ends).all(axis=1)]
            columns = ends.T if len(panel.points) > 1 else ends.T[:1]
            _draw_boxes(ax, columns, place, colours[group])
            label = f"{group}\n{'first, last' if len(columns) > 1 else ''}\nn = {len(ends)}"
            ticks.append((place + (len(columns) - 1) / 2, label))
            place += len(columns) + 0.8
        ax.set_xticks(*zip(*ticks, strict=True), fontsize=8)
        ax.set_title(panel.name, fontsize=9, color=INK, loc="left")
    return save_figure(figure, path)


def _draw_boxes(ax: Axes, columns: np.ndarray, place: float, colour: str) -> None:
    """Draw one box per time point, and lines between the two values of every cell."""
    n = columns.shape[1]
    if n == 0:
        return
    spread = np.linspace(-0.12, 0.12, max(2, n))[:n]
    for k, values in enumerate(columns):
        box = ax.boxplot(
            [values], positions=[place + k], widths=0.6, whis=(0, 100), showfliers=False, manage_ticks=False
        )
        for part in (*box["boxes"], *box["whiskers"], *box["caps"], *box["medians"]):
            part.set(color=colour, lw=1.2)
        ax.scatter(place + k + spread, values, s=9, color=colour, alpha=0.7, lw=0, zorder=3)
    if len(columns) == 2:
        for shift, first, last in zip(spread, *columns, strict=True):
            ax.plot([place + shift, place + 1 + shift], [first, last], color=colour, lw=0.5, alpha=0.4, zorder=2)


def lineage_figure(path: str | Path, tracks: Sequence[Track], frames: int) -> Path | None:
    """Draw tracks as lines over frames, daughters below their mother and connected to her end, without gaps.

    Returns
    -------
    Path or None
        None, and no file, for a single frame or without tracks.
    """
    if frames < 2 or not tracks:
        return None
    order = _family_order(tracks)
    row = {track: k for k, track in enumerate(order)}
    known = {track.track: track for track in tracks}
    figure = Figure(figsize=(7.0, 0.6 + 0.22 * len(order)), dpi=DPI, layout="constrained")
    ax = figure.add_subplot()
    for number in order:
        track, colour = known[number], GROUP_COLOURS[number % len(GROUP_COLOURS)]
        ax.plot([track.first_frame, track.last_frame], [row[number]] * 2, color=colour, lw=2, solid_capstyle="round")
        ax.plot(track.first_frame, row[number], "o", color=colour, ms=4)
        if track.parent in known:
            mother = known[track.parent]
            ax.plot([mother.last_frame, track.first_frame], [row[mother.track], row[number]], color=MUTED, lw=1)
    ax.set_yticks(range(len(order)), [str(number) for number in order], fontsize=7)
    ax.set(xlabel="frame", ylabel="track", xlim=(-0.3, frames - 0.7), ylim=(len(order) - 0.5, -0.5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(ax)
    return save_figure(figure, path)


def _family_order(tracks: Sequence[Track]) -> list[int]:
    """Return the track numbers, each mother followed by her daughters."""
    children: dict[int | None, list[int]] = {}
    numbers = {track.track for track in tracks}
    for track in tracks:
        children.setdefault(track.parent if track.parent in numbers else None, []).append(track.track)
    order: list[int] = []
    waiting = sorted(children.get(None, []), reverse=True)
    while waiting:
        number = waiting.pop()
        order.append(number)
        waiting += sorted(children.get(number, []), reverse=True)
    return order


def colours_of(panels: Sequence[Panel]) -> dict[str, str]:
    """Return one colour per group, the same in all figures."""
    names = sorted({group for panel in panels for group in panel.groups})
    return {name: GROUP_COLOURS[k % len(GROUP_COLOURS)] for k, name in enumerate(names)}


def _grid(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with a grid of `count` axes."""
    rows = -(-count // COLUMNS)
    figure = Figure(figsize=(3.4 * min(COLUMNS, count), height * rows + 0.3), dpi=DPI, layout="constrained")
    axes = [figure.add_subplot(rows, min(COLUMNS, count), k + 1) for k in range(count)]
    for ax in axes:
        _plain(ax)
        ax.ticklabel_format(axis="y", useOffset=False)
    return figure, axes


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8, colors=INK)
