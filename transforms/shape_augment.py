"""Random augmentation of an image, its mask and its 3D object, with the same transform for all three."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    AffineGrid,
    Compose,
    EnsureTyped,
    MapTransform,
    RandFlipd,
    RandGaussianNoised,
    Randomizable,
    RandomizableTransform,
    RandScaleIntensityd,
    RandShiftIntensityd,
    Resample,
    ScaleIntensityRanged,
)
from torch.nn.functional import interpolate

from cytovox.errors import InputError
from cytovox.preprocess.shape_fields import SLICE

#: Key of the object's signed distances, where a model learns from them.
DISTANCE = "distance"

#: Nodes per axis of the elastic deformation: neighbours are 16 pixels apart, half a cell.
_NODES = 5


@dataclass(frozen=True)
class AugmentationParams:
    """Parameters of one augmentation: output pixel o is read at `middle + rotation(o - middle - shift) / zoom`."""

    angle: float = 0.0
    """About z, in radian."""
    zoom: float = 1.0
    """Magnification of all three axes: at 1.1 the cell looks 10 % larger."""
    shift_YX: tuple[float, float] = (0.0, 0.0)
    """In pixels, after the turn."""
    elastic_KK2: np.ndarray | None = None
    """Displacement in pixels at the nodes of a coarse grid, x then y; None leaves it out."""

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return self.elastic_KK2 is None and self == AugmentationParams()


def keep_inside(params: AugmentationParams, mask_YX: torch.Tensor, obj_ZYX: torch.Tensor) -> AugmentationParams:
    """Return the parameters with zoom and shift reduced until the rotated cell lies within the image.

    A network trained on cropped cells would predict cells with flat sides. A cell too large for the image at
    this angle is shrunk to fit. The elastic deformation is ignored: it may move an edge outside by a few pixels.

    Parameters
    ----------
    params : AugmentationParams
    mask_YX, obj_ZYX : float32 tensors of 0 and 1, (Y, X) and (Z, Y, X)
    """
    inside_YX = torch.maximum(mask_YX, obj_ZYX.amax(0)) > 0
    if not inside_YX.any():
        return params
    half = inside_YX.shape[0] / 2
    points_2N = inside_YX.nonzero().T.double() - (half - 0.5)
    matrix = torch.linalg.inv(_matrix(params) * params.zoom)  # maps points of the source to the output, at zoom 1
    moved_2N = matrix @ points_2N
    low, high = moved_2N.amin(1) - 0.5, moved_2N.amax(1) + 0.5
    slices = torch.nonzero(obj_ZYX.amax((1, 2)) > 0).flatten()
    away = float((slices - SLICE).abs().max()) if len(slices) else 0.0
    fits = min(2 * half / float((high - low).max()), (half - 1) / max(away, 1e-6))
    zoom = min(params.zoom, max(fits, 0.5))
    room = [(-half - zoom * float(a), half - zoom * float(b)) for a, b in zip(low, high, strict=True)]
    y, x = (min(max(s, a), b) if a < b else (a + b) / 2 for s, (a, b) in zip(params.shift_YX, room, strict=True))
    return AugmentationParams(params.angle, zoom, (y, x), params.elastic_KK2)


def _matrix(params: AugmentationParams) -> torch.Tensor:
    """Return the matrix (2, 2), float64, from offsets (y, x) from the middle in the output to those in the source."""
    cos, sin = np.cos(params.angle), np.sin(params.angle)
    return torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64) / params.zoom


def _plane_grid(params: AugmentationParams, side: int) -> torch.Tensor:
    """Return the source position of each output pixel for MONAI's `Resample`: (3, Y, X), y, x from the middle and 1."""
    affine = torch.eye(3, dtype=torch.float64)
    affine[:2, :2] = _matrix(params)
    affine[:2, 2] = -affine[:2, :2] @ torch.tensor(params.shift_YX, dtype=torch.float64)
    grid_3YX, _ = AffineGrid(affine=affine)((side, side))
    assert grid_3YX is not None
    if params.elastic_KK2 is not None:
        nodes = torch.from_numpy(np.ascontiguousarray(params.elastic_KK2, dtype=np.float32)).permute(2, 0, 1)[None]
        smooth_XYX = interpolate(nodes, size=(side, side), mode="bicubic", align_corners=True)[0]
        grid_3YX[:2] += smooth_XYX.flip(0)  # x then y
    return grid_3YX


