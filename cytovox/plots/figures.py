"""Draw masks over their tomogram in xy, xz and yz; common style of all figures."""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

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
#: 96 grey levels: noisy images compress to half the size, without a visible difference.
GREYS = colormaps["gray"].resampled(96)
MAX_BYTES = 300_000
INK, MUTED = "#222222", "#767676"

#: For each view: the normal, horizontal and vertical axis, as indices into (z, y, x).
VIEWS: dict[str, tuple[int, int, int]] = {"xy": (0, 2, 1), "xz": (1, 2, 0), "yz": (2, 1, 0)}


def overlay_figure(
    path: str | Path,
    ri_ZYX: np.ndarray,
    truth: Mapping[str, np.ndarray] | None,
    prediction: Mapping[str, np.ndarray],
    spacing_um: tuple[float, float, float],
    title: str = "",
) -> Path:
    """Draw one tomogram in xy, xz and yz: without masks, with true masks if given, and with predicted masks.

    The three planes intersect at `informative_point`; dotted lines show their positions. All panels have one scale in
    µm.

    Parameters
    ----------
    path : str or Path
        PNG file to write, complete or not at all.
    ri_ZYX : float array, (Z, Y, X)
        Refractive index.
    truth : dict of organelle -> bool array, (Z, Y, X), or None
        True masks. The legend marks missing organelles as unlabelled.
    prediction : dict of organelle -> bool array, (Z, Y, X)
        Predicted masks.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    title : str
        Title of the figure, printed literally (no mathematics).

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        No space left, or `path` cannot be written.
    """
    point = informative_point(truth or {}, prediction, ri_ZYX.shape)
    given = {} if truth is None else {"truth": truth}
    columns: dict[str, Mapping[str, np.ndarray]] = {"refractive index": {}, **given, "prediction": prediction}
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
    """Return the (z, y, x) whose three planes have the largest area of organelles.

    Along each axis, the plane with the largest sum of areas is chosen. Each area is relative to the organelle's largest
    area, so that a nucleolus has the same weight as a cell. The prediction is used only if the truth is empty.

    Parameters
    ----------
    truth, prediction : dict of organelle -> bool array, (Z, Y, X)
        Masks; empty ones are ignored.
    shape : (z, y, x) ints
        Shape of the volume; its centre is returned if all masks are empty.
    """
    true_masks, predicted = ([mask for mask in group.values() if mask.any()] for group in (truth, prediction))
    masks = true_masks or predicted
    if not masks:
        return shape[0] // 2, shape[1] // 2, shape[2] // 2
    areas = [[mask.sum(axis=other, dtype=np.int64) for mask in masks] for other in ((1, 2), (0, 2), (0, 1))]
    z, y, x = (int(np.argmax(sum(area / area.max() for area in along))) for along in areas)
    return z, y, x


