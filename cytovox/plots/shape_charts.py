"""Draw the reliability of the probabilities of shape models."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cytovox.metrics.reliability import Reliability
from cytovox.plots.figures import DPI, INK, MUTED, add_grid, save_figure

#: Colours of Okabe and Ito, distinguishable with any common colour blindness. More models reuse them with dashed lines.
MODEL_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


def reliability_figure(path: str | Path, models: Mapping[str, Reliability]) -> Path | None:
    """Draw a reliability diagram: the share of voxels inside over the predicted probability, and the number of voxels.

    Empty bins are omitted. The legend gives the calibration error of the voxels with uncertain predictions.

    Parameters
    ----------
    path : str or Path
        PNG file to write, complete or not at all.
    models : dict of model -> Reliability
        Counts over the test cells.

    Returns
    -------
    Path or None
        None, and no file, if no voxel was counted.

    References
    ----------
    Murphy and Winkler 1977, Applied Statistics 26:41.
    """
    models = {name: diagram for name, diagram in models.items() if diagram.count_B.any()}
    if not models:
        return None
    figure = Figure(figsize=(4.6, 5.8), dpi=DPI, layout="constrained")
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
        add_grid(ax, "both")
    return save_figure(figure, path)
