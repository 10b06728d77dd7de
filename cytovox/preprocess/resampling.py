"""Resample tomograms and masks to a common voxel grid and back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn.functional import interpolate

from cytovox.errors import InputError
from cytovox.organelles import UNDRAWN

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]

#: Most voxels of a common grid in memory. More are probably a wrong unit: mm for µm is a factor of a billion.
MAX_VOXELS = 2**31

#: Most voxels of a grid that is computed region by region, relative to those of the tomogram, if above `MAX_VOXELS`.
MAX_UPSAMPLING = 64

#: Least share of a voxel that belongs to a mask, with a tolerance for the rounding of float32 sums.
HALF = 0.5 - 1e-3


@dataclass(frozen=True)
class ResampleTo:
    """The common grid: exactly one of its two fields is given."""

    spacing_um: Spacing | None = None
    """Voxel size (z, y, x) in µm of all tomograms; their sizes in voxels differ."""
    grid: Shape | None = None
    """Size (z, y, x) in voxels of all tomograms, as in the paper (128, 512, 512); their voxel sizes differ."""

    def __post_init__(self) -> None:
        for name in ("spacing_um", "grid"):  # a config passes lists
            if (value := getattr(self, name)) is not None:
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
    def chosen(cls, kind: str, spacing_um: Sequence[float], grid: Sequence[int]) -> "ResampleTo":
        """Return the grid that a config or a checkpoint selects by `kind`: `spacing_um` or `grid`."""
        if kind == "grid":
            return cls(grid=(grid[0], grid[1], grid[2]))
        return cls(spacing_um=(spacing_um[0], spacing_um[1], spacing_um[2]))


def check_spacing(spacing_um: Sequence[float], where: str) -> None:
    """Check that a spacing is three positive, finite lengths.

    Raises
    ------
    InputError
        It is not; the message starts with `where`.
    """
    if len(spacing_um) != 3 or any(not math.isfinite(s) or s <= 0 for s in spacing_um):
        raise InputError(f"{where}: {list(spacing_um)}: expected three positive lengths in µm, z, y, x")


def common_grid(
    shape_ZYX: Sequence[int], spacing_um: Sequence[float], resample: ResampleTo, streamed: bool = False
) -> tuple[Shape, Spacing]:
    """Return size and spacing of a tomogram on the common grid.

    The field of view is kept exactly. The spacing can therefore differ from the requested one, by at most half a voxel
    over the whole axis.

    Parameters
    ----------
    shape_ZYX : three ints
        Size of the tomogram in voxels.
    spacing_um : three floats
        Its voxel size (z, y, x) in µm.
    resample : ResampleTo
        The common grid.
    streamed : bool
        Whether the grid is computed region by region, so that it need not fit into memory.

    Returns
    -------
    shape : three ints
        At least one voxel per axis.
    spacing_um : three floats
        Voxel size of exactly this shape.

    Raises
    ------
    InputError
        Invalid spacing, or more than `MAX_VOXELS`; if streamed, more than both `MAX_VOXELS` and `MAX_UPSAMPLING` times
        the voxels of the tomogram.
    """
    check_spacing(spacing_um, "spacing_um")
    extent_um = [n * s for n, s in zip(shape_ZYX, spacing_um, strict=True)]
    if resample.grid is not None:
        target = [int(n) for n in resample.grid]
    else:
        assert resample.spacing_um is not None  # one of both is given
        target = [max(1, round(e / s)) for e, s in zip(extent_um, resample.spacing_um, strict=True)]
    limit = max(MAX_VOXELS, MAX_UPSAMPLING * math.prod(shape_ZYX)) if streamed else MAX_VOXELS
    if math.prod(target) > limit:
        raise InputError(
            f"resample: {list(shape_ZYX)} voxels of {list(spacing_um)} µm would become {target} voxels: "
            "check the unit of the spacing (µm), or choose a coarser resample.spacing_um"
        )
    actual = [s if n == m else e / m for n, m, s, e in zip(shape_ZYX, target, spacing_um, extent_um, strict=True)]
    return (target[0], target[1], target[2]), (float(actual[0]), float(actual[1]), float(actual[2]))


def resize_linear(volume_CZYX: torch.Tensor, shape_ZYX: Sequence[int]) -> torch.Tensor:
    """Resample volumes trilinearly, with anti-aliasing along every axis that is downsampled.

    The outer faces of the two volumes coincide, not the outer voxel centres (`align_corners=False`). Along a
    downsampled axis the triangular filter is as wide as two output voxels. torch has no anti-aliasing in 3D, but the
    filter is separable: plane and depth are resampled one after the other. MONAI's `Resize(anti_aliasing=True)` pads
    with zeros, which darkens the faces.

    Parameters
    ----------
    volume_CZYX : float32 tensor, (C, Z, Y, X)
        Images or probabilities.
    shape_ZYX : three ints
        The new size.

    Returns
    -------
    float32 tensor, (C, *shape_ZYX)
        The input tensor itself if the size does not change.
    """
    depth, height, width = shape_ZYX
    if depth >= volume_CZYX.shape[1]:  # z is upsampled last and downsampled first: fewer voxels in between
        volume_CZYX = _resize_2d(volume_CZYX, (height, width))
    if depth != volume_CZYX.shape[1]:
        flat = volume_CZYX.flatten(2)[:, None]  # (C, 1, Z, Y * X)
        flat = _resize_2d(flat, (depth, flat.shape[-1]))
        volume_CZYX = flat[:, 0].unflatten(2, volume_CZYX.shape[2:])
    return _resize_2d(volume_CZYX, (height, width))


def _resize_2d(images_BCYX: torch.Tensor, shape_YX: tuple[int, int]) -> torch.Tensor:
    """Resample the last two axes bilinearly with anti-aliasing; return the input itself if the size is the same."""
    if tuple(images_BCYX.shape[2:]) == shape_YX:
        return images_BCYX
    resize = partial(interpolate, mode="bilinear", align_corners=False, antialias=True)
    if 1 in (images_BCYX.shape[-1], shape_YX[1]):
        # torch 2.13 repeats the first row of images that are one voxel wide: double their width, and resample y alone
        if images_BCYX.shape[-1] == 1:
            images_BCYX = images_BCYX.expand(-1, -1, -1, 2).contiguous()
        images_BCYX = resize(images_BCYX, size=(shape_YX[0], images_BCYX.shape[-1]))
    return resize(images_BCYX, size=shape_YX)


def resize_mask(mask_KZYX: np.ndarray, shape_ZYX: Sequence[int]) -> np.ndarray:
    """Resample masks: a voxel belongs to the organelle if at least half of it does.

    Along a downsampled axis the share is the exact overlap of old and new voxels; along an upsampled axis it is
    interpolated linearly. Nearest-neighbour sampling would lose or double thin structures.

    Parameters
    ----------
    mask_KZYX : bool or uint8 array of 0 and 1, (K, Z, Y, X)
        One mask per organelle; they may overlap.
    shape_ZYX : three ints
        The new size.

    Returns
    -------
    array, (K, *shape_ZYX)
        Same dtype as the input; the input array itself if the size does not change.
    """
    if tuple(mask_KZYX.shape[1:]) == tuple(shape_ZYX):
        return mask_KZYX
    result = np.empty((len(mask_KZYX), *shape_ZYX), dtype=mask_KZYX.dtype)
    for mask_ZYX, out_ZYX in zip(mask_KZYX, result, strict=True):  # one at a time: a float copy is large
        out_ZYX[...] = _resized_share(mask_ZYX, shape_ZYX) >= HALF
    return result


def resize_annotated(mask_KZYX: np.ndarray, shape_ZYX: Sequence[int]) -> np.ndarray:
    """Resample partly annotated masks: a voxel belongs to the organelle if at least half of its annotated part does.

    A voxel is annotated if at least half of it is. Along a downsampled z axis, half the thickness of an old slice
    suffices, so that no slice that alone is annotated is lost.

    Parameters
    ----------
    mask_KZYX : uint8 array of 0, 1 and `UNDRAWN`, (K, Z, Y, X)
        One mask per organelle.
    shape_ZYX : three ints
        The new size.

    Returns
    -------
    uint8 array of 0, 1 and `UNDRAWN`, (K, *shape_ZYX)
        The input array itself if the size does not change.
    """
    undrawn_K = (mask_KZYX == UNDRAWN).any(axis=(1, 2, 3))
    if tuple(mask_KZYX.shape[1:]) == tuple(shape_ZYX) or not undrawn_K.any():
        return resize_mask(mask_KZYX, shape_ZYX)
    least = HALF * min(1.0, shape_ZYX[0] / mask_KZYX.shape[1])
    result = np.empty((len(mask_KZYX), *shape_ZYX), dtype=mask_KZYX.dtype)
    for mask_ZYX, out_ZYX, is_partial in zip(mask_KZYX, result, undrawn_K.tolist(), strict=True):
        if not is_partial:
            out_ZYX[...] = resize_mask(mask_ZYX[None], shape_ZYX)[0]
            continue
        annotated_ZYX = _resized_share(mask_ZYX != UNDRAWN, shape_ZYX)
        inside_ZYX = _resized_share(mask_ZYX == 1, shape_ZYX) >= HALF * annotated_ZYX
        out_ZYX[...] = np.where(annotated_ZYX >= least, inside_ZYX, UNDRAWN)
    return result


def _resized_share(mask_ZYX: np.ndarray, shape_ZYX: Sequence[int]) -> np.ndarray:
    """Return the share of each new voxel that lies in a mask of 0 and 1, float32."""
    share = np.asarray(mask_ZYX, dtype=np.float32)
    for axis in range(3):
        if shape_ZYX[axis] < share.shape[axis]:
            share = _mean_along(share, axis, shape_ZYX[axis])
    return resize_linear(torch.from_numpy(share)[None], shape_ZYX)[0].numpy()


def _mean_along(share: np.ndarray, axis: int, n_out: int) -> np.ndarray:
    """Return the mean of a piecewise constant function over `n_out` equal intervals of one axis, from its integral."""
    n_in = share.shape[axis]
    edges = np.arange(n_out + 1) * n_in / n_out
    whole = np.minimum(edges.astype(int), n_in - 1)
    part = np.expand_dims((edges - whole).astype(np.float32), tuple(range(1, share.ndim)))
    share = np.moveaxis(share, axis, 0)
    before = np.zeros((n_in, *share.shape[1:]), dtype=np.float32)
    np.cumsum(share[:-1], axis=0, out=before[1:])
    integral = before[whole] + part * share[whole]
    return np.ascontiguousarray(np.moveaxis(np.diff(integral, axis=0) * np.float32(n_out / n_in), 0, axis))
