"""Masks over their tomogram, as pictures in xy, xz and yz."""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image

from cytovox.io.atomic import atomic_path
from cytovox.organelles import COLOURS, OTHER_COLOUR, in_order

DPI = 110
#: 96 steps of grey: noise then compresses to half, and no eye tells the difference.
GREYS = colormaps["gray"].resampled(96)
MAX_BYTES = 300_000
INK = "#222222"

#: For each view: the axis looked along, the horizontal one and the vertical one, as indices into (z, y, x).
VIEWS: dict[str, tuple[int, int, int]] = {"xy": (0, 2, 1), "xz": (1, 2, 0), "yz": (2, 1, 0)}


def overlay_figure(
    path: str | Path,
    ri_ZYX: np.ndarray,
    truth: Mapping[str, np.ndarray] | None,
    prediction: Mapping[str, np.ndarray],
    spacing_um: tuple[float, float, float],
    title: str = "",
) -> Path:
    """Draw one tomogram in xy, xz and yz: bare, beneath its true masks where there are any, and beneath the predicted.

    The three planes pass through where most of the organelles are seen; dotted lines show them in each other. All
    panels share one scale in µm.

    Parameters
    ----------
    path : str or Path
        PNG file to write, whole or not at all.
    ri_ZYX : float array, (Z, Y, X)
        Refractive index.
    truth : dict of organelle -> bool array, (Z, Y, X), or None
        An organelle that is missing is unlabelled, and the legend says so.
    prediction : dict of organelle -> bool array, (Z, Y, X)
        Predicted masks.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    title : str
        Printed above, as it is (no mathematics in it).

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        No space left, or `path` may not be written.
    """
    point = informative_point(truth or {}, prediction, ri_ZYX.shape)
    columns: dict[str, Mapping[str, np.ndarray]] = {"refractive index": {}, "prediction": prediction}
    if truth is not None:
        columns = {"refractive index": {}, "truth": truth, "prediction": prediction}
    size_um = np.array(ri_ZYX.shape) * spacing_um
    figure, axes = _panels(size_um, len(columns), title)
    limits = _grey_limits(ri_ZYX, point)
    for column, (heading, masks) in enumerate(columns.items()):
        for row, view in enumerate(VIEWS):
            ax = axes[row][column]
            image = _draw_plane(ax, ri_ZYX, masks, size_um, view, point, limits)
            if column == 0:
                _draw_crosshair(ax, view, point, spacing_um)
                ax.set_ylabel(view, rotation=0, ha="right", va="center", color=INK)
        axes[0][column].set_title(heading, fontsize=10, color=INK)
    _draw_scale_bar(axes[0][0], size_um[2])
    boxes = [row[-1].get_position() for row in axes]
    right, bottom, bar = max(box.x1 for box in boxes), boxes[-1].y0, 0.13 / figure.get_figwidth()
    colour_ax = figure.add_axes((right + bar, bottom, bar, boxes[0].y1 - bottom))
    figure.colorbar(image, cax=colour_ax, label="refractive index")
    _draw_legend(figure, truth, prediction)
    return save_figure(figure, path)


def informative_point(
    truth: Mapping[str, np.ndarray], prediction: Mapping[str, np.ndarray], shape: tuple[int, ...]
) -> tuple[int, int, int]:
    """The (z, y, x) whose three planes show the most of the organelles.

    Along each axis the plane is taken that has the largest sum of the organelles' areas, each relative to that
    organelle's largest area, so that a nucleolus counts as much as a cell. The truth goes before the prediction.

    Parameters
    ----------
    truth, prediction : dict of organelle -> bool array, (Z, Y, X)
        Empty masks are passed over.
    shape : (z, y, x) ints
        Shape of the volume; its centre is taken where there is no mask at all.
    """
    masks = [mask for group in (truth, prediction) for mask in group.values() if mask.any()]
    if any(mask.any() for mask in truth.values()):
        masks = [mask for mask in truth.values() if mask.any()]
    if not masks:
        return shape[0] // 2, shape[1] // 2, shape[2] // 2
    best = []
    for axis in range(3):
        areas = [mask.sum(axis=tuple({0, 1, 2} - {axis}), dtype=np.int64) for mask in masks]
        best.append(int(np.argmax(sum(area / area.max() for area in areas))))
    return best[0], best[1], best[2]


def _panels(size_um: np.ndarray, columns: int, title: str) -> tuple[Figure, list[list[Axes]]]:
    """A figure of three rows of panels, each as large as its plane in one common scale."""
    left, right, top, bottom, gap = 0.45, 0.95, 0.62 if title else 0.35, 0.45, 0.1
    widths = [size_um[VIEWS[view][1]] for view in VIEWS]
    heights = [size_um[VIEWS[view][2]] for view in VIEWS]
    inch_per_um = min(8.6 / (columns * max(widths)), 8.0 / sum(heights), 4.0 / max(widths))
    column_in = max(widths) * inch_per_um
    width_in = left + columns * column_in + (columns - 1) * gap + right
    height_in = top + sum(heights) * inch_per_um + 2 * gap + bottom
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes: list[list[Axes]] = []
    y = height_in - top
    for width, height in zip(widths, heights, strict=True):
        y -= height * inch_per_um
        axes.append([])
        for column in range(columns):
            x = left + column * (column_in + gap)
            box = (x / width_in, y / height_in, width * inch_per_um / width_in, height * inch_per_um / height_in)
            axes[-1].append(figure.add_axes(box))
        y -= gap
    if title:
        shown = title if len(title) <= 90 else title[:89] + "…"
        figure.text(left / width_in, 1 - 0.1 / height_in, shown, va="top", size=11, color=INK, parse_math=False)
    return figure, axes


