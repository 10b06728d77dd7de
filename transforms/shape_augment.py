"""Turning an image, its mask and its 3D object together: what is done to one is done to all."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform, Randomizable
from torch.nn.functional import grid_sample, interpolate

from cytovox.errors import InputError
from cytovox.preprocess.shape_fields import SLICE

#: Key of the object's signed distances, where a model learns from them.
DISTANCE = "distance"

#: Nodes an axis of the elastic deformation: neighbours are 16 pixels apart, half a cell.
_NODES = 5


@dataclass(frozen=True)
class AugmentationParams:
    """One draw: output pixel o shows the source at `middle + rotation(flip * (o - middle - shift)) / zoom`."""

    angle: float = 0.0
    """About z, in radian."""
    flip: tuple[bool, bool, bool] = (False, False, False)
    """Mirrored along z (about slice 32), y, x (about the middle of the image)."""
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
    """The same turn with zoom and shift reduced until the turned cell lies within its frame.

    A cell cut off by the frame would teach a network that cells end in flat walls. A cell too large for its frame at
    this angle is shrunk to fit. The elastic deformation is not counted: it may move an edge by its own few pixels.

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
    matrix = torch.linalg.inv(_matrix(params) * params.zoom)  # where the points of the source come to lie, at zoom 1
    moved_2N = matrix @ points_2N
    low, high = moved_2N.amin(1) - 0.5, moved_2N.amax(1) + 0.5
    slices = torch.nonzero(obj_ZYX.amax((1, 2)) > 0).flatten()
    away = float((slices - SLICE).abs().max()) if len(slices) else 0.0
    fits = min(2 * half / float((high - low).max()), (half - 1) / max(away, 1e-6))
    zoom = min(params.zoom, max(fits, 0.5))
    room = [(-half - zoom * float(a), half - zoom * float(b)) for a, b in zip(low, high, strict=True)]
    y, x = (min(max(s, a), b) if a < b else (a + b) / 2 for s, (a, b) in zip(params.shift_YX, room, strict=True))
    return AugmentationParams(params.angle, params.flip, zoom, (y, x), params.elastic_KK2)


def _matrix(params: AugmentationParams) -> torch.Tensor:
    """Offset from the middle (y, x) in the output -> in the source, (2, 2) float64."""
    cos, sin = np.cos(params.angle), np.sin(params.angle)
    rotation = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    mirror = torch.tensor([-1.0 if f else 1.0 for f in params.flip[1:]], dtype=torch.float64)
    return rotation * mirror / params.zoom


def _plane_grid(params: AugmentationParams, side: int) -> torch.Tensor:
    """Where each output pixel is read, as `grid_sample` wants it: (1, Y, X, 2), x before y, -1..1 between faces."""
    half = side / 2
    axis = torch.arange(side, dtype=torch.float64) - (half - 0.5)
    y, x = axis[:, None] - params.shift_YX[0], axis[None, :] - params.shift_YX[1]
    (yy, yx), (xy, xx) = _matrix(params).tolist()
    grid_YX2 = torch.stack([xy * y + xx * x, yy * y + yx * x], dim=-1).float() / half
    if params.elastic_KK2 is not None:
        nodes = torch.from_numpy(np.ascontiguousarray(params.elastic_KK2, dtype=np.float32)).permute(2, 0, 1)[None]
        smooth = interpolate(nodes, size=(side, side), mode="bicubic", align_corners=True)
        grid_YX2 = grid_YX2 + smooth[0].permute(1, 2, 0) / half
    return grid_YX2[None]


def _along_z(obj_ZYX: torch.Tensor, params: AugmentationParams, border: bool = False) -> torch.Tensor:
    """Mirror and zoom along z about slice 32, which is copied as it is.

    What comes from outside is empty, or as the outermost slice with `border`.
    """
    if not params.flip[0] and params.zoom == 1:
        return obj_ZYX
    depth = len(obj_ZYX)
    step = torch.arange(depth, dtype=torch.float64) - SLICE
    source = SLICE + (-step if params.flip[0] else step) / params.zoom
    if border:
        source = source.clamp(0, depth - 1)
    # linear interpolation as a matrix: row z holds the weights of the source slices; row 32 is exactly one of them
    weights_ZZ = (1 - (source[:, None] - torch.arange(depth)).abs()).clamp_(min=0).float()
    return (weights_ZZ @ obj_ZYX.reshape(depth, -1)).reshape(obj_ZYX.shape)