def _panels(size_um: np.ndarray, columns: int, title: str) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of three rows of panels, each as large as its plane on one common scale."""
    left, right, top, bottom, gap = 0.45, 0.95, 0.62 if title else 0.35, 0.45, 0.1
    widths, heights = ([size_um[axes[k]] for axes in VIEWS.values()] for k in (1, 2))
    inch_per_um = min(8.6 / (columns * max(widths)), 8.0 / sum(heights), 4.0 / max(widths))
    column_in = max(widths) * inch_per_um
    width_in = left + columns * column_in + (columns - 1) * gap + right
    height_in = top + sum(heights) * inch_per_um + 2 * gap + bottom
    figure = Figure(figsize=(width_in, height_in), dpi=DPI)
    axes: list[list[Axes]] = []
    y = height_in - top
    for width, height in zip(widths, heights, strict=True):
        y -= height * inch_per_um
        size = (width * inch_per_um / width_in, height * inch_per_um / height_in)
        lefts = [(left + column * (column_in + gap)) / width_in for column in range(columns)]
        axes.append([figure.add_axes((x, y / height_in, *size)) for x in lefts])
        y -= gap
    if title:
        shown = title if len(title) <= 90 else title[:89] + "…"
        figure.text(left / width_in, 1 - 0.1 / height_in, shown, va="top", size=11, color=INK, parse_math=False)
    return figure, axes


def _plane(volume_ZYX: np.ndarray, view: str, point: tuple[int, int, int]) -> np.ndarray:
    """Return the slice of a view; its rows are along the vertical axis."""
    along, horizontal, vertical = VIEWS[view]
    plane = np.take(volume_ZYX, point[along], axis=along)
    return plane if vertical < horizontal else plane.T


def _grey_limits(ri_ZYX: np.ndarray, point: tuple[int, int, int]) -> tuple[float, float]:
    """Return the refractive indices to draw as black and white."""
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
    """Draw a plane of the tomogram, and over it the masks."""
    _, horizontal, vertical = VIEWS[view]
    # y downwards as in microscopy viewers, z upwards as in the microscope
    low_high = (size_um[vertical], 0.0) if view == "xy" else (0.0, size_um[vertical])
    extent = (0.0, float(size_um[horizontal]), *map(float, low_high))
    kind: dict[str, Any] = {"extent": extent, "origin": "upper" if view == "xy" else "lower", "aspect": "auto"}
    ri = _plane(ri_ZYX, view, point)
    image = ax.imshow(ri, cmap=GREYS, interpolation=_resampling(ax, ri), vmin=limits[0], vmax=limits[1], **kind)
    for name in in_order(masks):
        plane = _plane(masks[name], view, point) != 0
        if not plane.any():
            continue
        colour = COLOURS.get(name, OTHER_COLOUR)
        if name != "membrane":  # a filled cell would tint the organelles in it
            fill = np.zeros((*plane.shape, 4), np.float32)
            fill[plane] = (*to_rgb(colour), 0.3)
            ax.imshow(fill, interpolation="nearest", **kind)
        # padded by one voxel, so that the outline is closed at the border
        across = (np.arange(-1, plane.shape[1] + 1) + 0.5) * (extent[1] / plane.shape[1])
        along = (np.arange(-1, plane.shape[0] + 1) + 0.5) * (abs(extent[3] - extent[2]) / plane.shape[0])
        ax.contour(across, along, np.pad(plane, 1).astype(float), levels=[0.5], colors=[colour], linewidths=1.2)
    ax.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return image


def _resampling(ax: Axes, plane: np.ndarray) -> str:
    """Return the interpolation: averaging if there are more voxels than pixels, else none."""
    width, height = ax.get_window_extent().size
    return "hanning" if plane.shape[0] > height or plane.shape[1] > width else "nearest"


def _draw_crosshair(ax: Axes, view: str, point: tuple[int, int, int], spacing_um: tuple[float, float, float]) -> None:
    _, horizontal, vertical = VIEWS[view]
    style: dict[str, Any] = {"color": "white", "alpha": 0.55, "linewidth": 0.7, "linestyle": (0, (1, 3))}
    ax.axvline((point[horizontal] + 0.5) * spacing_um[horizontal], **style)
    ax.axhline((point[vertical] + 0.5) * spacing_um[vertical], **style)


def _draw_scale_bar(ax: Axes, width_um: float) -> None:
    """Draw a bar of a round length, at most a third of the panel."""
    power = 10 ** math.floor(math.log10(width_um / 3))
    length = next(n * power for n in (5, 2, 1) if n * power <= width_um / 3)
    height = abs(ax.get_ylim()[0] - ax.get_ylim()[1])
    x0, y0 = 0.05 * width_um, 0.95 * height
    for colour, thickness in (("black", 5), ("white", 3)):
        ax.plot([x0, x0 + length], [y0, y0], color=colour, linewidth=thickness, solid_capstyle="butt")
    style: dict[str, Any] = {"color": "white", "size": 9, "ha": "center", "va": "bottom"}
    box = {"facecolor": "black", "alpha": 0.45, "edgecolor": "none", "pad": 1.5}
    ax.text(x0 + length / 2, y0 - 0.035 * height, f"{length:g} µm", bbox=box, **style)


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


def add_grid(ax: Axes, axis: Literal["y", "both"]) -> None:
    """Add a light grid behind the data, and remove the upper and right frame lines."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=axis, color="#e4e4e4", linewidth=0.8)
    ax.set_axisbelow(True)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, with fewer colours if it would be larger than `MAX_BYTES`."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = small = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    for colours in (256, 128, 64, 32, 0):
        data = io.BytesIO()
        small.save(data, format="PNG", optimize=True, dpi=(DPI, DPI))
        if data.tell() <= MAX_BYTES or not colours:
            break
        small = picture.quantize(colours, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.getvalue())
    return Path(path)
