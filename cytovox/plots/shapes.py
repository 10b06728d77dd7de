"""Draw predicted and true 3D shapes of cells: image, shapes, sections, and the variation between samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from cytovox.plots.figures import DPI, GREYS, INK, MUTED, save_figure
from cytovox.plots.shading import shaded

TRUTH_COLOUR, SAMPLE_COLOUR, OUTLINE_COLOUR = "#9a9a9a", "#56B4E9", "#E69F00"
#: Characters per line under the image.
NAME_WIDTH = 23
#: Largest variance p (1 - p) of a voxel over the samples.
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
    """bool; the imaged slice is the middle one."""
    truth_ZYX: np.ndarray | None = None
    """bool; None if unknown."""


def gallery_figure(path: str | Path, cells: Sequence[GalleryCell], *, shown: int = 3) -> Path:
    """Draw one row per cell: its image, its true shape, some samples, and the disagreement of all samples.

    Each shape is rendered obliquely from above; below it are its xz and yz sections through the centre of the mask,
    whose positions are dotted lines in the image. All sections show the true outline. The disagreement is the standard
    deviation of the thickness along z, and in the sections the variance of every voxel.

    Parameters
    ----------
    path : str or Path
        PNG file to write, complete or not at all.
    cells : sequence of GalleryCell
        At least one; all of one shape. Four fit on a screen.
    shown : int
        Largest number of samples to draw. The disagreement of all samples is drawn if any cell has two.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        No space left, or `path` cannot be written.
    ValueError
        `cells` is empty.
    """
    if not cells:
        raise ValueError("a gallery of no cell: give at least one")
    headings, depth = _headings(cells, shown), _depth_range(cells)
    section_in = TILE_IN * (depth.stop - depth.start) / cells[0].mask_YX.shape[0]
    row_in = TILE_IN + 2 * section_in + 3 * GAP_IN + 0.2
    width_in = LEFT_IN + len(headings) * (TILE_IN + GAP_IN) + RIGHT_IN
    height_in = TOP_IN + len(cells) * row_in + BOTTOM_IN
    figure = Figure(figsize=(width_in, height_in), dpi=DPI)
    tops = [height_in - TOP_IN - at * row_in for at in range(len(cells))]
    rows = [[_column(figure, k, top, section_in) for k in range(len(headings))] for top in tops]
    largest_sd = max(1.0, *(float(np.percentile(_thickness_sd(cell), 99.5)) for cell in cells))
    for axes, cell in zip(rows, cells, strict=True):
        _draw_cell(axes, cell, headings, depth, largest_sd)
    for (ax, _, _), heading in zip(rows[0], headings, strict=True):
        ax.set_title(heading, fontsize=9.5, color=INK, pad=4)
    if headings[-1] == "disagreement":
        _draw_colour_bar(figure, rows[0][-1][0], largest_sd, "SD of thickness (voxels)")
        _draw_colour_bar(figure, rows[0][-1][1], MAX_VARIANCE, "voxel variance")
    _draw_legend(figure, "truth" in headings)
    return save_figure(figure, path)


def _headings(cells: Sequence[GalleryCell], shown: int) -> list[str]:
    most = max(len(cell.samples_SZYX) for cell in cells)
    truth = ["truth"] if any(cell.truth_ZYX is not None for cell in cells) else []
    samples = ["prediction"] if most == 1 else [f"sample {k + 1}" for k in range(min(most, shown))]
    return ["image", *truth, *samples, *(["disagreement"] if most > 1 else [])]


def _depth_range(cells: Sequence[GalleryCell]) -> slice:
    """Return the slices that contain any object, and two more on either side."""
    objects = [obj for cell in cells for obj in (*cell.samples_SZYX, cell.truth_ZYX) if obj is not None]
    reached = np.flatnonzero(np.any([np.asarray(obj).any(axis=(1, 2)) for obj in objects], axis=0))
    size = len(objects[0])
    if not len(reached):
        return slice(size // 4, 3 * size // 4)
    return slice(max(int(reached[0]) - 2, 0), min(int(reached[-1]) + 3, size))


def _column(figure: Figure, column: int, top_in: float, section_in: float) -> tuple[Axes, Axes, Axes]:
    """Return the axes of one shape, from top to bottom: image, xz section and yz section."""
    width_in, height_in = figure.get_size_inches()
    axes: list[Axes] = []
    x, y = LEFT_IN + column * (TILE_IN + GAP_IN), top_in
    for tile_in in (TILE_IN, section_in, section_in):
        y -= tile_in
        ax = figure.add_axes((x / width_in, y / height_in, TILE_IN / width_in, tile_in / height_in))
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=bool(axes), color="#d8d8d8", linewidth=0.6)  # only sections have a frame
        axes.append(ax)
        y -= GAP_IN
    return axes[0], axes[1], axes[2]


def _draw_cell(
    axes: list[tuple[Axes, Axes, Axes]], cell: GalleryCell, headings: list[str], depth: slice, largest_sd: float
) -> None:
    """Draw one row of the gallery."""
    centre = _centre(cell.mask_YX)
    _draw_image(axes[0], cell, centre)
    samples = {f"sample {k}": sample for k, sample in enumerate(cell.samples_SZYX, start=1)}
    shapes = {"truth": cell.truth_ZYX, "prediction": samples.get("sample 1"), **samples}
    for column, heading in zip(axes[1:], headings[1:], strict=True):
        obj, colour = shapes.get(heading), TRUTH_COLOUR if heading == "truth" else SAMPLE_COLOUR
        if heading == "disagreement":
            _draw_disagreement(column, cell, centre, depth, largest_sd)
        elif obj is None:
            column[0].text(0.5, 0.5, "none", ha="center", va="center", color=MUTED, transform=column[0].transAxes)
        else:
            column[0].imshow(_square(shaded(obj, colour)), interpolation="antialiased")
            sections = _sections(obj, centre, depth)
            for ax, section, outline in zip(column[1:], sections, _outlines(cell, centre, depth), strict=True):
                fill = np.ones((*section.shape, 3), np.float32)
                fill[section != 0] = to_rgb(colour)
                ax.imshow(fill, interpolation="nearest", origin="lower", aspect="auto")
                _outline(ax, outline, INK, 1.0)


def _draw_image(axes: tuple[Axes, Axes, Axes], cell: GalleryCell, centre: tuple[int, int]) -> None:
    picture, upper, lower = axes
    low, high = (float(v) for v in np.percentile(cell.image_YX, [0.5, 99.8]))
    picture.imshow(cell.image_YX, cmap=GREYS, vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
    _outline(picture, cell.mask_YX, OUTLINE_COLOUR, 1.3)
    style: dict[str, Any] = {"color": "white", "alpha": 0.6, "linewidth": 0.8, "linestyle": (0, (1, 3))}
    picture.axhline(centre[0], **style)
    picture.axvline(centre[1], **style)
    style = {"va": "top", "linespacing": 1.35, "parse_math": False, "fontsize": 7.5, "transform": upper.transAxes}
    name = cell.name if len(cell.name) <= 2 * NAME_WIDTH else cell.name[: 2 * NAME_WIDTH - 1] + "…"
    lines = [name[k : k + NAME_WIDTH] for k in range(0, len(name), NAME_WIDTH)]
    upper.text(0, 0.95, "\n".join(lines), color=INK, **style)
    upper.text(0, 0.6, _volumes(cell), color=MUTED, **style)
    for ax, view in ((upper, "xz"), (lower, "yz")):
        ax.spines[:].set_visible(False)
        ax.patch.set_visible(False)  # the text of the upper axes extends into the lower ones
        ax.text(0.97, 0.5, view, ha="right", va="center", fontsize=8.5, color=INK, transform=ax.transAxes)


def _volumes(cell: GalleryCell) -> str:
    """Return the volumes of the truth and the samples as text."""
    volumes = [int(np.count_nonzero(sample)) for sample in cell.samples_SZYX]
    truth = [] if cell.truth_ZYX is None else [f"truth {np.count_nonzero(cell.truth_ZYX):,}"]
    several = [f"{len(volumes)} samples", f"{min(volumes):,} to {max(volumes):,}"]
    samples = [f"prediction {volumes[0]:,}"] if len(volumes) == 1 else several
    return "\n".join(["volume in voxels", *truth, *samples]).replace(",", " ")


def _draw_disagreement(
    axes: tuple[Axes, Axes, Axes], cell: GalleryCell, centre: tuple[int, int], depth: slice, largest_sd: float
) -> None:
    """Draw the standard deviation of the thickness along z, and the variance of every voxel in the sections."""
    p_ZYX = np.asarray(cell.samples_SZYX, np.float32).mean(axis=0)
    kind: dict[str, Any] = {"cmap": "magma", "interpolation": "nearest", "aspect": "auto", "vmin": 0}
    axes[0].imshow(_thickness_sd(cell), vmax=largest_sd, **kind)
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
    """Return the xz and the yz section through the centre, z along the rows."""
    return volume_ZYX[depth, centre[0], :], volume_ZYX[depth, :, centre[1]]


def _outlines(
    cell: GalleryCell, centre: tuple[int, int], depth: slice
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    return (None, None) if cell.truth_ZYX is None else _sections(cell.truth_ZYX, centre, depth)


def _outline(ax: Axes, plane: np.ndarray | None, colour: str, width: float) -> None:
    """Draw the outline of a plane, if it has any, and leave the limits of the axes unchanged."""
    if plane is None or not np.any(plane):
        return
    xlim, ylim = ax.get_xlim(), ax.get_ylim()
    rows, columns = (np.arange(-1, n + 1) for n in plane.shape)  # padded, so that the outline is closed at the border
    padded = np.pad(plane != 0, 1).astype(float)
    ax.contour(columns, rows, padded, levels=[0.5], colors=[colour], linewidths=width)
    ax.set(xlim=xlim, ylim=ylim)


def _square(rgba_HWC: np.ndarray) -> np.ndarray:
    """Return the middle of an image that is taller than wide as a square, with space for a tall tilted cell."""
    height, width = rgba_HWC.shape[:2]
    side = min(round(1.2 * width), height)
    top, missing = (height - side) // 2, max(side - width, 0)
    return np.pad(rgba_HWC[top : top + side], ((0, 0), (missing // 2, missing - missing // 2), (0, 0)))


def _draw_legend(figure: Figure, truth: bool) -> None:
    handles: list[Patch | Line2D] = [Line2D([], [], color=OUTLINE_COLOUR, linewidth=1.6, label="mask")]
    if truth:
        handles.append(Patch(facecolor=TRUTH_COLOUR, label="truth"))
        handles.append(Line2D([], [], color=INK, linewidth=1.4, label="its outline"))
    handles.append(Patch(facecolor=SAMPLE_COLOUR, label="predicted"))
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=9, labelcolor=INK)


def _draw_colour_bar(figure: Figure, right_of: Axes, largest: float, label: str) -> None:
    width_in, box = figure.get_size_inches()[0], right_of.get_position()
    ax = figure.add_axes((box.x1 + 0.08 / width_in, box.y0 + 0.04 * box.height, 0.1 / width_in, 0.92 * box.height))
    bar = figure.colorbar(ScalarMappable(Normalize(0, largest), "magma"), cax=ax)
    bar.set_label(label, fontsize=7.5, color=INK)
    bar.ax.tick_params(labelsize=7)
