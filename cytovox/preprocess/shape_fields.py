"""Representation of shapes as fields for a network, and the way back from a field to a shape."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional as F

from cytovox.errors import InputError

#: Voxels an axis of a cell.
SIDE = 64

#: The slice of an object that was imaged (SHAPR, Waibel et al. 2022): it stays where it is under every turn.
SLICE = 32


class ShapeField(Protocol):
    """What a field offers."""

    @property
    def size(self) -> int:
        """Voxels an axis; a divisor of 64."""

    def encode(self, distance_BZYX: torch.Tensor) -> torch.Tensor:
        """Signed distances of objects in voxels, (B, 64, 64, 64), to fields (B, 1, size, size, size) in -1..1."""

    def decode(self, field_BCZYX: torch.Tensor, mask_BYX: torch.Tensor) -> torch.Tensor:
        """Fields to objects (B, 64, 64, 64), bool; with `known_slice` the imaged slice is the mask, exactly."""


class Occupancy:
    """1 inside and -1 outside at full resolution, as DISPR's.

    Parameters
    ----------
    known_slice : bool
        Write the mask into the imaged slice of every shape.
    """

    size = SIDE

    def __init__(self, known_slice: bool = True) -> None:
        self.known_slice = known_slice

    def encode(self, distance_BZYX: torch.Tensor) -> torch.Tensor:
        """The sign of the distance; see `ShapeField`."""
        return torch.where(distance_BZYX > 0, 1.0, -1.0)[:, None]

    def decode(self, field_BCZYX: torch.Tensor, mask_BYX: torch.Tensor) -> torch.Tensor:
        """Inside above 0; see `ShapeField`."""
        inside_BZYX = field_BCZYX[:, 0] > 0
        return _with_slice(inside_BZYX, mask_BYX) if self.known_slice else inside_BZYX


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
        """Means over voxels of the coarser grid; see `ShapeField`."""
        factor = distance_BZYX.shape[-1] // self.size
        field_BCZYX = distance_BZYX[:, None]
        field_BCZYX = F.avg_pool3d(field_BCZYX, factor) if factor > 1 else field_BCZYX
        return (field_BCZYX / self.config.truncation).clamp(-1, 1)

    def decode(self, field_BCZYX: torch.Tensor, mask_BYX: torch.Tensor) -> torch.Tensor:
        """Inside above 0 on the fine grid, after sharpening; see `ShapeField`."""
        device = field_BCZYX.device
        fine = _separable(field_BCZYX.float(), [_finer_matrix(self.size, SIDE, device)] * 3)
        if self.config.sharpen:
            matrix = _finer_matrix(self.size, SIDE, device, self.config.blur)
            blurred = _separable(field_BCZYX.float(), [matrix] * 3)
            fine = fine + self.config.sharpen * (fine - blurred)
        inside_BZYX = fine[:, 0] > 0
        return _with_slice(inside_BZYX, mask_BYX) if self.config.known_slice else inside_BZYX


def _with_slice(obj_BZYX: torch.Tensor, mask_BYX: torch.Tensor) -> torch.Tensor:
    obj_BZYX[:, SLICE] = mask_BYX.to(obj_BZYX.device, torch.bool)
    return obj_BZYX


def gaussian_blur(volume_BCZYX: torch.Tensor, deviation: float) -> torch.Tensor:
    """Blur volumes to four deviations; they go on beyond their border as they end.

    Parameters
    ----------
    volume_BCZYX : float tensor, (B, C, Z, Y, X)
    deviation : float
        In voxels.
    """
    return _separable(volume_BCZYX, [_blur_matrix(n, deviation).to(volume_BCZYX) for n in volume_BCZYX.shape[2:]])


def _separable(volume_BCZYX: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """A matrix (new, old) along each of z, y, x: three small products in place of a one-channel convolution.

    In the volume's own precision also where the caller computes in 16 bits (autocast): the sign decides for a voxel.
    """
    with torch.autocast(volume_BCZYX.device.type, enabled=False):
        z, y, x = (matrix.to(volume_BCZYX) for matrix in matrices)
        return torch.einsum("ai,bcijk->bcajk", z, y @ (volume_BCZYX @ x.T))


def _blur_matrix(size: int, deviation: float) -> torch.Tensor:
    radius = math.ceil(4 * deviation)
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (steps / deviation) ** 2)
    sources = (torch.arange(size)[:, None] + steps.long()).clamp(0, size - 1)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(
        1, sources, (weights / weights.sum()).expand(size, -1)
    )


@functools.lru_cache(maxsize=16)
def _finer_matrix(size: int, fine: int, device: torch.device, blur: float | None = None) -> torch.Tensor:
    """Linear interpolation from voxel centres to voxel centres, faces on faces, and then a blur; float32 (fine, size).

    Kept, because each copy of such a matrix to a device makes the host wait.
    """
    with torch.inference_mode(False):  # for any later use, whatever the first one is part of
        eye = torch.eye(size, dtype=torch.float64)[None]
        matrix = F.interpolate(eye, size=fine, mode="linear", align_corners=False)[0].T
        matrix = matrix if blur is None else _blur_matrix(fine, blur) @ matrix
        return matrix.to(device, torch.float32)


@dataclass
class _Shared:
    """What every field has."""

    known_slice: bool = True
    """Write the mask into the imaged slice of every shape: it is known. Published (DISPR): false."""


@dataclass
class OccupancyConfig(_Shared):
    """Voxels inside and outside, at full resolution: the published way."""

    size = SIDE

    def errors(self) -> list[str]:
        """Nothing can be wrong."""
        return []

    def build(self) -> Occupancy:
        """The field."""
        return Occupancy(self.known_slice)


@dataclass
class SignedDistanceConfig(_Shared):
    """Truncated signed distances, at full resolution or coarser."""

    size: int = 32
    """Voxels an axis: 64, 32 or 16."""
    truncation: float = 6.0
    """Distance in voxels of the object that becomes 1."""
    sharpen: float = 1.0
    """Share of what a blur takes away that is added when a field becomes a shape: a mean of plausible shapes, and a
    coarse field, are smoother than a cell. 0 leaves it out."""
    blur: float = 1.5
    """Deviation of that blur, in voxels of the object."""

    def errors(self) -> list[str]:
        """What is wrong with the options; empty where all is well."""
        errors = [] if self.size in (64, 32, 16) else [f"size: {self.size}: expected 64, 32 or 16"]
        if not 1 <= self.truncation <= 16:
            errors.append(f"truncation: {self.truncation}: expected 1 to 16 voxels")
        if not 0 <= self.sharpen <= 4:
            errors.append(f"sharpen: {self.sharpen}: expected 0 to 4")
        if not 0.3 <= self.blur <= 8:
            errors.append(f"blur: {self.blur}: expected 0.3 to 8 voxels")
        return errors

    def build(self) -> SignedDistance:
        """The field; `InputError` if an option is out of range."""
        if errors := self.errors():
            raise InputError(f"signed_distance: {'; '.join(errors)}")
        return SignedDistance(self)


#: The fields, by name.
FIELDS: dict[str, type[SignedDistanceConfig | OccupancyConfig]] = {
    "signed_distance": SignedDistanceConfig,
    "occupancy": OccupancyConfig,
}
