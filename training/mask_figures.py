"""Figures of predicted masks; large frames are read in blocks and subsampled."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cytovox.io import Box, FrameReader, grid_boxes
from cytovox.plots.figures import overlay_figure
from cytovox.plots.meshes import write_glb

Shape = tuple[int, int, int]

#: Most voxels of a frame in an overlay and in surfaces; larger frames are subsampled. A noisy mask has triangles in
#: every voxel: with eight times this number of voxels, the surfaces took 9 GB of memory.
THINNED, SURFACES = 2**24, 2**20

#: Size (z, y, x) of the blocks that are read.
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
    """Draw masks over their frame; with `surfaces`, also write the surfaces of the masks.

    Parameters
    ----------
    path : Path
        PNG file of the overlay; the surfaces get the same name with .glb.
    reader : FrameReader
        Refractive index.
    region : callable
        Returns the masks of a box, uint8 (K, z, y, x).
    organelles : sequence of str
        Names of the masks.
    spacing_um : (z, y, x)
        Voxel size.
    title : str
        Title of the figure.
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
        title = f"{title} (subsampled)"
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
    """Return the file name of a frame's overlay, by the base name of the output."""
    return f"predict_{name}_t{t:03d}.png"


def thinned(shape: Shape, spacing_um: tuple[float, float, float], most: int) -> Shape:
    """Return subsampling steps along z, y, x, powers of 2, that leave at most `most` voxels.

    The axis with the smallest spacing is doubled first, so that the sampling becomes as isotropic as possible.
    """
    step = np.ones(3, int)
    while np.prod(left := -(-np.array(shape) // step)) > most:
        step[np.where(left > 1, step * spacing_um, np.inf).argmin()] *= 2
    z, y, x = step.tolist()
    return z, y, x


def gather(read: Callable[[Box], np.ndarray], shape: Shape, step: Shape, block: Shape = _BLOCK) -> np.ndarray:
    """Return every n-th voxel of a frame, (..., z, y, x), read block by block.

    Parameters
    ----------
    read : callable
        Returns the voxels of a box; its last three axes are z, y, x.
    shape : (Z, Y, X)
        Shape of the frame.
    step : (z, y, x)
        Subsampling steps.
    block : (z, y, x)
        Size of the blocks.
    """
    whole: np.ndarray = np.empty(0)
    for box in grid_boxes(shape, block):
        first = [-b.start % s for b, s in zip(box, step, strict=True)]
        z, y, x = (slice(f, None, s) for f, s in zip(first, step, strict=True))
        voxels = read(box)[..., z, y, x]
        if not whole.size:
            whole = np.zeros(
                (*voxels.shape[:-3], *(-(-n // s) for n, s in zip(shape, step, strict=True))), voxels.dtype
            )
        at = [(b.start + f) // s for b, f, s in zip(box, first, step, strict=True)]
        z, y, x = (slice(a, a + n) for a, n in zip(at, voxels.shape[-3:], strict=True))
        whole[..., z, y, x] = voxels
    return whole
