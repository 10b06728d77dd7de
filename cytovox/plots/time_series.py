"""Cells over time as pictures: curves of groups, box plots of changes, and lineages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cytovox.plots.figures import INK, save_figure
from cytovox.statistics.cohort import Cohort, TimePoint, cohort_members, curve, first_and_last
from cytovox.tracking.tracking import Track

#: Okabe and Ito's colours that are distinguished with any common colour blindness, in the order groups are met.
GROUP_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MUTED = "#767676"
COLUMNS = 4
#: Time points below each of which its number of cells fits.
MAX_COUNTS = 18


@dataclass(frozen=True, eq=False)
class GroupSeries:
    """One quantity of the cells of one group."""

    values_NT: np.ndarray
    """float, (cells, time points); nan where there is no value."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One quantity of all groups."""

    name: str
    """With its unit."""
    groups: Mapping[str, GroupSeries]
    """By name."""
    points: Sequence[float]
    """Time points in seconds, or numbers of frames."""
    cohort: Cohort = "complete"
    """Which cells count."""


def curves_figure(path: str | Path, panels: Sequence[Panel], in_frames: bool) -> Path | None:
    """Draw every cell of the cohort as a thin line, and the mean with a band of one standard deviation.

    Below each panel stands the number of cells of each group at each time point.

    Parameters
    ----------
    path : str or Path
        PNG file to write, whole or not at all.
    panels : sequence of Panel
        Those without a group are left out.
    in_frames : bool
        Times are numbers of frames, not seconds.

    Returns
    -------
    Path or None
        None, and no file, where there are no two time points, or no cells.
    """
    shown = [panel for panel in panels if len(panel.points) > 1 and panel.groups]
    if not shown:
        return None
    colours = colours_of(shown)
    figure, axes = _grid(len(shown), 2.6 + 0.11 * len(colours))
    unit = 1.0 if in_frames else 3600.0
    for ax, panel in zip(axes, shown, strict=True):
        times = np.asarray(panel.points) / unit
        for row, (group, series) in enumerate(panel.groups.items()):
            moments = curve(series.values_NT, panel.points, panel.cohort)
            _draw_group(ax, series, panel.cohort, times, moments, colours[group], group)
            _print_counts(ax, times, [m.cells for m in moments], row, colours[group])
        ax.set_title(panel.name, fontsize=9, color=INK, loc="left")
        ax.set_xlabel("frame" if in_frames else "hours", fontsize=8, labelpad=3 + 9 * len(panel.groups))
    _legend(figure, shown, colours)
    return save_figure(figure, path)


def _draw_group(
    ax: Axes, series: GroupSeries, cohort: Cohort, times: np.ndarray, moments: Sequence[TimePoint], colour: str,
    group: str,
) -> None:  # fmt: skip
    members = series.values_NT[cohort_members(series.values_NT, cohort)]
    for values in members:
        ax.plot(times, values, color=colour, lw=0.6, alpha=min(0.35, 8 / len(members)), zorder=1)
    mean, sd = np.array([m.mean for m in moments]), np.array([m.sd for m in moments])
    ax.plot(times, mean, color=colour, lw=2, label=group, zorder=3)
    known = np.isfinite(mean) & np.isfinite(sd)
    ax.fill_between(times[known], (mean - sd)[known], (mean + sd)[known], color=colour, alpha=0.15, lw=0, zorder=2)


def _print_counts(ax: Axes, times: np.ndarray, counts: Sequence[int], row: int, colour: str) -> None:
    """Print the number of cells below each time point; of many points, where it changes, and at both ends."""
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
    """Draw the values at the window's first and last time point as boxes, every cell a point, its two values joined.

    Boxes are quartiles, whiskers minimum and maximum. Of a single time point there is one box per group. Parameters
    and result are those of `curves_figure`.
    """
    shown = [panel for panel in panels if panel.points and panel.groups]
    if not shown:
        return None
    figure, axes = _grid(len(shown), 2.7)
    colours = colours_of(shown)
    for ax, panel in zip(axes, shown, strict=True):
        place, ticks = 0.0, []
        for group, series in panel.groups.items():
            ends = first_and_last(series.values_NT, panel.cohort)
            ends = ends[np.isfinite(ends).all(axis=1)]
            columns = ends.T if len(panel.points) > 1 else ends.T[:1]
            _draw_boxes(ax, columns, place, colours[group])
            middle = place + (len(columns) - 1) / 2
            ticks.append((middle, f"{group}\n{'first, last' if len(columns) > 1 else ''}\nn = {len(ends)}"))
            place += len(columns) + 0.8
        ax.set_xticks([t for t, _ in ticks], [label for _, label in ticks], fontsize=8)
        ax.set_title(panel.name, fontsize=9, color=INK, loc="left")
    return save_figure(figure, path)


def _draw_boxes(ax: Axes, columns: np.ndarray, place: float, colour: str) -> None:
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
    """Tracks as lines over frames, daughters below their mother and joined to her end; gaps are not drawn.

    Returns
    -------
    Path or None
        None, and no file, of a single frame or without tracks.
    """
    if frames < 2 or not tracks:
        return None
    order = _family_order(tracks)
    row = {track: k for k, track in enumerate(order)}
    known = {track.track: track for track in tracks}
    figure = Figure(figsize=(7.0, 0.6 + 0.22 * len(order)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    for number in order:
        track = known[number]
        colour = GROUP_COLOURS[number % len(GROUP_COLOURS)]
        ax.plot([track.first_frame, track.last_frame], [row[number]] * 2, color=colour, lw=2, solid_capstyle="round")
        ax.plot(track.first_frame, row[number], "o", color=colour, ms=4)
        if track.parent in known:
            mother = known[track.parent]
            ax.plot([mother.last_frame, track.first_frame], [row[mother.track], row[number]], color=MUTED, lw=1)
    ax.set_yticks(range(len(order)), [str(number) for number in order], fontsize=7)
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.set_xlim(-0.3, frames - 0.7)
    ax.set(xlabel="frame", ylabel="track")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(ax)
    return save_figure(figure, path)


def _family_order(tracks: Sequence[Track]) -> list[int]:
    """Mothers, each followed by her daughters."""
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
    """A colour a group, the same in every picture."""
    names = sorted({group for panel in panels for group in panel.groups})
    return {name: GROUP_COLOURS[k % len(GROUP_COLOURS)] for k, name in enumerate(names)}


def _grid(count: int, height: float) -> tuple[Figure, list[Axes]]:
    rows = -(-count // COLUMNS)
    figure = Figure(figsize=(3.4 * min(COLUMNS, count), height * rows + 0.3), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, min(COLUMNS, count), k + 1) for k in range(count)]
    for ax in axes:
        _plain(ax)
        ax.ticklabel_format(axis="y", useOffset=False)
    return figure, axes


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8, colors=INK)


def _legend(figure: Figure, panels: Sequence[Panel], colours: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    if len(colours) > 1:
        handles = [Line2D([], [], color=colour, lw=2) for colour in colours.values()]
        figure.legend(handles, list(colours), loc="outside upper right", ncols=len(colours), frameon=False, fontsize=9)
