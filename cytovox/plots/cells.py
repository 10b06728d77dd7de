"""Draw cells over the tomogram, each in its own colour and with its number."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.ndimage as ndi
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cytovox.plots.figures import INK, save_figure

ZYX = tuple[float, float, float]

#: Paul Tol's "muted" set and three more: neighbours differ, with any common colour blindness.
CELL_COLOURS = (
    "#332288", "#DDCC77", "#117733", "#CC6677", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499", "#EE7733",
    "#0077BB", "#BBBBBB",
)  # fmt: skip


def colour_of(label: int) -> str:
    """The colour that a label has in every picture and surface."""
    return CELL_COLOURS[(label - 1) % len(CELL_COLOURS)]


def cells_figure(
    path: str | Path,
    ri_ZYX: np.ndarray,
    cells_ZYX: np.ndarray,
    spacing_um: ZYX,
    title: str = "",
    numbers: Mapping[int, int] | None = None,
) -> Path:
    """Draw a frame and its cells in xy and xz, through where most of them are seen.

    Parameters
    ----------
    path : str or Path
        PNG file to write, whole or not at all.
    ri_ZYX : float array, (Z, Y, X)
        Refractive index.
    cells_ZYX : integer array, (Z, Y, X)
        Labels, 0 is no cell.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    title : str
        Printed above.
    numbers : dict of label -> int, optional
        What is written into a cell instead of its label, such as its track.
    """
    inside = cells_ZYX > 0
    z = int(inside.sum(axis=(1, 2)).argmax()) if inside.any() else cells_ZYX.shape[0] // 2
    y = int(inside.sum(axis=(0, 2)).argmax()) if inside.any() else cells_ZYX.shape[1] // 2
    height_um, depth_um = cells_ZYX.shape[1] * spacing_um[1], cells_ZYX.shape[0] * spacing_um[0]
    width = 3.6
    scale = width / (cells_ZYX.shape[2] * spacing_um[2])
    tall = min(6.0, scale * height_um), min(3.0, max(0.8, scale * depth_um))
    figure = Figure(figsize=(2 * width + 0.6, sum(tall) + 0.9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, height_ratios=tall)
    low, high = np.percentile(ri_ZYX[z], [1, 99.7]) if np.isfinite(ri_ZYX[z]).any() else (0.0, 1.0)
    planes = (
        (ri_ZYX[z], cells_ZYX[z], spacing_um[1], spacing_um[2], "xy", False),
        (ri_ZYX[:, y], cells_ZYX[:, y], spacing_um[0], spacing_um[2], "xz", True),
    )
    for row, (ri, cells, step_v, step_h, name, upwards) in enumerate(planes):
        extent = (0, ri.shape[1] * step_h, 0, ri.shape[0] * step_v)
        for column in (0, 1):
            ax = axes[row][column]
            ax.imshow(
                np.nan_to_num(ri), cmap="gray", vmin=low, vmax=max(high, low + 1e-6), extent=extent, origin="lower",
                aspect="equal",
            )  # fmt: skip
            ax.set(xticks=[], yticks=[])
            if not upwards:
                ax.invert_yaxis()
        axes[row][0].set_ylabel(name, rotation=0, ha="right", va="center", color=INK)
        _draw_cells(axes[row][1], cells, step_v, step_h, extent, numbers if row == 0 else {})
    axes[0][0].set_title("refractive index", fontsize=10, color=INK)
    axes[0][1].set_title("cells", fontsize=10, color=INK)
    figure.suptitle(title, fontsize=10, color=INK, parse_math=False)
    return save_figure(figure, path)


def _draw_cells(
    ax: Axes, cells_YX: np.ndarray, step_v: float, step_h: float, extent: tuple[float, float, float, float],
    numbers: Mapping[int, int] | None,
) -> None:  # fmt: skip
    labels = [int(label) for label in np.unique(cells_YX) if label > 0]
    rgba = np.zeros((*cells_YX.shape, 4), np.float32)
    edge = cells_YX != ndi.grey_erosion(cells_YX, size=(3, 3))
    for label in labels:
        own = cells_YX == label
        colour = [int(colour_of(label)[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        rgba[own] = [*colour, 0.45]
        rgba[own & edge] = [*colour, 1.0]
    ax.imshow(rgba, extent=extent, origin="lower", aspect="equal", interpolation="nearest")
    if numbers == {}:
        return
    for label in labels:
        v, h = ndi.center_of_mass(cells_YX == label)
        text = str(label if numbers is None else numbers.get(label, label))
        ax.text(
            (h + 0.5) * step_h, (v + 0.5) * step_v, text, color="white", fontsize=9, ha="center", va="center",
            bbox={"boxstyle": "round,pad=0.15", "fc": "black", "ec": "none", "alpha": 0.45},
        )  # fmt: skip
