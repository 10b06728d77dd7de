"""Cells over time as pictures: curves of groups, box plots of changes, and lineages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures import INK, save_figure
from analysis.groups import Course, curve
from analysis.tracking import Track

#: Okabe and Ito's colours that are told apart with any common colour blindness, in the order groups are met.
GROUP_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MUTED = "#767676"
COLUMNS = 3


@dataclass(frozen=True)
class Panel:
    """One quantity of all groups."""

    name: str
    """With its unit."""
    groups: Mapping[str, Sequence[Course]]
    """Cells of each group."""


def curves_figure(path: str | Path, panels: Sequence[Panel], in_frames: bool) -> Path | None:
    """Every cell as a thin line, its group's mean as a thick one, with a band of one standard deviation.

    Parameters
    ----------
    path : str or Path
        PNG file to write, whole or not at all.
    panels : sequence of Panel
        Those without two times of a cell are left out.
    in_frames : bool
        Times are numbers of frames, not seconds.

    Returns
    -------
    Path or None
        None, and no file, where nothing was followed over time.
    """
    shown = [p for p in panels if any(len(c.times_s) > 1 for courses in p.groups.values() for c in courses)]
    if not shown:
        return None
    figure, axes = _grid(len(shown), 2.7)
    unit = 1.0 if in_frames else 3600.0
    colours = colours_of(shown)
    for ax, panel in zip(axes, shown, strict=False):
        for group, courses in panel.groups.items():
            _draw_group(ax, courses, unit, colours[group], group)
        ax.set_title(panel.name, fontsize=9, color=INK, loc="left")
        ax.set_xlabel("frame" if in_frames else "hours", fontsize=8)
    _legend(figure, shown, colours)
    return save_figure(figure, path)


def _draw_group(ax: Axes, courses: Sequence[Course], unit: float, colour: str, group: str) -> None:
    for course in courses:
        ax.plot(course.times_s / unit, course.values, color=colour, lw=0.6, alpha=0.35, zorder=1)
    times = common_times(courses)
    if len(times) == 0:
        return
    tolerance = 0.5 * float(np.min(np.diff(times))) if len(times) > 1 else 1.0
    moments = curve(courses, times.tolist(), tolerance)
    mean, sd = np.array([m.mean for m in moments]), np.array([m.sd for m in moments])
    ax.plot(times / unit, mean, color=colour, lw=2, label=group, zorder=3)
    known = np.isfinite(sd)
    ax.fill_between(
        times[known] / unit, (mean - sd)[known], (mean + sd)[known], color=colour, alpha=0.15, lw=0, zorder=2
    )


def common_times(courses: Sequence[Course]) -> np.ndarray:
    """Times of all cells, those within a tenth of the usual interval made one: files keep stamps of their own."""
    stamps = np.sort(np.concatenate([c.times_s for c in courses])) if courses else np.zeros(0)
    if len(stamps) == 0:
        return stamps
    steps = [step for c in courses for step in np.diff(c.times_s) if step > 0]
    apart = 0.1 * float(np.median(steps)) if steps else 0.0
    parts = np.split(stamps, np.flatnonzero(np.diff(stamps) > apart) + 1)
    return np.array([float(part.mean()) for part in parts])


def boxes_figure(path: str | Path, panels: Sequence[Panel]) -> Path | None:
    """First and last value of each group as boxes from minimum to maximum, every cell a point, its two values joined.

    Parameters and result are those of `curves_figure`; of cells seen once, there is one box a group.
    """
    shown = [p for p in panels if any(len(courses) for courses in p.groups.values())]
    if not shown:
        return None
    figure, axes = _grid(len(shown), 2.7)
    colours = colours_of(shown)
    for ax, panel in zip(axes, shown, strict=False):
        place, ticks = 0.0, []
        for group, courses in panel.groups.items():
            known = [c for c in courses if np.isfinite(c.values).any()]
            film = any(np.isfinite(c.change) for c in known)
            ends = [_ends(c) for c in known if np.isfinite(c.change) or not film]
            columns = [[e[0] for e in ends], [e[1] for e in ends]] if film else [[e[0] for e in ends]]
            _draw_boxes(ax, columns, place, colours[group])
            ticks.append((place + (len(columns) - 1) / 2, f"{group}\n{'first, last' if film else ''}"))
            place += len(columns) + 0.8
        ax.set_xticks([t for t, _ in ticks], [label for _, label in ticks], fontsize=8)
        ax.set_title(panel.name, fontsize=9, color=INK, loc="left")
    return save_figure(figure, path)


def _ends(course: Course) -> tuple[float, float]:
    known = course.values[np.isfinite(course.values)]
    return float(known[0]), float(known[-1])


def _draw_boxes(ax: Axes, columns: Sequence[Sequence[float]], place: float, colour: str) -> None:
    spread = np.linspace(-0.12, 0.12, max(2, len(columns[0])))[: len(columns[0])]
    for k, values in enumerate(columns):
        if not values:
            continue
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