def _plane(volume_ZYX: np.ndarray, view: str, point: tuple[int, int, int]) -> np.ndarray:
    """The slice of a view, rows vertical."""
    along, horizontal, vertical = VIEWS[view]
    plane = np.take(volume_ZYX, point[along], axis=along)
    return plane if vertical < horizontal else plane.T


def _grey_limits(ri_ZYX: np.ndarray, point: tuple[int, int, int]) -> tuple[float, float]:
    shown = np.concatenate([_plane(ri_ZYX, view, point).ravel() for view in VIEWS])
    low, high = (float(v) for v in np.percentile(shown, [0.5, 99.8]))
    return low, max(high, low + 0.01)


def _draw_plane(
    ax: Axes,
    ri_ZYX: np.ndarray,
    masks: Mapping[str, np.ndarray],
    size_um: np.ndarray,
    view: str,
    point: tuple[int, int, int],
    limits: tuple[float, float],
) -> AxesImage:
    _, horizontal, vertical = VIEWS[view]
    # y runs down as in every microscopy viewer, z runs up as in the microscope
    low_high = (size_um[vertical], 0.0) if view == "xy" else (0.0, size_um[vertical])
    extent = (0.0, float(size_um[horizontal]), *map(float, low_high))
    origin = "upper" if view == "xy" else "lower"
    kind: dict[str, Any] = {"extent": extent, "origin": origin, "aspect": "auto"}
    ri = _plane(ri_ZYX, view, point)
    image = ax.imshow(ri, cmap=GREYS, interpolation=_resampling(ax, ri), vmin=limits[0], vmax=limits[1], **kind)
    for name in in_order(masks):
        plane = _plane(masks[name], view, point) != 0
        if not plane.any():
            continue
        colour = COLOURS.get(name, OTHER_COLOUR)
        if name != "membrane":  # a filled cell would tint all that lies in it
            fill = np.zeros((*plane.shape, 4), np.float32)
            fill[plane] = (*to_rgb(colour), 0.3)
            ax.imshow(fill, interpolation="nearest", **kind)
        # one voxel of margin, so that the outline closes at the border
        step = [extent[1] / plane.shape[1], abs(extent[3] - extent[2]) / plane.shape[0]]
        across = (np.arange(-1, plane.shape[1] + 1) + 0.5) * step[0]
        along = (np.arange(-1, plane.shape[0] + 1) + 0.5) * step[1]
        ax.contour(across, along, np.pad(plane, 1).astype(float), levels=[0.5], colors=[colour], linewidths=1.2)
    ax.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return image


def _resampling(ax: Axes, plane: np.ndarray) -> str:
    """Few voxels are shown as they are, many are averaged into the pixels there are."""
    width, height = ax.get_window_extent().size
    return "hanning" if plane.shape[0] > height or plane.shape[1] > width else "nearest"


def _draw_crosshair(ax: Axes, view: str, point: tuple[int, int, int], spacing_um: tuple[float, float, float]) -> None:
    _, horizontal, vertical = VIEWS[view]
    style: dict[str, Any] = {"color": "white", "alpha": 0.55, "linewidth": 0.7, "linestyle": (0, (1, 3))}
    ax.axvline((point[horizontal] + 0.5) * spacing_um[horizontal], **style)
    ax.axhline((point[vertical] + 0.5) * spacing_um[vertical], **style)


def _draw_scale_bar(ax: Axes, width_um: float) -> None:
    """A bar of a round length, about a quarter of the panel."""
    power = 10 ** math.floor(math.log10(width_um / 3))
    length = next(n * power for n in (5, 2, 1) if n * power <= width_um / 3)
    height = abs(ax.get_ylim()[0] - ax.get_ylim()[1])
    x0, y0 = 0.05 * width_um, 0.95 * height
    for colour, thickness in (("black", 5), ("white", 3)):
        ax.plot([x0, x0 + length], [y0, y0], color=colour, linewidth=thickness, solid_capstyle="butt")
    box = {"facecolor": "black", "alpha": 0.45, "edgecolor": "none", "pad": 1.5}
    text = f"{length:g} µm"
    ax.text(x0 + length / 2, y0 - 0.035 * height, text, color="white", size=9, ha="center", va="bottom", bbox=box)


def _draw_legend(figure: Figure, truth: Mapping[str, np.ndarray] | None, prediction: Mapping[str, np.ndarray]) -> None:
    handles: list[Patch | Line2D] = []
    for name in in_order([*prediction, *(truth or {})]):
        colour = COLOURS.get(name, OTHER_COLOUR)
        label = name if truth is None or name in truth else f"{name} (unlabelled)"
        if name == "membrane":
            handles.append(Line2D([], [], color=colour, linewidth=1.6, label=label))
        else:
            handles.append(Patch(facecolor=(*to_rgb(colour), 0.45), edgecolor=colour, label=label))
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=9, labelcolor=INK)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, with fewer colours where it would be larger than `MAX_BYTES`."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    for colours in (0, 256, 128, 64, 32):
        small = (
            picture.quantize(colours, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            if colours
            else picture
        )
        data = io.BytesIO()
        small.save(data, format="PNG", optimize=True, dpi=(DPI, DPI))
        if data.tell() <= MAX_BYTES:
            break
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.getvalue())
    return Path(path)
