"""One common voxel grid for tomograms of any size and spacing, and the way back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn.functional import interpolate

from cytovox.errors import InputError

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]

#: A common grid above this does not fit into memory: a mistaken unit (mm for µm is a billion-fold), most likely.
MAX_VOXELS = 2**31

#: A grid that is made region by region may be of any size; but more voxels than this for each that was recorded, and
#: above `MAX_VOXELS`, can only be a mistaken unit.
MAX_UPSAMPLING = 64


@dataclass(frozen=True)
class ResampleTo:
    """The common grid: exactly one of its two fields is given."""

    spacing_um: Spacing | None = None
    """Voxel size (z, y, x) in µm that every tomogram is brought to; its size in voxels follows."""
    grid: Shape | None = None
    """Size (z, y, x) in voxels that every tomogram is brought to, as in the paper (128, 512, 512)."""

    def __post_init__(self) -> None:
        for name in ("spacing_um", "grid"):  # a config hands over lists
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(value))
        if (self.spacing_um is None) == (self.grid is None):
            raise InputError(
                "resample: expected either spacing_um: [z, y, x] or grid: [z, y, x], not both and not none"
            )
        if self.spacing_um is not None:
            check_spacing(self.spacing_um, "resample.spacing_um")
        if self.grid is not None and (len(self.grid) != 3 or any(n != int(n) or n < 1 for n in self.grid)):
            raise InputError(f"resample.grid: {list(self.grid)}: expected three whole numbers of voxels, z, y, x")

    @classmethod
    def chosen(cls, way: str, spacing_um: Sequence[float], grid: Sequence[int]) -> "ResampleTo":
        """The one of two grids that a config or a checkpoint chose: `way` is `spacing_um` or `grid`."""
        if way == "grid":
            return cls(grid=(grid[0], grid[1], grid[2]))
        return cls(spacing_um=(spacing_um[0], spacing_um[1], spacing_um[2]))


def check_spacing(spacing_um: Sequence[float], where: str) -> None:
    """Refuse anything but three positive, finite lengths.

    Raises
    ------
    InputError
        Naming `where`.
    """
    if len(spacing_um) != 3 or any(not math.isfinite(s) or s <= 0 for s in spacing_um):
        raise InputError(f"{where}: {list(spacing_um)}: expected three positive lengths in µm, z, y, x")


def common_grid(
    shape_ZYX: Sequence[int], spacing_um: Sequence[float], resample: ResampleTo, streamed: bool = False
) -> tuple[Shape, Spacing]:
    """Size and spacing of a tomogram once it lies on the common grid.

    The field of view is kept to the bit, so the spacing is the wanted one only to within half a voxel over the whole
    axis.

    Parameters
    ----------
    shape_ZYX : three ints
        Size of the tomogram in voxels.
    spacing_um : three floats
        Its voxel size (z, y, x) in µm.
    resample : ResampleTo
        The common grid.
    streamed : bool
        Whether the grid is made region by region: then it need not fit into memory.

    Returns
    -------
    shape : three ints
        At least one voxel an axis.
    spacing_um : three floats
        The voxel size that this shape really has.

    Raises
    ------
    InputError
        A spacing that is no length, or a grid of more than `MAX_VOXELS`; where it is streamed, only one that has also
        more than `MAX_UPSAMPLING` voxels for each of the tomogram's.
    """
    check_spacing(spacing_um, "spacing_um")
    extent_um = [n * s for n, s in zip(shape_ZYX, spacing_um, strict=True)]
    if resample.grid is not None:
        target = [int(n) for n in resample.grid]
    elif resample.spacing_um is not None:
        target = [max(1, round(e / s)) for e, s in zip(extent_um, resample.spacing_um, strict=True)]
    else:
        raise ValueError("ResampleTo without a target")
    limit = max(MAX_VOXELS, MAX_UPSAMPLING * math.prod(shape_ZYX)) if streamed else MAX_VOXELS
    if math.prod(target) > limit:
        raise InputError(
            f"resample: {list(shape_ZYX)} voxels of {list(spacing_um)} µm would become {target} voxels: "
            "check the unit of the spacing (µm), or choose a coarser resample.spacing_um"
        )
    actual = [s if n == m else e / m for n, m, s, e in zip(shape_ZYX, target, spacing_um, extent_um, strict=True)]
    return (target[0], target[1], target[2]), (float(actual[0]), float(actual[1]), float(actual[2]))


def resize_linear(volume_CZYX: torch.Tensor, shape_ZYX: Sequence[int]) -> torch.Tensor:
    """Trilinear resampling, with anti-aliasing along every axis that shrinks.

    Voxel faces, not centres, of the two volumes coincide (`align_corners=False`). Along an axis that shrinks the
    triangle is widened to two output voxels. torch has no anti-aliasing in 3D, but the filter is separable: the plane
    and the depth are done one after the other. MONAI's `Resize(anti_aliasing=True)` pads with zeros and darkens faces.

    Parameters
    ----------
    volume_CZYX : float32 tensor, (C, Z, Y, X)
        Images or probabilities.
    shape_ZYX : three ints
        The new size.

    Returns
    -------
    float32 tensor, (C, *shape_ZYX)
        The very same tensor where the size does not change.
    """
    shrinks = shape_ZYX[0] < volume_CZYX.shape[1]
    steps = (_resize_depth, _resize_plane) if shrinks else (_resize_plane, _resize_depth)
    for step in steps:
        volume_CZYX = step(volume_CZYX, shape_ZYX)
    return volume_CZYX


def _resize_plane(volume_CZYX: torch.Tensor, shape_ZYX: Sequence[int]) -> torch.Tensor:
    plane = tuple(shape_ZYX[1:])
    if tuple(volume_CZYX.shape[2:]) == plane:
        return volume_CZYX
    return _resize_2d(volume_CZYX, plane)


def _resize_depth(volume_CZYX: torch.Tensor, shape_ZYX: Sequence[int]) -> torch.Tensor:
    channels, depth, height, width = volume_CZYX.shape
    if depth == shape_ZYX[0]:
        return volume_CZYX
    flat = volume_CZYX.reshape(channels, 1, depth, height * width)
    flat = _resize_2d(flat, (shape_ZYX[0], height * width))
    return flat.reshape(channels, shape_ZYX[0], height, width)


def _resize_2d(images_BCYX: torch.Tensor, shape_YX: tuple[int, ...]) -> torch.Tensor:
    resize = partial(interpolate, mode="bilinear", align_corners=False, antialias=True)
    if images_BCYX.shape[-1] == 1 or shape_YX[1] == 1:
        # torch repeats the first row of images that are one voxel wide (seen in 2.13): give them two, and rows first
        if images_BCYX.shape[-1] == 1:
            images_BCYX = images_BCYX.expand(-1, -1, -1, 2).contiguous()
        images_BCYX = resize(images_BCYX, size=(shape_YX[0], images_BCYX.shape[-1]))
    return resize(images_BCYX, size=shape_YX)


def resize_mask(mask_KZYX: np.ndarray, shape_ZYX: Sequence[int]) -> np.ndarray:
    """Resample masks: a voxel belongs to the organelle if at least half of it does.

    Along an axis that shrinks the share is the exact overlap of old and new voxels; along one that grows it is
    interpolated linearly. Nearest-neighbour sampling would drop or double thin structures.

    Parameters
    ----------
    mask_KZYX : bool or uint8 array of 0 and 1, (K, Z, Y, X)
        One mask an organelle; they may overlap.
    shape_ZYX : three ints
        The new size.

    Returns
    -------
    array, (K, *shape_ZYX)
        Same number type as the input; the very same array where the size does not change.
    """
    if tuple(mask_KZYX.shape[1:]) == tuple(shape_ZYX):
        return mask_KZYX
    result = np.empty((len(mask_KZYX), *shape_ZYX), dtype=mask_KZYX.dtype)
    for mask_ZYX, out_ZYX in zip(mask_KZYX, result, strict=True):  # one at a time: a float copy is large
        share = np.asarray(mask_ZYX, dtype=np.float32)
        for axis in range(3):
            if shape_ZYX[axis] < share.shape[axis]:
                share = _mean_along(share, axis, shape_ZYX[axis])
        share_ZYX = resize_linear(torch.from_numpy(share)[None], shape_ZYX)[0].numpy()
        out_ZYX[...] = share_ZYX >= 0.5 - 1e-3  # exact halves belong to it in spite of float32 sums
    return result


def _mean_along(share: np.ndarray, axis: int, n_out: int) -> np.ndarray:
    """Mean of a piecewise constant function over `n_out` equal intervals of one axis, from its exact integral."""
    n_in = share.shape[axis]
    edges = np.arange(n_out + 1) * n_in / n_out
    whole = np.minimum(edges.astype(int), n_in - 1)
    part = np.expand_dims((edges - whole).astype(np.float32), tuple(range(1, share.ndim)))
    share = np.moveaxis(share, axis, 0)
    before = np.zeros((n_in, *share.shape[1:]), dtype=np.float32)
    np.cumsum(share[:-1], axis=0, out=before[1:])
    integral = before[whole] + part * share[whole]
    return np.ascontiguousarray(np.moveaxis(np.diff(integral, axis=0) * np.float32(n_out / n_in), 0, axis))
