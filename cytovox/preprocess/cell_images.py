"""Convert the image, mask and object of one cell to the input of a shape network.

* A mask or object with two values is True at the larger one. With more grey levels it is True above half of the type's
  full scale (> 127 of 8 bits): interpolation has blurred the edges of the published cells, and > 0 would make their
  volumes 10.5 % too large.
* An image is divided by its type's full scale: 255, 65535, or for floats the smallest of 1, 255 and 65535 that is not
  exceeded.
* A colour image becomes its luminance, 0.299 R + 0.587 G + 0.114 B; a colour mask is refused unless its channels are
  equal. An alpha channel is dropped.
* Squares and cubes of another size than 64 are resampled with coinciding outer faces: images linearly with
  anti-aliasing, masks and objects at a share of half a voxel. Other shapes are refused.
"""

import numpy as np
import torch

from cytovox.errors import InputError
from cytovox.preprocess.resampling import resize_linear, resize_mask

#: Length of every axis in voxels.
SIDE = 64

#: A 16-bit image whose largest value is below this share of the range is reported.
_DARK = 0.1


def sizes_of(values: np.ndarray) -> str:
    """Return the lengths of the axes, such as 64 x 64."""
    return " x ".join(map(str, values.shape))


def resized_image(image_YX: np.ndarray) -> np.ndarray:
    """Return the image at 64 x 64 pixels: float32 array, 0 to 1."""
    image_CZYX = torch.from_numpy(np.ascontiguousarray(image_YX))[None, None]
    return resize_linear(image_CZYX, (1, SIDE, SIDE))[0, 0].clamp(0, 1).numpy()


def resized_mask(mask_ZYX: np.ndarray, where: object) -> np.ndarray:
    """Return the object at 64 voxels per axis; a mask is an object of one slice.

    Raises
    ------
    InputError
        The resampled object is empty.
    """
    resized_ZYX = resize_mask(mask_ZYX[None], (1 if len(mask_ZYX) == 1 else SIDE, SIDE, SIDE))[0]
    if not resized_ZYX.any():
        raise InputError(f"{where}: empty after resampling to {SIDE} voxels per axis: the cell is too thin")
    return resized_ZYX


def grey_image(values: np.ndarray, where: object, notes: list[str] | None = None) -> np.ndarray:
    """Return a grey image, float32 (Y, X), 0 to 1, by the rules of this module.

    Parameters
    ----------
    values : array
        (Y, X), or (Y, X, C) with colours or an alpha channel.
    where : object
        Name of the file, for messages.
    notes : list of str, optional
        List to which a line is appended for each accepted deviation.

    Raises
    ------
    InputError
        The image is not square, or the scale of its values is unknown.
    """
    notes = [] if notes is None else notes
    values = _without_alpha(values)
    if values.ndim != 2 and (values.ndim != 3 or values.shape[-1] != 3):
        raise InputError(
            f"{where}: an array of {sizes_of(values)}: expected one image (y, x), or one with colours (y, x, 3)"
        )
    if values.ndim == 3 and not _is_grey(values):
        notes.append("colour image, taken by its luminance")
    image = values.astype(np.float32) / np.float32(_full_scale(values, where))
    if values.ndim == 3:
        image = image @ np.array([0.299, 0.587, 0.114], np.float32)
    if values.dtype == np.uint16 and image.max() < _DARK:
        notes.append("16-bit image that uses less than a tenth of its range")
    return _square(np.ascontiguousarray(image, np.float32), where)


def cell_mask(values: np.ndarray, where: object, notes: list[str] | None = None) -> np.ndarray:
    """Return a mask, bool (Y, X), by the rules of this module; parameters and errors as in `grey_image`."""
    values = _without_alpha(values)
    if values.ndim == 3 and values.shape[-1] == 3:
        if not _is_grey(values):
            raise InputError(f"{where}: a colour image: expected a mask of two values; save it as grey")
        values = values[..., 0]
    if values.ndim != 2:
        raise InputError(f"{where}: an array of {sizes_of(values)}: expected a mask (y, x)")
    return _square(_inside(values, where, "mask", notes), where)


def cell_object(values: np.ndarray, where: object, notes: list[str] | None = None) -> np.ndarray:
    """Return an object, bool (Z, Y, X), a cube, by the rules of this module; parameters as in `grey_image`."""
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
    """Return the value that is mapped to 1."""
    if values.dtype in (np.uint8, np.uint16):
        return float(np.iinfo(values.dtype).max)
    low, high = float(values.min()), float(values.max())
    scale = next((s for s in (1.0, 255.0, 65535.0) if high <= s), None)
    if low < 0 or scale is None:
        found = f"negative values, such as {low:g}" if low < 0 else f"values up to {high:g}"
        raise InputError(f"{where}: holds {found}: expected 0 to 1, 8 bits or 16 bits")
    return scale


def _inside(values: np.ndarray, where: object, what: str, notes: list[str] | None) -> np.ndarray:
    """Return the voxels inside a mask or an object, bool."""
    half = _full_scale(values, where) / 2
    levels = np.unique(values)
    if len(levels) == 1:
        empty = "is empty: draw the cell, or leave it out"
        full = "fills all of its frame: expected a cell with some background around it"
        raise InputError(f"{where}: the {what} {empty if levels[0] == 0 else full}")
    if len(levels) == 2:
        return values > levels[0]
    if levels[-1] <= half:
        raise InputError(
            f"{where}: the {what} holds grey levels up to {levels[-1]:g}, and nothing above {half:g}, half of its "
            "type's full scale: save it with two values"
        )
    if notes is not None:
        notes.append(f"grey levels in the {what}, taken as inside above half of the full scale")
    return values > half
