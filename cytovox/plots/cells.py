"""Draw cells over the tomogram, each with its colour and number."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import scipy.ndimage as ndi
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from cytovox.organelles import WHOLE
from cytovox.plots.figures import DPI, INK, informative_point, save_figure

#: Paul Tol's "muted" colours and three more, distinguishable with any common colour blindness.
CELL_COLOURS = (
    "#332288", "#DDCC77", "#117733", "#CC6677", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499", "#EE7733",
    "#0077BB", "#BBBBBB",
)  # fmt: skip


def colour_of(label: int) -> str:
    """Return the colour of a label in all figures and surfaces."""
    return CELL_COLOURS[(label - 1) % len(CELL_COLOURS)]


def cells_figure(
    path: str | Path,
    ri_ZYX: np.ndarray,
    cells_ZYX: np.ndarray,
    spacing_um: tuple[float, float, float],
    title: str = "",
    numbers: Mapping[int, int] | None = None,
    nuclei_ZYX: np.ndarray | None = None,
    doubtful: Collection[tuple[int, str]] = (),
) -> Path:
    """Draw a frame and its cells in xy and xz, in the planes with the largest area of cells and nuclei.

    Masks that the picture does not support are hatched.

    Parameters
    ----------
    path : str or Path
        PNG file to write, complete or not at all.
    ri_ZYX : float array, (Z, Y, X)
        Refractive index.
    cells_ZYX : integer array, (Z, Y, X)
        Labels, 0 is the background.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    title : str
        Title of the figure.
    numbers : dict of label -> int, optional
        Numbers to print in the cells instead of labels, such as tracks.
    nuclei_ZYX : bool array, (Z, Y, X), optional
        Nuclei, drawn as outlines.
    doubtful : collection of (label, compartment)
        Cells ("cell") and nuclei ("nucleus") that the picture does not support.
    """
    nuclei_ZYX = np.zeros(cells_ZYX.shape, bool) if nuclei_ZYX is None else nuclei_ZYX != 0
    z, y, _ = informative_point({}, {"cells": cells_ZYX > 0, "nuclei": nuclei_ZYX}, cells_ZYX.shape)
    width = 3.6
    depth_um, height_um, width_um = np.array(cells_ZYX.shape) * spacing_um
    tall = min(6.0, width / width_um * height_um), min(3.0, max(0.8, width / width_um * depth_um))
    figure = Figure(figsize=(2 * width + 0.6, sum(tall) + 0.9), dpi=DPI, layout="constrained")
    axes = figure.subplots(2, 2, height_ratios=tall)
    low, high = np.percentile(ri_ZYX[z], [1, 99.7]) if np.isfinite(ri_ZYX[z]).any() else (0.0, 1.0)
    planes = (
        (ri_ZYX[z], cells_ZYX[z], nuclei_ZYX[z], spacing_um[1], "xy"),
        (ri_ZYX[:, y], cells_ZYX[:, y], nuclei_ZYX[:, y], spacing_um[0], "xz"),
    )
    for row, (ri, cells, nuclei, step_v, name) in zip(axes, planes, strict=True):
        extent = (0, ri.shape[1] * spacing_um[2], 0, ri.shape[0] * step_v)
        for ax in row:
            ax.imshow(
                np.nan_to_num(ri), cmap="gray", vmin=low, vmax=max(high, low + 1e-6), extent=extent, origin="lower",
                aspect="equal",
            )  # fmt: skip
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", color=INK)
        _draw_cells(row[1], cells, step_v, spacing_um[2], extent, numbers if name == "xy" else {})
        _draw_nuclei(row[1], cells, nuclei, extent, doubtful)
        for ax in row:  # last, since contours change the limits; y downwards, z upwards
            ax.set(xticks=[], yticks=[], xlim=extent[:2], ylim=extent[:1:-1] if name == "xy" else extent[2:])
    axes[0][0].set_title("refractive index", fontsize=10, color=INK)
    what = "cells and nuclei" if nuclei_ZYX.any() else "cells"
    axes[0][1].set_title(f"{what}; hatched: no contrast" if doubtful else what, fontsize=10, color=INK)
    figure.suptitle(title, fontsize=10, color=INK, parse_math=False)
    return save_figure(figure, path)


def _draw_nuclei(
    ax: Axes, cells_YX: np.ndarray, nuclei_YX: np.ndarray, extent: tuple[float, float, float, float],
    doubtful: Collection[tuple[int, str]],
) -> None:  # fmt: skip
    """Draw the outlines of nuclei, and hatch the cells and nuclei that the picture does not support."""
    if min(cells_YX.shape) < 2:  # no contours in a single row
        return
    if nuclei_YX.any():
        ax.contour(
            nuclei_YX.astype(np.float32), [0.5], colors="white", linewidths=1.0, extent=extent, origin="lower"
        )  # fmt: skip
    for compartment, pattern in ((WHOLE, "//"), ("nucleus", "xxxx")):
        labels = [label for label, name in doubtful if name == compartment]
        region = np.isin(cells_YX, labels) & (nuclei_YX if compartment == "nucleus" else ~nuclei_YX)
        if region.any():
            hatched = ax.contourf(
                region.astype(np.float32), [0.5, 1.5], colors="none", hatches=[pattern], extent=extent, origin="lower"
            )
            hatched.set(edgecolor="white", linewidth=0.0)


def _draw_cells(
    ax: Axes, cells_YX: np.ndarray, step_v: float, step_h: float, extent: tuple[float, float, float, float],
    numbers: Mapping[int, int] | None,
) -> None:  # fmt: skip
    """Draw cells over a plane, and their numbers: labels if `numbers` is None, and none if it is empty."""
    labels = [int(label) for label in np.unique(cells_YX) if label > 0]
    rgba = np.zeros((*cells_YX.shape, 4), np.float32)
    edge = cells_YX != ndi.grey_erosion(cells_YX, size=(3, 3))
    for label in labels:
        rgba[cells_YX == label] = to_rgba(colour_of(label), 0.45)
        rgba[(cells_YX == label) & edge] = to_rgba(colour_of(label))
    ax.imshow(rgba, extent=extent, origin="lower", aspect="equal", interpolation="nearest")
    for label in labels if numbers != {} else ():
        v, h = ndi.center_of_mass(cells_YX == label)
        text = str(label if numbers is None else numbers.get(label, label))
        ax.text(
            (h + 0.5) * step_h, (v + 0.5) * step_v, text, color="white", fontsize=9, ha="center", va="center",
            bbox={"boxstyle": "round,pad=0.15", "fc": "black", "ec": "none", "alpha": 0.45},
        )  # fmt: skip