def apply_augmentation(
    params: AugmentationParams, image_YX: torch.Tensor, mask_YX: torch.Tensor, obj_ZYX: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Turn image, mask and object by the same grid.

    Mask and object are interpolated as shares of a pixel and taken as inside from one half on: nearest neighbours
    can lose a wall that is a voxel thin. The mask goes the very way of slice 32: if the two were equal, they stay
    equal, bit by bit. Beyond the border the image goes on as its outermost pixels, and there is no cell.

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
    warped_CYX = grid_sample(stack_CYX[None], grid, "bilinear", "zeros", align_corners=False)[0]
    inside_CYX = warped_CYX.ge_(0.5 - 1e-4)  # a mirror image is whole in spite of float32 coordinates
    image = grid_sample(image_YX[None, None], grid, "bilinear", "border", align_corners=False)[0, 0]
    return image, inside_CYX[-1], inside_CYX[:-1]


def augment_distance(params: AugmentationParams, distance_ZYX: torch.Tensor) -> torch.Tensor:
    """Turn a field of signed distances as `apply_augmentation` turns its object; they grow with the cell.

    Parameters
    ----------
    params : AugmentationParams
    distance_ZYX : float32 tensor
        In voxels, positive inside.

    Returns
    -------
    float32 tensor, (Z, Y, X)
        In voxels; exact for turns, mirrors and shifts, and about right where the plane is bent.
    """
    if params.is_identity:
        return distance_ZYX
    grid = _plane_grid(params, distance_ZYX.shape[-1])
    stack_ZYX = _along_z(distance_ZYX, params, border=True)
    return grid_sample(stack_ZYX[None], grid, "bilinear", "border", align_corners=False)[0] * params.zoom


class RandShaped(Randomizable, MapTransform):
    """Random turns of a cell about the microscope's axis, and of its image's brightness.

    About z any angle, mirror images along all three axes (z about slice 32), a small zoom of all three axes, a small
    shift in the plane and, if wanted, a smooth elastic deformation in the plane. The cell stays within its frame (see
    `keep_inside`). z is never exchanged with y or x: a slice along the optical axis looks different. SHAPR's published
    augmentation turned about the wrong axes, so that mask and object no longer belonged together.

    Parameters
    ----------
    keys : three str
        Image, mask and object: float32 arrays or tensors (1, Y, X), (1, Y, X) and (1, Z, Y, X). Where there is a
        fourth, `distance`, the signed distances of the object (1, Z, Y, X), it is turned with them.
    rotate, flip, flip_z : bool
        Whether cells are turned, mirrored in y and x, and in z. Cells that lie on a slide have an upper side: leave z.
    zoom : (low, high)
        Range of the magnification.
    shift : float
        Largest shift in pixels, in y and in x.
    elastic : float
        Deviation in pixels of the displacement at nodes 16 pixels apart; 0 leaves it out.
    elastic_probability : float
        How often.
    intensity_scale, intensity_offset, noise : float
        The image is multiplied by 1 +- scale, lifted by +- offset, and gets noise of a deviation between 0 and
        `noise`; then clipped to 0..1.
    mirror_yz : float
        Chance of a mirror image along y, and apart from it of one along z about slice 32. DISPR's loader defines it
        with one third, and does not call it.
    """

    def __init__(
        self,
        keys: Sequence[str] = ("image", "mask", "obj"),
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
    ) -> None:
        super().__init__(tuple(keys))
        if len(self.keys) != 3:
            raise InputError(f"shape augmentation: keys {self.keys}: expected the names of image, mask and object")
        if not 0 < zoom[0] <= zoom[1]:
            raise InputError(f"shape augmentation: zoom {zoom}: expected a range such as (0.9, 1.1)")
        self.rotate, self.flip, self.flip_z, self.zoom, self.shift = rotate, flip, flip_z, zoom, shift
        self.elastic, self.elastic_probability = elastic, elastic_probability
        self.intensity_scale, self.intensity_offset, self.noise = intensity_scale, intensity_offset, noise
        self.mirror_yz = mirror_yz
        self.params = AugmentationParams()

    def randomize(self, data: Any = None) -> None:
        """Draw the turn of the next call."""
        angle, zoom = self.R.uniform(-np.pi, np.pi), self.R.uniform(*self.zoom)
        z, y, x = (bool(f) for f in self.R.random(3) < 0.5)
        shift_y, shift_x = self.R.uniform(-self.shift, self.shift, 2)
        bent = self.R.random() < self.elastic_probability and self.elastic > 0
        # drawn last but for the bend, and only if asked for: other draws stay what they are without it
        again_z, again_y = (self.R.random(2) < self.mirror_yz).tolist() if self.mirror_yz > 0 else (False, False)
        self.params = AugmentationParams(
            angle=float(angle) if self.rotate else 0.0,
            flip=((z and self.flip_z) != again_z, (y and self.flip) != again_y, x and self.flip),
            zoom=float(zoom),
            shift_YX=(float(shift_y), float(shift_x)),
            elastic_KK2=self.R.normal(scale=self.elastic, size=(_NODES, _NODES, 2)) if bent else None,
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        image_YX, mask_YX, obj_ZYX = (torch.as_tensor(result[key])[0].float() for key in self.keys)
        self.randomize()
        if not self.params.is_identity:  # a cell that reaches the frame's border stays as it is, unless it is turned
            self.params = keep_inside(self.params, mask_YX, obj_ZYX)
        image_YX, mask_YX, obj_ZYX = apply_augmentation(self.params, image_YX, mask_YX, obj_ZYX)
        turned = (self._expose(image_YX), mask_YX, obj_ZYX)
        for key, value in zip(self.keys, turned, strict=True):
            result[key] = value[None].contiguous()
        if DISTANCE in result:
            distance_ZYX = torch.as_tensor(result[DISTANCE])[0].float()
            result[DISTANCE] = augment_distance(self.params, distance_ZYX)[None].contiguous()
        return result

    def _expose(self, image_YX: torch.Tensor) -> torch.Tensor:
        """Another exposure of the same cell."""
        scale, offset, noise = self.R.uniform(-1, 1), self.R.uniform(-1, 1), self.R.random()
        image_YX = image_YX * (1 + float(scale) * self.intensity_scale) + float(offset) * self.intensity_offset
        if self.noise > 0:
            grain = self.R.standard_normal(tuple(image_YX.shape)).astype(np.float32)
            image_YX = image_YX + torch.from_numpy(grain) * (float(noise) * self.noise)
        return image_YX.clamp(0, 1)
