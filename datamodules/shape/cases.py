"""One cell: its image, its mask and its 3D object, read and checked by stated rules.

* A mask or an object of two values is inside where it holds the larger one. Grey levels are taken as inside where they
  are more than half of the type's full scale (> 127 of 8 bits): interpolation has blurred the edges of the published
  cells, and > 0 would make their volumes 10.5 % too large.
* An image is divided by its type's full scale: 255, 65535, or for floats 1, 255 or 65535, whichever holds it.
* A colour image becomes its luminance, 0.299 R + 0.587 G + 0.114 B; a colour mask is refused unless its channels are
  equal. An alpha channel is dropped.
* Squares and cubes of another size than 64 are resampled, faces on faces: images linearly with anti-aliasing, masks
  and objects by the half of a voxel. Anything else is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cytovox.errors import InputError
from cytovox.preprocess.resampling import resize_linear, resize_mask
from cytovox.preprocess.shape_fields import SLICE
from datamodules.fingerprints import cell_fingerprint
from datamodules.shape.files import read_array

#: Length of every axis.
SIDE = 64

#: Smallest share of 16 bits that an image must reach somewhere; below it a note is made.
_DARK = 0.1


@dataclass(frozen=True)
class ShapeFiles:
    """Where one cell lies."""

    name: str
    group: str
    """Its class."""
    image: Path
    mask: Path
    obj: Path | None = None
    split: str | None = None
    """`train` or `test` where the folders say so."""


@dataclass(frozen=True, eq=False)
class ShapeCell:
    """One cell in memory; all axes are 64 long."""

    name: str
    group: str
    """Its class."""
    image_YX: np.ndarray
    """float32, 0 to 1."""
    mask_YX: np.ndarray
    """bool, the cell in the imaged slice, as its own file says."""
    obj_ZYX: np.ndarray | None
    """bool; slice 32 is the imaged one. None for a cell whose shape is to be predicted."""
    notes: tuple[str, ...] = ()
    """What was accepted, but should be said: the same words for every cell it holds for."""
    slice_iou: float | None = None
    """Overlap of the mask with slice 32 of the object, where there is one."""

    @property
    def fingerprint(self) -> str:
        """What weights know the cell by: of its image and mask as they are shown to a network."""
        return cell_fingerprint(self.image_YX, self.mask_YX)


def read_cell(files: ShapeFiles) -> ShapeCell:
    """Read and check one cell.

    Raises
    ------
    InputError
        A file that cannot be read or used; one line for each such file, all at once.
    """
    notes: list[str] = []
    errors: list[str] = []

    def tried(read: Callable[[Path, list[str]], np.ndarray], path: Path) -> np.ndarray | None:
        try:
            return read(path, notes)
        except InputError as error:
            errors.append(str(error))
            return None

    image_YX = tried(read_image, files.image)
    mask_YX = tried(read_shape_mask, files.mask)
    obj_ZYX = None if files.obj is None else tried(read_object, files.obj)
    if image_YX is not None and mask_YX is not None and image_YX.shape != mask_YX.shape:
        sizes = f"{_by(mask_YX)}, but its image {files.image} is {_by(image_YX)}"
        errors.append(f"{files.mask}: the mask is {sizes}: give the mask of this image")
    if obj_ZYX is not None and mask_YX is not None and obj_ZYX.shape[1:] != mask_YX.shape:
        sizes = f"{_by(obj_ZYX)}, but its mask {files.mask} is {_by(mask_YX)}"
        errors.append(f"{files.obj}: the object is {sizes}: give the object of this mask")
    if errors or image_YX is None or mask_YX is None:
        raise InputError("\n".join(errors))
    if len(image_YX) != SIDE:
        notes.append(f"resampled to {SIDE} pixels an axis")
    image_YX, mask_YX = _resized_image(image_YX), _resized_mask(mask_YX[None], files.mask)[0]
    if obj_ZYX is not None:
        obj_ZYX = _resized_mask(obj_ZYX, files.obj)
    overlap = None if obj_ZYX is None else iou(mask_YX, obj_ZYX[SLICE])
    return ShapeCell(files.name, files.group, image_YX, mask_YX, obj_ZYX, tuple(notes), overlap)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boolean arrays; 1 where both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def _by(values: np.ndarray) -> str:
    return " x ".join(map(str, values.shape))


def _resized_image(image_YX: np.ndarray) -> np.ndarray:
    image_CZYX = torch.from_numpy(np.ascontiguousarray(image_YX))[None, None]
    return resize_linear(image_CZYX, (1, SIDE, SIDE))[0, 0].clamp(0, 1).numpy()


def _resized_mask(mask_ZYX: np.ndarray, path: Path | None) -> np.ndarray:
    """A mask is a stack of one slice."""
    depth = 1 if len(mask_ZYX) == 1 else SIDE
    resized_ZYX = resize_mask(mask_ZYX[None], (depth, SIDE, SIDE))[0]
    if not resized_ZYX.any():
        raise InputError(f"{path}: nothing is left of it at {SIDE} voxels an axis: give a cell that is not so thin")
    return resized_ZYX


def read_image(path: Path, notes: list[str] | None = None) -> np.ndarray:
    """A grey image in 0..1, (Y, X) float32, square; by the rules at the head of this file."""
    notes = [] if notes is None else notes
    values = _without_alpha(read_array(path))
    wide = values.dtype == np.uint16
    if values.ndim == 3 and values.shape[-1] == 3:
        if not _is_grey(values):
            notes.append("colour image, taken by its luminance")
        values = _scaled(values, path) @ np.array([0.299, 0.587, 0.114], np.float32)
    elif values.ndim == 2:
        values = _scaled(values, path)
    else:
        raise InputError(f"{path}: an array of {_by(values)}: expected one image (y, x), or one with colours (y, x, 3)")
    if wide and values.max() < _DARK:
        notes.append("16-bit image that uses less than a tenth of its range")
    return _square(np.ascontiguousarray(values, np.float32), path)


def read_shape_mask(path: Path, notes: list[str] | None = None) -> np.ndarray:
    """A mask, (Y, X) bool, square; by the rules at the head of this file."""
    values = _without_alpha(read_array(path))
    if values.ndim == 3 and values.shape[-1] == 3:
        if not _is_grey(values):
            raise InputError(f"{path}: a colour image: expected a mask of two values; save it as grey")
        values = values[..., 0]
    if values.ndim != 2:
        raise InputError(f"{path}: an array of {_by(values)}: expected a mask (y, x)")
    return _square(_inside(values, path, "mask", notes), path)


def read_object(path: Path, notes: list[str] | None = None) -> np.ndarray:
    """An object, (Z, Y, X) bool, a cube; by the rules at the head of this file."""
    values = read_array(path)
    if values.ndim != 3 or len(set(values.shape)) != 1:
        raise InputError(f"{path}: an object of {_by(values)}: expected a cube such as 64 x 64 x 64 (z, y, x)")
    return _inside(values, path, "object", notes)


def _without_alpha(values: np.ndarray) -> np.ndarray:
    if values.ndim == 3 and values.shape[-1] in (2, 4):
        values = values[..., :-1]
    return values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values


def _is_grey(values_YXC: np.ndarray) -> bool:
    return bool((values_YXC == values_YXC[..., :1]).all())


def _square(values_YX: np.ndarray, path: Path) -> np.ndarray:
    if values_YX.shape[0] != values_YX.shape[1]:
        raise InputError(f"{path}: {_by(values_YX)} pixels: expected a square such as 64 x 64; pad it to one")
    return values_YX


def _full_scale(values: np.ndarray, path: Path) -> float:
    """The value that stands for 1."""
    if values.dtype == bool:
        return 1.0
    low, high = float(values.min()), float(values.max())
    if low < 0:
        raise InputError(f"{path}: holds negative values, such as {low:g}: expected 0 to 1, 8 bits or 16 bits")
    if values.dtype in (np.uint8, np.uint16):
        return float(np.iinfo(values.dtype).max)
    scale = next((s for s in (1.0, 255.0, 65535.0) if high <= s), None)
    if scale is None:
        raise InputError(f"{path}: holds values up to {high:g}: expected 0 to 1, 8 bits or 16 bits")
    return scale


def _scaled(values: np.ndarray, path: Path) -> np.ndarray:
    return values.astype(np.float32) / np.float32(_full_scale(values, path))


def _inside(values: np.ndarray, path: Path, what: str, notes: list[str] | None) -> np.ndarray:
    """Where a mask or an object is."""
    half = _full_scale(values, path) / 2
    levels = np.unique(values)
    if len(levels) == 1 and levels[0] == 0:
        raise InputError(f"{path}: the {what} is empty: draw the cell, or leave it out")
    if len(levels) == 1:
        raise InputError(f"{path}: the {what} fills all of its frame: expected a cell with some background around it")
    if len(levels) == 2:
        return values > levels[0]
    inside = values > half
    if not inside.any():
        raise InputError(
            f"{path}: the {what} holds grey levels up to {levels[-1]:g}, and nothing above {half:g}, half of its "
            "type's full scale: save it with two values"
        )
    if notes is not None:
        notes.append(f"grey levels in the {what}, taken as inside above half of the full scale")
    return inside
