"""The image, mask and object of one cell as a shape network takes them.

* A mask or an object of two values is inside where it holds the larger one. Grey levels are inside where they are more
  than half of the type's full scale (> 127 of 8 bits): interpolation has blurred the edges of the published cells, and
  > 0 would make their volumes 10.5 % too large.
* An image is divided by its type's full scale: 255, 65535, or for floats 1, 255 or 65535, whichever holds it.
* A colour image becomes its luminance, 0.299 R + 0.587 G + 0.114 B; a colour mask is refused unless its channels are
  equal. An alpha channel is dropped.
* Squares and cubes of another size than 64 are resampled, faces on faces: images linearly with anti-aliasing, masks
  and objects by the half of a voxel. Anything else is refused.
"""

import numpy as np
import torch

from cytovox.errors import InputError
from cytovox.preprocess.resampling import resize_linear, resize_mask

#: Length of every axis in voxels.
SIDE = 64

#: A 16-bit image whose largest value is below this share of the range is noted.
_DARK = 0.1


def sizes_of(values: np.ndarray) -> str:
    """Return the lengths of the axes, such as 64 x 64."""
    return " x ".join(map(str, values.shape))


def resized_image(image_YX: np.ndarray) -> np.ndarray:
    """Return the image at 64 x 64 pixels: float32 array, 0 to 1."""
    image_CZYX = torch.from_numpy(np.ascontiguousarray(image_YX))[None, None]
    return resize_linear(image_CZYX, (1, SIDE, SIDE))[0, 0].clamp(0, 1).numpy()


def resized_mask(mask_ZYX: np.ndarray, where: object) -> np.ndarray:
    """Return the object at 64 voxels an axis; a mask is an object of one slice.

    Raises
    ------
    InputError
        Nothing is left of it.
    """
    depth = 1 if len(mask_ZYX) == 1 else SIDE
    resized_ZYX = resize_mask(mask_ZYX[None], (depth, SIDE, SIDE))[0]
    if not resized_ZYX.any():
        raise InputError(f"{where}: nothing is left of it at {SIDE} voxels an axis: give a cell that is not so thin")
    return resized_ZYX


def grey_image(values: np.ndarray, where: object, notes: list[str] | None = None) -> np.ndarray:
    """Return a grey image, float32 (Y, X), 0 to 1, by the rules at the head of this file.

    Parameters
    ----------
    values : array
        (Y, X), or (Y, X, C) with colours or an alpha channel.
    where : object
        Named in messages: the file.
    notes : list of str, optional
        Gets a line for each thing that was accepted and should be reported.

    Raises
    ------
    InputError
        No square image, or values of no known scale.
    """
    notes = [] if notes is None else notes
    values = _without_alpha(values)
    wide = values.dtype == np.uint16
    if values.ndim == 3 and values.shape[-1] == 3:
        if not _is_grey(values):
            notes.append("colour image, taken by its luminance")
        values = _scaled(values, where) @ np.array([0.299, 0.587, 0.114], np.float32)
    elif values.ndim == 2:
        values = _scaled(values, where)
    else:
        raise InputError(
            f"{where}: an array of {sizes_of(values)}: expected one image (y, x), or one with colours (y, x, 3)"
        )
    if wide and values.max() < _DARK:
        notes.append("16-bit image that uses less than a tenth of its range")
    return _square(np.ascontiguousarray(values, np.float32), where)


def cell_mask(values: np.ndarray, where: object, notes: list[str] | None = None) -> np.ndarray:
    """Return a mask, bool (Y, X), by the rules at the head of this file; parameters and errors as of `grey_image`."""
    values = _without_alpha(values)
    if values.ndim == 3 and values.shape[-1] == 3:
        if not _is_grey(values):
            raise InputError(f"{where}: a colour image: expected a mask of two values; save it as grey")
        values = values[..., 0]
    if values.ndim != 2:
        raise InputError(f"{where}: an array of {sizes_of(values)}: expected a mask (y, x)")
    return _square(_inside(values, where, "mask", notes), where)


def cell_object(values: np.ndarray, where: object, notes: list[str] | None = None) -> np.ndarray:
    """Return an object, bool (Z, Y, X), a cube, by the rules at the head of this file; errors as of `grey_image`."""
    if values.ndim != 3 or len(set(values.shape)) != 1:
        raise InputError(f"{where}: an object of {sizes_of(values)}: expected a cube such as 64 x 64 x 64 (z, y, x)")
    return _inside(values, where, "object", notes)


def _without_alpha(values: np.ndarray) -> np.ndarray:
    if values.ndim == 3 and values.shape[-1] in (2, 4):
        values = values[..., :-1]
    return values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values


def _is_grey(values_YXC: np.ndarray) -> bool:
    return bool((values_YXC == values_YXC[..., :1]).all())


def _square(values_YX: np.ndarray, where: object) -> np.ndarray:
    if values_YX.shape[0] != values_YX.shape[1]:
        raise InputError(f"{where}: {sizes_of(values_YX)} pixels: expected a square such as 64 x 64; pad it to one")
    return values_YX


def _full_scale(values: np.ndarray, where: object) -> float:
    """The value that stands for 1."""
    if values.dtype == bool:
        return 1.0
    low, high = float(values.min()), float(values.max())
    if low < 0:
        raise InputError(f"{where}: holds negative values, such as {low:g}: expected 0 to 1, 8 bits or 16 bits")
    if values.dtype in (np.uint8, np.uint16):
        return float(np.iinfo(values.dtype).max)
    scale = next((s for s in (1.0, 255.0, 65535.0) if high <= s), None)
    if scale is None:
        raise InputError(f"{where}: holds values up to {high:g}: expected 0 to 1, 8 bits or 16 bits")
    return scale


def _scaled(values: np.ndarray, where: object) -> np.ndarray:
    return values.astype(np.float32) / np.float32(_full_scale(values, where))


def _inside(values: np.ndarray, where: object, what: str, notes: list[str] | None) -> np.ndarray:
    """Where a mask or an object is."""
    half = _full_scale(values, where) / 2
    levels = np.unique(values)
    if len(levels) == 1 and levels[0] == 0:
        raise InputError(f"{where}: the {what} is empty: draw the cell, or leave it out")
    if len(levels) == 1:
        raise InputError(f"{where}: the {what} fills all of its frame: expected a cell with some background around it")
    if len(levels) == 2:
        return values > levels[0]
    inside = values > half
    if not inside.any():
        raise InputError(
            f"{where}: the {what} holds grey levels up to {levels[-1]:g}, and nothing above {half:g}, half of its "
            "type's full scale: save it with two values"
        )
    if notes is not None:
        notes.append(f"grey levels in the {what}, taken as inside above half of the full scale")
    return inside
