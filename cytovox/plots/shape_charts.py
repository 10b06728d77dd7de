"""Scores of shape models with their intervals, and the reliability of their probabilities, as pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cytovox.metrics.reliability import Reliability
from cytovox.plots.figures import DPI, INK, save_figure

MUTED = "#767676"
#: Okabe and Ito's hues, told apart with any common colour blindness; a model beyond the sixth starts over, dashed.
MODEL_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")

#: Columns of `cytovox.metrics.shapes.score_rows`, and what they are called in a chart.
ERROR_LABELS = {
    "iou_error": "1 − IoU",
    "volume_error": "volume error",
    "surface_error": "surface error",
    "roughness_error": "roughness error",
}
#: The same for `cytovox.metrics.volume_spread.spread_rows`.
SPREAD_LABELS = {
    "coverage": "coverage of the 90 % interval",
    "width": "its relative width",
    "relative_crps": "relative CRPS",
}


def scores_figure(
    path: str | Path,
    rows: Sequence[Mapping[str, Any]],
    labels: Mapping[str, str] = ERROR_LABELS,
    marks: Mapping[str, float] | None = None,
) -> Path | None:
    """A panel a score: every model's value as a point on its interval, models in the order of the rows.

    Parameters
    ----------
    path : str or Path
        PNG file to write, whole or not at all.
    rows : sequence of dict
        `model`, `cells`, and for each score `<score>`, `<score>_low`, `<score>_high`. Values that are not finite leave
        their place empty.
    labels : dict of score -> heading
        What is drawn; `ERROR_LABELS` or `SPREAD_LABELS`.
    marks : dict of score -> value, optional
        A dashed line: a target, or the nominal coverage.

    Returns
    -------
    Path or None
        None, and no file, where there is no row.
    """
    if not rows:
        return None
    longest = max(len(str(row["model"])) for row in rows)
    figure = _figure(1.2 + 0.07 * longest + 2.1 * len(labels), 1.0 + 0.3 * len(rows))
    first: Axes | None = None
    for k, (score, heading) in enumerate(labels.items()):
        ax = figure.add_subplot(1, len(labels), k + 1, sharey=first)
        for at, row in enumerate(rows):
            _draw_interval(ax, at, [float(row.get(score + end, np.nan)) for end in ("_low", "", "_high")])
        if marks and score in marks:
            ax.axvline(marks[score], color=INK, linewidth=1, linestyle=(0, (3, 2)))
        ax.set_title(heading, fontsize=10, color=INK)
        ax.set_xlim(left=min(0.0, ax.get_xlim()[0]))
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        ax.tick_params(axis="y", length=0, labelleft=k == 0)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.grid(axis="x", color="#e4e4e4", linewidth=0.8)
        ax.set_axisbelow(True)
        first = first or ax
    assert first is not None
    first.set_yticks(range(len(rows)), [str(row["model"]) for row in rows], parse_math=False)
    first.set_ylim(len(rows) - 0.5, -0.5)
    cells = {row["cells"] for row in rows}
    figure.supxlabel(
        f"mean of {' or '.join(map(str, sorted(cells)))} cells, 95 % bootstrap interval", size=9, color=MUTED
    )
    return save_figure(figure, path)


def _draw_interval(ax: Axes, at: int, low_value_high: Sequence[float]) -> None:
    low, value, high = low_value_high
    colour = MODEL_COLOURS[at % len(MODEL_COLOURS)]
    if np.isfinite(low) and np.isfinite(high):
        ax.plot([low, high], [at, at], color=colour, linewidth=2.2, solid_capstyle="butt")
    if np.isfinite(value):
        ax.plot(value, at, "o", color=colour, markersize=5.5, markeredgecolor="white", markeredgewidth=0.8)
        ax.annotate(
            f"{value:.3f}",
            (value, at),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.3},
        )


def reliability_figure(path: str | Path, models: Mapping[str, Reliability]) -> Path | None:
    """Reliability diagram: how often voxels are inside, over the probability they were given; their numbers below.

    Bins of no voxel are left out. The legend gives the calibration error of the voxels in doubt.

    Parameters
    ----------
    path : str or Path
        PNG file to write, whole or not at all.
    models : dict of model -> Reliability
        Filled with the test cells.

    Returns
    -------
    Path or None
        None, and no file, where no voxel was counted.

    References
    ----------
    Murphy and Winkler 1977, Applied Statistics 26:41.
    """
    models = {name: diagram for name, diagram in models.items() if diagram.count_B.any()}
    if not models:
        return None
    figure = _figure(4.6, 5.8)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
    for at, (name, diagram) in enumerate(models.items()):
        style = {
            "color": MODEL_COLOURS[at % len(MODEL_COLOURS)],
            "linestyle": "-" if at < len(MODEL_COLOURS) else "--",
            "linewidth": 1.6,
        }
        seen = diagram.count_B > 0
        label = f"{name} ({diagram.calibration_error():.3f})".replace("$", r"\$")
        top.plot(diagram.predicted_B[seen], diagram.observed_B[seen], marker="o", markersize=4.5, label=label, **style)
        edges = np.linspace(0, 1, len(seen) + 1)
        below.stairs(np.maximum(diagram.count_B, 0.5), edges, baseline=0.5, **style)
    top.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of voxels truly inside")
    top.legend(
        title="calibration error in brackets",
        title_fontsize=8,
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
        loc="upper left",
    )
    below.set(xlabel="probability of being inside", ylabel="voxels", yscale="log", ylim=(0.5, None))
    for ax in (top, below):
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="#e4e4e4", linewidth=0.8)
        ax.set_axisbelow(True)
    return save_figure(figure, path)


def _figure(width_in: float, height_in: float) -> Figure:
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure
