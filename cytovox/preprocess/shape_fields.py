"""Represent shapes as fields for a network, and convert fields back to shapes.

A field of signed distances is smooth and nearly Gaussian, and its zero level lies between voxels. At half the object's
resolution it preserves a shape better than a mask does, with an eighth of the voxels.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch.nn import functional as F

from cytovox.options import NoOptions, option_errors, raise_errors

#: Voxels per axis of a cell.
SIDE = 64

#: Index of the imaged slice of an object (SHAPR, Waibel et al. 2022); rotations and reflections keep it in place.
SLICE = 32


def signed_distance(inside: np.ndarray) -> np.ndarray:
    """Return the distance to the surface, positive inside.

    The centres of voxels at the surface are half a voxel away from it: the field is 0.5 and -0.5 on its two sides.

    Parameters
    ----------
    inside : bool array, any number of axes
        Without a surface, all distances are the length of the diagonal.

    Returns
    -------
    float32 array
        In voxels.

    References
    ----------
    Park et al., DeepSDF, CVPR 2019, arXiv 1901.05103 (shapes as signed distances, truncated).
    Zeng et al., 3DMatch, CVPR 2017, arXiv 1603.08182 (truncated signed distances on a grid).
    """
    if not inside.any() or inside.all():
        far = float(np.linalg.norm(inside.shape))
        return np.full(inside.shape, far if inside.any() else -far, dtype=np.float32)
    depth, distance = distance_transform_edt(inside), distance_transform_edt(~inside)
    return np.where(inside, depth - 0.5, 0.5 - distance).astype(np.float32)


class ShapeField(Protocol):
    """Interface of a field."""

    @property
    def size(self) -> int:
        """Return the number of voxels per axis; a divisor of 64."""

    def encode(self, distance_BZYX: torch.Tensor) -> torch.Tensor:
        """Return fields (B, 1, size, size, size) in -1..1, from signed distances in voxels, (B, 64, 64, 64)."""

    def decode(self, field_BCZYX: torch.Tensor, mask_BYX: torch.Tensor) -> torch.Tensor:
        """Return objects (B, 64, 64, 64), bool; with `known_slice` their imaged slice is exactly the mask."""


class Occupancy:
    """1 inside and -1 outside at full resolution, as in DISPR.

    Parameters
    ----------
    known_slice : bool
        Write the mask into the imaged slice of every shape.
    """

    size = SIDE

    def __init__(self, known_slice: bool = True) -> None:
        self.known_slice = known_slice

    def encode(self, distance_BZYX: torch.Tensor) -> torch.Tensor:
        """Return the sign of the distance; see `ShapeField`."""
        return torch.where(distance_BZYX > 0, 1.0, -1.0)[:, None]

    def decode(self, field_BCZYX: torch.Tensor, mask_BYX: torch.Tensor) -> torch.Tensor:
        """Return the voxels above 0; see `ShapeField`."""
        return _inside(field_BCZYX, mask_BYX if self.known_slice else None)


class SignedDistance:
    """Distance to the surface, truncated (Curless & Levoy 1996; Park et al. 2019, arXiv 1901.05103).

    Parameters
    ----------
    config : SignedDistanceConfig
        Valid options.
    """

    def __init__(self, config: SignedDistanceConfig) -> None:
        self.config, self.size = config, config.size

    def encode(self, distance_BZYX: torch.Tensor) -> torch.Tensor:
        """Return means over the voxels of the coarser grid; see `ShapeField`."""
        factor = distance_BZYX.shape[-1] // self.size
        field_BCZYX = distance_BZYX[:, None]
        field_BCZYX = F.avg_pool3d(field_BCZYX, factor) if factor > 1 else field_BCZYX
        return (field_BCZYX / self.config.truncation).clamp(-1, 1)

    def decode(self, field_BCZYX: torch.Tensor, mask_BYX: torch.Tensor) -> torch.Tensor:
        """Return the voxels above 0 on the fine grid, after sharpening; see `ShapeField`."""
        device, field_BCZYX = field_BCZYX.device, field_BCZYX.float()
        fine = _separable(field_BCZYX, _finer_matrix(self.size, SIDE, device))
        if self.config.sharpen:
            blurred = _separable(field_BCZYX, _finer_matrix(self.size, SIDE, device, self.config.blur))
            fine = fine + self.config.sharpen * (fine - blurred)
        return _inside(fine, mask_BYX if self.config.known_slice else None)


def _inside(field_BCZYX: torch.Tensor, mask_BYX: torch.Tensor | None) -> torch.Tensor:
    """Return the voxels above 0, (B, Z, Y, X), with the mask, if given, in the imaged slice."""
    inside_BZYX = field_BCZYX[:, 0] > 0
    if mask_BYX is not None:
        inside_BZYX[:, SLICE] = mask_BYX.to(inside_BZYX.device, torch.bool)
    return inside_BZYX


def _separable(volume_BCZYX: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Multiply by a matrix (new, old) along z, y and x: three small products instead of a one-channel convolution.

    The precision is that of the volume even under autocast, because the sign of the result is thresholded.
    """
    matrix = matrix.to(volume_BCZYX)
    with torch.autocast(volume_BCZYX.device.type, enabled=False):
        return torch.einsum("ai,bcijk->bcajk", matrix, matrix @ (volume_BCZYX @ matrix.T))


def _blur_matrix(size: int, deviation: float) -> torch.Tensor:
    """Return the matrix (size, size) of a Gaussian blur, truncated at four deviations, with repeated edge values."""
    radius = math.ceil(4 * deviation)
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (steps / deviation) ** 2)
    sources = (torch.arange(size)[:, None] + steps.long()).clamp(0, size - 1)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(
        1, sources, (weights / weights.sum()).expand(size, -1)
    )


@functools.lru_cache(maxsize=16)
def _finer_matrix(size: int, fine: int, device: torch.device, blur: float | None = None) -> torch.Tensor:
    """Return the matrix of a linear interpolation with coinciding outer faces and a blur; float32 (fine, size).

    Cached, because each copy of such a matrix to a device blocks the host.
    """
    with torch.inference_mode(False):  # the cached matrix may be used outside inference mode later
        eye = torch.eye(size, dtype=torch.float64)[None]
        matrix = F.interpolate(eye, size=fine, mode="linear", align_corners=False)[0].T
        matrix = matrix if blur is None else _blur_matrix(fine, blur) @ matrix
        return matrix.to(device, torch.float32)


@dataclass
class _Shared:
    """Common options of all fields."""

    known_slice: bool = True
    """Whether the mask, which is known, is written into the imaged slice of every shape. Published (DISPR): false."""


@dataclass
class OccupancyConfig(_Shared, NoOptions):
    """Voxels inside and outside, at full resolution, as published."""

    size = SIDE

    def build(self) -> Occupancy:
        """Return the field."""
        return Occupancy(self.known_slice)


@dataclass
class SignedDistanceConfig(_Shared):
    """Truncated signed distances, at full resolution or coarser."""

    size: int = 32
    """Voxels per axis: 64, 32 or 16."""
    truncation: float = 6.0
    """Distance in voxels of the object that is mapped to 1; larger distances are clipped."""
    sharpen: float = 1.0
    """Strength of the unsharp mask that is applied before a field is thresholded: a mean of plausible shapes, and a
    coarse field, are smoother than a cell. 0 for none."""
    blur: float = 1.5
    """Standard deviation of the blur of the unsharp mask, in voxels of the object."""

    def errors(self) -> list[str]:
        """Return the errors of the options; empty if they are valid."""
        return option_errors(
            self,
            ("size", self.size in (64, 32, 16), "64, 32 or 16"),
            ("truncation", 1 <= self.truncation <= 16, "1 to 16 voxels"),
            ("sharpen", 0 <= self.sharpen <= 4, "0 to 4"),
            ("blur", 0.3 <= self.blur <= 8, "0.3 to 8 voxels"),
        )

    def build(self) -> SignedDistance:
        """Return the field; raise `InputError` if an option is out of range."""
        raise_errors("signed_distance", self.errors())
        return SignedDistance(self)


#: Fields by name.
FIELDS: dict[str, type[SignedDistanceConfig | OccupancyConfig]] = {
    "signed_distance": SignedDistanceConfig,
    "occupancy": OccupancyConfig,
}
