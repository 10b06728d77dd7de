"""Draw a genotype, and the course of an architecture search."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from cytovox.plots.charts import read_curves
from cytovox.plots.figures import INK, save_figure

#: Colours of Okabe & Ito (2008), distinguishable with any colour vision.
OPERATION_COLOURS = {
    "identity": "#000000", "conv_3": "#0072B2", "dilated_conv_2": "#D55E00", "dilated_conv_3": "#CC79A7",
    "average_pool_3": "#009E73", "max_pool_3": "#E69F00",
}  # fmt: skip
STATES = ("s0", "s1", "n0", "n1", "n2", "n3")


def genotype_figure(path: str | Path, plain: Mapping[str, Any], multiplier: int) -> Path:
    """Draw the four cells of a genotype: nodes in a row, and an arrow per operation.

    Parameters
    ----------
    path : str or Path
        PNG file to write, complete or not at all.
    plain : mapping
        Output of `cytovox.networks.genotype.Genotype.to_json`: the nodes of each cell type, each a list of (operation,
        source).
    multiplier : int
        Number of output nodes, counted from the last; they are drawn filled.
    """
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    cells = [name for name, value in plain.items() if isinstance(value, Mapping)]
    for axes, name in zip(figure.subplots(2, 2).flat, cells, strict=True):
        _cell(axes, name.replace("_", " "), plain[name], multiplier)
    handles = [Line2D([], [], color=colour, lw=2.5, label=name) for name, colour in OPERATION_COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return save_figure(figure, path)


def search_figure(path: str | Path, metrics_csv: str | Path) -> Path | None:
    """Draw validation Dice, entropy and cost of an architecture search by epoch.

    Parameters
    ----------
    path : str or Path
        PNG file to write, complete or not at all.
    metrics_csv : str or Path
        Columns epoch, val/dice_mean, search/entropy, search/cost_expected, search/cost_derived; empty entries are
        allowed.

    Returns
    -------
    Path or None
        None, and no file, if there is nothing to draw yet.
    """
    curves = read_curves(metrics_csv)
    panels = {
        "validation Dice": {"val/dice_mean": "likeliest network"},
        "entropy of the choices": {"search/entropy": "mean"},
        "cost of the operations": {
            "search/cost_expected": "networks drawn",
            "search/cost_derived": "likeliest network",
        },
    }
    if not any(curves.get(name) for names in panels.values() for name in names):
        return None
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for name, label in names.items():
            if points := curves.get(name):
                axes.plot(*zip(*points, strict=True), marker=".", label=label)
        axes.set_title(title, loc="left", color=INK, fontsize=11)
        axes.set(xlabel="epoch", ylim=(0, 1.08 * axes.get_ylim()[1]))
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(frameon=False)
    return save_figure(figure, path)


def _cell(axes: Axes, title: str, nodes: Mapping[str, Any], multiplier: int) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.set(xlim=(-0.6, len(STATES) - 0.4), ylim=(-1.9, 1.9))
    axes.set_axis_off()
    places = {name: index for index, name in enumerate(STATES)}
    arrows = ((node, operation, source) for node, edges in nodes.items() for operation, source in edges)
    for node, operation, source in arrows:
        if operation != "none":
            # arrows from s0 are above the row and all others below it, so that two arrows into a node do not overlap
            bend = (-1 if source == "s0" else 1) * (0.0 if places[node] - places[source] == 1 else 0.34)
            axes.add_patch(FancyArrowPatch(
                (places[source], 0), (places[node], 0), connectionstyle=f"arc3,rad={bend}", arrowstyle="-|>",
                mutation_scale=13, lw=2, color=OPERATION_COLOURS[operation], shrinkA=14, shrinkB=14,
            ))  # fmt: skip
    for name, place in places.items():
        filled = name in STATES[-multiplier:]
        axes.text(
            place, 0, name, ha="center", va="center", color="white" if filled else INK, fontsize=10, zorder=3,
            bbox={"boxstyle": "circle,pad=0.45", "fc": "#444444" if filled else "white", "ec": INK},
        )  # fmt: skip