def _along_z(obj_ZYX: torch.Tensor, params: AugmentationParams, border: bool = False) -> torch.Tensor:
    """Return the object zoomed along z about slice 32, which is copied unchanged.

    Slices from outside the volume are empty; with `border`, they repeat the outermost slice.
    """
    if params.zoom == 1:
        return obj_ZYX
    depth = len(obj_ZYX)
    step = torch.arange(depth, dtype=torch.float64) - SLICE
    source = SLICE + step / params.zoom
    if border:
        source = source.clamp(0, depth - 1)
    # linear interpolation as a matrix: row z holds the weights of the source slices; row 32 is exactly one of them
    weights_ZZ = (1 - (source[:, None] - torch.arange(depth)).abs()).clamp_(min=0).float()
    return (weights_ZZ @ obj_ZYX.reshape(depth, -1)).reshape(obj_ZYX.shape)


def apply_augmentation(
    params: AugmentationParams, image_YX: torch.Tensor, mask_YX: torch.Tensor, obj_ZYX: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return image, mask and object resampled with the same grid.

    Mask and object are interpolated linearly and thresholded at one half: nearest-neighbour interpolation
    can lose walls of one voxel. The mask is transformed exactly like slice 32: if the two were equal, they stay
    exactly equal. Outside the border, the image repeats its outermost pixels, and mask and object are empty.

    Parameters
    ----------
    params : AugmentationParams
    image_YX : float32 tensor, (Y, X)
    mask_YX, obj_ZYX : float32 tensors of 0 and 1, (Y, X) and (Z, Y, X)

    Returns
    -------
    image_YX, mask_YX, obj_ZYX : float32 tensors
        Of the same shapes; mask and object of 0 and 1.
    """
    if params.is_identity:
        return image_YX, mask_YX, obj_ZYX
    grid = _plane_grid(params, image_YX.shape[-1])
    stack_CYX = torch.cat([_along_z(obj_ZYX, params), mask_YX[None]])
    inside_CYX = (_resample(stack_CYX, grid, "zeros") >= 0.5 - 1e-4).float()  # float32 coordinates are off by as much
    return _resample(image_YX[None], grid, "border")[0], inside_CYX[-1], inside_CYX[:-1]


def _resample(stack_CYX: torch.Tensor, grid_3YX: torch.Tensor, padding_mode: str) -> torch.Tensor:
    resample = Resample(mode="bilinear", padding_mode=padding_mode, dtype=torch.float32)  # type: ignore[arg-type]
    return resample(stack_CYX, grid_3YX).as_tensor()  # type: ignore[attr-defined]


def augment_distance(params: AugmentationParams, distance_ZYX: torch.Tensor) -> torch.Tensor:
    """Return signed distances transformed like the object in `apply_augmentation`, and multiplied by the zoom.

    Parameters
    ----------
    params : AugmentationParams
    distance_ZYX : float32 tensor
        In voxels, positive inside.

    Returns
    -------
    float32 tensor, (Z, Y, X)
        In voxels; exact for rotations, mirror images and shifts, approximate for elastic deformations.
    """
    if params.is_identity:
        return distance_ZYX
    grid = _plane_grid(params, distance_ZYX.shape[-1])
    stack_ZYX = _along_z(distance_ZYX, params, border=True)
    return _resample(stack_ZYX, grid, "border") * params.zoom


class RandMirrorZd(RandomizableTransform, MapTransform):
    """Mirror an object along z about slice 32, which the image shows; MONAI's flips are about the middle, 31.5.

    Slice 0 has no mirror image: an object that reaches it stays as it is.

    Parameters
    ----------
    keys : sequence of str
        Object first, float32 (1, Z, Y, X); then other arrays to mirror with it, if they are present.
    prob : float
        Probability.
    """

    def __init__(self, keys: Sequence[str], prob: float) -> None:
        MapTransform.__init__(self, tuple(keys), allow_missing_keys=True)
        RandomizableTransform.__init__(self, prob)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize(None)
        result = dict(data)
        if self._do_transform and not result[self.keys[0]][:, 0].any():
            for key in self.key_iterator(result):
                outermost, rest = result[key][:, :1], result[key][:, 1:]
                result[key] = torch.cat([outermost, rest.flip(1)], dim=1)
        return result


class RandRotateInFramed(Randomizable, MapTransform):
    """Rotate a cell about the microscope's axis by any angle, with a small zoom, shift and elastic deformation.

    The zoom is that of all three axes; shift and deformation lie in the plane. The cell stays within its frame (see
    `keep_inside`). z is never exchanged with y or x: a slice along the optical axis looks different. SHAPR's published
    augmentation rotated about the wrong axes, so that mask and object no longer belonged together.

    MONAI's RandAffined and Rand2DElasticd choose zoom and shift independently of the cell, and can crop it at the
    border; grid and interpolation are MONAI's.

    Parameters
    ----------
    keys : three or four str
        Image, mask and object: float32 tensors (1, Y, X), (1, Y, X) and (1, Z, Y, X); and, where it is there, the
        signed distances of the object (1, Z, Y, X).
    rotate : bool
        Whether cells are rotated.
    zoom : (low, high)
        Range of the magnification.
    shift : float
        Largest shift in pixels, in y and in x.
    elastic : float
        Deviation in pixels of the displacement at nodes 16 pixels apart; 0 leaves it out.
    elastic_probability : float
        Probability.
    """

    def __init__(
        self,
        keys: Sequence[str] = ("image", "mask", "obj", DISTANCE),
        rotate: bool = True,
        zoom: tuple[float, float] = (0.9, 1.1),
        shift: float = 2.0,
        elastic: float = 0.0,
        elastic_probability: float = 0.3,
    ) -> None:
        super().__init__(tuple(keys))
        if not 0 < zoom[0] <= zoom[1]:
            raise InputError(f"shape augmentation: zoom {zoom}: expected a range such as (0.9, 1.1)")
        self.rotate, self.zoom, self.shift = rotate, zoom, shift
        self.elastic, self.elastic_probability = elastic, elastic_probability
        self.params = AugmentationParams()

    def randomize(self, data: Any = None) -> None:
        """Draw the parameters of the next call."""
        angle, zoom = self.R.uniform(-np.pi, np.pi), self.R.uniform(*self.zoom)
        shift_y, shift_x = self.R.uniform(-self.shift, self.shift, 2)
        bent = self.R.random() < self.elastic_probability and self.elastic > 0
        self.params = AugmentationParams(
            angle=float(angle) if self.rotate else 0.0,
            zoom=float(zoom),
            shift_YX=(float(shift_y), float(shift_x)),
            elastic_KK2=self.R.normal(scale=self.elastic, size=(_NODES, _NODES, 2)) if bent else None,
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize()
        result = dict(data)
        if self.params.is_identity:  # a cell that reaches the frame's border stays as it is
            return result
        image_YX, mask_YX, obj_ZYX = (result[key][0] for key in self.keys[:3])
        self.params = keep_inside(self.params, mask_YX, obj_ZYX)
        moved = apply_augmentation(self.params, image_YX, mask_YX, obj_ZYX)
        result |= {key: value[None] for key, value in zip(self.keys, moved, strict=False)}
        for key in self.keys[3:]:
            if key in result:
                result[key] = augment_distance(self.params, result[key][0])[None]
        return result


def rand_shape(
    rotate: bool = True,
    flip: bool = True,
    flip_z: bool = True,
    zoom: tuple[float, float] = (0.9, 1.1),
    shift: float = 2.0,
    elastic: float = 0.0,
    elastic_probability: float = 0.3,
    intensity_scale: float = 0.1,
    intensity_offset: float = 0.05,
    noise: float = 0.02,
    mirror_yz: float = 0.0,
) -> Compose:
    """Return the random augmentation of a cell: mirror images, rotation about z, and image brightness and noise.

    Parameters
    ----------
    rotate, zoom, shift, elastic, elastic_probability
        As of `RandRotateInFramed`.
    flip, flip_z : bool
        Whether cells are mirrored in y and x, and in z about slice 32. For cells that lie on a slide,
        set `flip_z` to False.
    intensity_scale, intensity_offset, noise : float
        The image is multiplied by 1 +- scale, lifted by +- offset, and gets noise of a deviation between 0 and
        `noise`; then clipped to 0..1.
    mirror_yz : float
        Probability of an additional mirror image along y and, independently, along z. DISPR's loader
        defines it with one third, and does not use it.

    Returns
    -------
    monai.transforms.Compose
        Reads and returns `image` (1, Y, X), `mask` (1, Y, X), `obj` (1, Z, Y, X) and, where it is there, `distance`
        (1, Z, Y, X): float32 tensors.

    Raises
    ------
    InputError
        `zoom` is not a valid range.
    """
    keys = ("image", "mask", "obj", DISTANCE)
    mirrors: list[Any] = [
        *(RandFlipd(keys, 0.5 * flip, axis, allow_missing_keys=True) for axis in (-2, -1)),
        RandFlipd(keys, mirror_yz, -2, allow_missing_keys=True),
        EnsureTyped(keys, track_meta=False, allow_missing_keys=True),
        *(RandMirrorZd(keys[2:], prob) for prob in (0.5 * flip_z, mirror_yz)),
    ]
    exposure: list[Any] = [
        RandScaleIntensityd("image", factors=intensity_scale, prob=1.0),
        RandShiftIntensityd("image", offsets=intensity_offset, prob=1.0),
        RandGaussianNoised("image", prob=float(noise > 0), std=noise),
        ScaleIntensityRanged("image", 0.0, 1.0, 0.0, 1.0, clip=True),
        EnsureTyped("image", track_meta=False),
    ]
    return Compose([*mirrors, RandRotateInFramed(keys, rotate, zoom, shift, elastic, elastic_probability), *exposure])
