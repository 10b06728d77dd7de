"""Predicted cells beside the true ones: image, shapes, sections, and where the samples disagree."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from cytovox.plots.figures import DPI, GREYS, INK, save_figure
from cytovox.plots.shading import shaded

TRUTH_COLOUR, SAMPLE_COLOUR, OUTLINE_COLOUR = "#9a9a9a", "#56B4E9", "#E69F00"
MUTED = "#767676"
#: Characters a line under the image.
NAME_WIDTH = 23
#: Variance of a voxel over the samples is p (1 - p).
MAX_VARIANCE = 0.25
TILE_IN, GAP_IN, LEFT_IN, RIGHT_IN, TOP_IN, BOTTOM_IN = 1.45, 0.06, 0.42, 0.75, 0.32, 0.45


@dataclass(frozen=True)
class GalleryCell:
    """One row of the gallery."""

    name: str
    image_YX: np.ndarray
    """Grey levels, any range."""
    mask_YX: np.ndarray
    """bool; True inside the cell."""
    samples_SZYX: np.ndarray
    """bool; the known slice is that in the middle of z."""
    truth_ZYX: np.ndarray | None = None
    """bool; None where nobody knows it."""


def gallery_figure(path: str | Path, cells: Sequence[GalleryCell], *, shown: int = 3) -> Path:
    """Draw one row per cell: its image, its true shape, some samples, and where all the samples disagree.

    Each shape is shaded, seen obliquely from above, over its xz and yz sections through the mask's centre; dotted lines
    in the image show where. The true outline is drawn into all sections. Disagreement is the standard deviation of the
    thickness along z, and in the sections the variance of every voxel.

    Parameters
    ----------
    path : str or Path
        PNG file to write, whole or not at all.
    cells : sequence of GalleryCell
        At least one; all of one shape. Four fill a screen.
    shown : int
        How many samples are drawn. The disagreement is that of all of them; it is left out where no cell has two.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        No space left, or `path` may not be written.
    ValueError
        No cell to draw.
    """
    if not cells:
        raise ValueError("a gallery of no cell: give at least one")
    headings = _headings(cells, shown)
    depth = _depth_range(cells)
    size = cells[0].mask_YX.shape[0]
    section_in = TILE_IN * (depth.stop - depth.start) / size
    row_in = TILE_IN + 2 * section_in + 3 * GAP_IN + 0.2
    width_in = LEFT_IN + len(headings) * (TILE_IN + GAP_IN) + RIGHT_IN
    height_in = TOP_IN + len(cells) * row_in + BOTTOM_IN
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    thickest = max(1.0, *(float(np.percentile(_thickness_sd(cell), 99.5)) for cell in cells))
    for at, cell in enumerate(cells):
        top = height_in - TOP_IN - at * row_in
        axes = [_column(figure, k, top, section_in) for k in range(len(headings))]
        _draw_cell(axes, cell, headings, depth, thickest)
        if at == 0:
            axes_of_first = axes
            for (ax, _, _), heading in zip(axes, headings, strict=True):
                ax.set_title(heading, fontsize=9.5, color=INK, pad=4)
    if headings[-1] == "disagreement":
        _draw_colour_bar(figure, axes_of_first[-1][0], thickest, "SD of thickness (voxels)")
        _draw_colour_bar(figure, axes_of_first[-1][1], MAX_VARIANCE, "voxel variance")
    _draw_legend(figure, "truth" in headings)
    return save_figure(figure, path)


def _headings(cells: Sequence[GalleryCell], shown: int) -> list[str]:
    most = max(len(cell.samples_SZYX) for cell in cells)
    truth = ["truth"] if any(cell.truth_ZYX is not None for cell in cells) else []
    samples = ["prediction"] if most == 1 else [f"sample {k + 1}" for k in range(min(most, shown))]
    return ["image", *truth, *samples, *(["disagreement"] if most > 1 else [])]


def _depth_range(cells: Sequence[GalleryCell]) -> slice:
    """The slices that any object reaches, with two of margin, so that sections waste no paper."""
    objects = [obj for cell in cells for obj in (*cell.samples_SZYX, cell.truth_ZYX) if obj is not None]
    reached = np.flatnonzero(np.any([np.asarray(obj).any(axis=(1, 2)) for obj in objects], axis=0))
    size = len(objects[0])
    if not len(reached):
        return slice(size // 4, 3 * size // 4)
    return slice(max(int(reached[0]) - 2, 0), min(int(reached[-1]) + 3, size))


def _column(figure: Figure, column: int, top_in: float, section_in: float) -> tuple[Axes, Axes, Axes]:
    """Axes of one shape: the picture, its xz and its yz section, one beneath the other."""
    width_in, height_in = figure.get_size_inches()
    axes: list[Axes] = []
    y = top_in
    for tile_in in (TILE_IN, section_in, section_in):
        y -= tile_in
        x = LEFT_IN + column * (TILE_IN + GAP_IN)
        ax = figure.add_axes((x / width_in, y / height_in, TILE_IN / width_in, tile_in / height_in))
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=bool(axes), color="#d8d8d8", linewidth=0.6)  # a frame for the sections
        axes.append(ax)
        y -= GAP_IN
    return axes[0], axes[1], axes[2]


def _draw_cell(
    axes: list[tuple[Axes, Axes, Axes]], cell: GalleryCell, headings: list[str], depth: slice, thickest: float
) -> None:
    centre = _centre(cell.mask_YX)
    _draw_image(axes[0], cell, centre)
    for (picture, xz, yz), heading in zip(axes[1:], headings[1:], strict=True):
        if heading == "truth":
            obj, colour = cell.truth_ZYX, TRUTH_COLOUR
        elif heading == "disagreement":
            _draw_spread((picture, xz, yz), cell, centre, depth, thickest)
            continue
        else:
            k = 0 if heading == "prediction" else int(heading.split()[1]) - 1
            obj, colour = (cell.samples_SZYX[k] if k < len(cell.samples_SZYX) else None), SAMPLE_COLOUR
        if obj is None:
            picture.text(0.5, 0.5, "none", ha="center", va="center", color=MUTED, transform=picture.transAxes)
            continue
        rgba = shaded(obj, colour)
        picture.imshow(_square(rgba), interpolation="antialiased")
        for ax, section, outline in zip(
            (xz, yz), _sections(obj, centre, depth), _outlines(cell, centre, depth), strict=True
        ):
            fill = np.ones((*section.shape, 3), np.float32)
            fill[section != 0] = to_rgb(colour)
            ax.imshow(fill, interpolation="nearest", origin="lower", aspect="auto")
            _outline(ax, outline, INK, 1.0)


def _draw_image(axes: tuple[Axes, Axes, Axes], cell: GalleryCell, centre: tuple[int, int]) -> None:
    picture, words, last = axes
    low, high = (float(v) for v in np.percentile(cell.image_YX, [0.5, 99.8]))
    picture.imshow(cell.image_YX, cmap=GREYS, vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
    _outline(picture, cell.mask_YX, OUTLINE_COLOUR, 1.3)
    style: dict[str, Any] = {"color": "white", "alpha": 0.6, "linewidth": 0.8, "linestyle": (0, (1, 3))}
    picture.axhline(centre[0], **style)
    picture.axvline(centre[1], **style)
    text: dict[str, Any] = {"va": "top", "linespacing": 1.35, "parse_math": False}  # a file's name is no formula
    name = cell.name if len(cell.name) <= 2 * NAME_WIDTH else cell.name[: 2 * NAME_WIDTH - 1] + "…"
    lines = [name[k : k + NAME_WIDTH] for k in range(0, len(name), NAME_WIDTH)]
    words.text(0, 0.95, "\n".join(lines), fontsize=7.5, color=INK, transform=words.transAxes, **text)
    words.text(0, 0.6, _volumes(cell), fontsize=7.5, color=MUTED, transform=words.transAxes, **text)
    for ax, view in ((words, "xz"), (last, "yz")):
        ax.spines[:].set_visible(False)
        ax.patch.set_visible(False)  # the words of one reach down into the other
        ax.text(0.97, 0.5, view, ha="right", va="center", fontsize=8.5, color=INK, transform=ax.transAxes)


def _volumes(cell: GalleryCell) -> str:
    volumes = [int(np.count_nonzero(sample)) for sample in cell.samples_SZYX]
    lines = ["volume in voxels"]
    if cell.truth_ZYX is not None:
        lines.append(f"truth {np.count_nonzero(cell.truth_ZYX):,}")
    if len(volumes) == 1:
        lines.append(f"prediction {volumes[0]:,}")
    else:
        lines += [f"{len(volumes)} samples", f"{min(volumes):,} to {max(volumes):,}"]
    return "\n".join(lines).replace(",", " ")


def _draw_spread(
    axes: tuple[Axes, Axes, Axes], cell: GalleryCell, centre: tuple[int, int], depth: slice, thickest: float
) -> None:
    """Standard deviation of the thickness along z, and the variance of every voxel in the sections."""
    p_ZYX = np.asarray(cell.samples_SZYX, np.float32).mean(axis=0)
    kind: dict[str, Any] = {"cmap": "magma", "interpolation": "nearest", "aspect": "auto", "vmin": 0}
    axes[0].imshow(_thickness_sd(cell), vmax=thickest, **kind)
    _outline(axes[0], cell.mask_YX, OUTLINE_COLOUR, 1.0)
    planes = _sections(p_ZYX * (1 - p_ZYX), centre, depth)
    for ax, plane, outline in zip(axes[1:], planes, _outlines(cell, centre, depth), strict=True):
        ax.imshow(plane, vmax=MAX_VARIANCE, origin="lower", **kind)
        _outline(ax, outline, "white", 1.0)


def _thickness_sd(cell: GalleryCell) -> np.ndarray:
    return np.asarray(cell.samples_SZYX, bool).sum(axis=1).std(axis=0)


def _centre(mask_YX: np.ndarray) -> tuple[int, int]:
    ys, xs = np.nonzero(mask_YX)
    if not len(ys):
        return mask_YX.shape[0] // 2, mask_YX.shape[1] // 2
    return round(float(ys.mean())), round(float(xs.mean()))


def _sections(volume_ZYX: np.ndarray, centre: tuple[int, int], depth: slice) -> tuple[np.ndarray, np.ndarray]:
    """The xz and the yz section through the centre, z along the rows."""
    return volume_ZYX[depth, centre[0], :], volume_ZYX[depth, :, centre[1]]


def _outlines(
    cell: GalleryCell, centre: tuple[int, int], depth: slice
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    return (None, None) if cell.truth_ZYX is None else _sections(cell.truth_ZYX, centre, depth)


def _outline(ax: Axes, plane: np.ndarray | None, colour: str, width: float) -> None:
    if plane is None or not np.any(plane):
        return
    limits = ax.get_xlim(), ax.get_ylim()
    rows, columns = (np.arange(-1, n + 1) for n in plane.shape)  # one of margin, so that it closes at the border
    padded = np.pad(plane != 0, 1).astype(float)
    ax.contour(columns, rows, padded, levels=[0.5], colors=[colour], linewidths=width)
    ax.set(xlim=limits[0], ylim=limits[1])


def _square(rgba_HWC: np.ndarray) -> np.ndarray:
    """The middle of a picture that is taller than wide, with room for a deep cell that is tilted."""
    height, width = rgba_HWC.shape[:2]
    side = min(round(1.2 * width), height)
    above, beside = (height - side) // 2, max(side - width, 0)
    square = rgba_HWC[above : above + side]
    return np.pad(square, ((0, 0), (beside // 2, beside - beside // 2), (0, 0)))


def _draw_legend(figure: Figure, truth: bool) -> None:
    handles: list[Patch | Line2D] = [Line2D([], [], color=OUTLINE_COLOUR, linewidth=1.6, label="mask")]
    if truth:
        handles.append(Patch(facecolor=TRUTH_COLOUR, label="truth"))
        handles.append(Line2D([], [], color=INK, linewidth=1.4, label="its outline"))
    handles.append(Patch(facecolor=SAMPLE_COLOUR, label="predicted"))
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=9, labelcolor=INK)


def _draw_colour_bar(figure: Figure, beside: Axes, largest: float, label: str) -> None:
    width_in = figure.get_size_inches()[0]
    box = beside.get_position()
    ax = figure.add_axes((box.x1 + 0.08 / width_in, box.y0 + 0.04 * box.height, 0.1 / width_in, 0.92 * box.height))
    bar = figure.colorbar(ScalarMappable(Normalize(0, largest), "magma"), cax=ax)
    bar.set_label(label, fontsize=7.5, color=INK)
    bar.ax.tick_params(labelsize=7)
