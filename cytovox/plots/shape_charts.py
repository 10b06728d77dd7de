"""Draw the reliability of the probabilities of shape models."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cytovox.metrics.reliability import Reliability
from cytovox.plots.figures import DPI, INK, save_figure

MUTED = "#767676"
#: Okabe and Ito's hues, distinguished with any common colour blindness; a model beyond the sixth starts over, dashed.
MODEL_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


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
