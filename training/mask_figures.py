"""Pictures of predicted masks: of a frame of any size, without ever holding a large one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cytovox.io import Box, FrameReader, grid_boxes
from cytovox.plots.figures import overlay_figure
from cytovox.plots.meshes import write_glb

Shape = tuple[int, int, int]

#: Voxels that are drawn at most, in pictures and as surfaces; larger frames are thinned out. A noisy mask has triangles
#: in every voxel: eight times as many voxels as this took 9 GB of memory.
THINNED, SURFACES = 2**24, 2**20

#: Voxels z, y, x that are read at once.
_BLOCK = (32, 256, 256)


def draw_frame(
    path: Path,
    reader: FrameReader,
    region: Callable[[Box], np.ndarray],
    organelles: Sequence[str],
    spacing_um: tuple[float, float, float],
    title: str,
    surfaces: bool,
) -> None:
    """Draw masks over their frame, and their surfaces beside it.

    Parameters
    ----------
    path : Path
        The PNG; surfaces get the same name with .glb.
    reader : FrameReader
        The refractive index.
    region : callable
        From a box to its masks, uint8 (K, z, y, x).
    organelles : sequence of str
        Names of the masks.
    spacing_um : (z, y, x)
        Voxel size.
    title : str
        Printed above.
    surfaces : bool
        Whether to write the surfaces.

    Raises
    ------
    InputError
        No space left, or the folder may not be written.
    """
    step = thinned(reader.shape, spacing_um, THINNED)
    if step == (1, 1, 1):
        whole = tuple(slice(0, n) for n in reader.shape)
        ri_ZYX, masks_KZYX = reader.read(whole), region(whole)  # type: ignore[arg-type]
    else:
        ri_ZYX, masks_KZYX = gather(reader.read, reader.shape, step), gather(region, reader.shape, step)
        title = f"{title} (thinned out)"
    shown_um = _times(spacing_um, step)
    masks = {name: mask.view(bool) for name, mask in zip(organelles, masks_KZYX, strict=True)}
    overlay_figure(path, ri_ZYX, None, masks, shown_um, title)
    if surfaces:
        z, y, x = thinned(ri_ZYX.shape, shown_um, SURFACES)
        few = {name: mask[::z, ::y, ::x] for name, mask in masks.items()}
        write_glb(path.with_suffix(".glb"), few, _times(shown_um, (z, y, x)))


def _times(spacing_um: tuple[float, float, float], step: Shape) -> tuple[float, float, float]:
    z, y, x = (s * n for s, n in zip(spacing_um, step, strict=True))
    return z, y, x


def picture_name(name: str, t: int) -> str:
    """Of a frame's overlay, in the folder of figures."""
    return f"predict_{name}_t{t:03d}.png"


def thinned(shape: Shape, spacing_um: tuple[float, float, float], most: int) -> Shape:
    """Every how many voxels to take along z, y, x so that no more than `most` are left, evenly in micrometres."""
    step = [1, 1, 1]

    def left() -> list[int]:
        return [-(-n // s) for n, s in zip(shape, step, strict=True)]

    while np.prod(left()) > most:
        lengths = [s * d if n > 1 else np.inf for s, d, n in zip(step, spacing_um, left(), strict=True)]
        step[int(np.argmin(lengths))] *= 2
    return step[0], step[1], step[2]


def gather(read: Callable[[Box], np.ndarray], shape: Shape, step: Shape, block: Shape = _BLOCK) -> np.ndarray:
    """Every n-th voxel of a frame, (..., z, y, x), read block by block.

    Parameters
    ----------
    read : callable
        From a box to its voxels, the last three axes z, y, x.
    shape : (Z, Y, X)
        Of the frame.
    step : (z, y, x)
        Every how many voxels.
    block : (z, y, x)
        Size of the blocks.
    """
    whole: np.ndarray = np.empty(0)
    for box in grid_boxes(shape, block):
        first = [-b.start % s for b, s in zip(box, step, strict=True)]
        z, y, x = (slice(f, None, s) for f, s in zip(first, step, strict=True))
        voxels = read(box)[..., z, y, x]
        if not whole.size:
            size = [-(-n // s) for n, s in zip(shape, step, strict=True)]
            whole = np.zeros((*voxels.shape[:-3], *size), voxels.dtype)
        at = [(b.start + f) // s for b, f, s in zip(box, first, step, strict=True)]
        z, y, x = (slice(a, a + n) for a, n in zip(at, voxels.shape[-3:], strict=True))
        whole[..., z, y, x] = voxels
    return whole
