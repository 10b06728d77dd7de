"""Single cells, read from files and checked by the rules of `cytovox.preprocess.cell_images`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cytovox.errors import InputError
from cytovox.preprocess.cell_images import (
    SIDE,
    cell_mask,
    cell_object,
    grey_image,
    resized_image,
    resized_mask,
    sizes_of,
)
from cytovox.preprocess.shape_fields import SLICE
from datamodules.fingerprints import cell_fingerprint
from datamodules.shape.files import read_array


@dataclass(frozen=True)
class ShapeFiles:
    """Files of one cell."""

    name: str
    group: str
    """Class of the cell."""
    image: Path
    mask: Path
    obj: Path | None = None
    split: str | None = None
    """`train` or `test` if the folders are divided."""


@dataclass(frozen=True, eq=False)
class ShapeCell:
    """One cell in memory; all axes are 64 long."""

    name: str
    group: str
    """Class of the cell."""
    image_YX: np.ndarray
    """float32, 0 to 1."""
    mask_YX: np.ndarray
    """bool, the cell in the imaged slice, from the mask file."""
    obj_ZYX: np.ndarray | None
    """bool; slice 32 is the imaged slice. None for a cell whose shape is to be predicted."""
    notes: tuple[str, ...] = ()
    """Notes on the files: what was accepted but should be reported; identical text for all cells concerned."""
    slice_iou: float | None = None
    """IoU of the mask and slice 32 of the object; None without an object."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of image and mask at 64 pixels; checkpoints record those of their training cells."""
        return cell_fingerprint(self.image_YX, self.mask_YX)


def read_cell(files: ShapeFiles) -> ShapeCell:
    """Return one cell, checked.

    Raises
    ------
    InputError
        Files cannot be read or used; one line per file.
    """
    notes: list[str] = []
    errors: list[str] = []

    def read(check: Callable[[np.ndarray, object, list[str]], np.ndarray], path: Path) -> np.ndarray | None:
        try:
            return check(read_array(path), path, notes)
        except InputError as error:
            errors.append(str(error))
            return None

    image_YX = read(grey_image, files.image)
    mask_YX = read(cell_mask, files.mask)
    obj_ZYX = None if files.obj is None else read(cell_object, files.obj)
    arrays = [("image", files.image, image_YX), ("mask", files.mask, mask_YX), ("object", files.obj, obj_ZYX)]
    for (other, other_path, expected), (what, path, values) in itertools.pairwise(arrays):
        if values is not None and expected is not None and values.shape[-2:] != expected.shape:
            sizes = f"{sizes_of(values)}, but its {other} {other_path} is {sizes_of(expected)}"
            errors.append(f"{path}: the {what} is {sizes}: give the {what} of this {other}")
    if errors or image_YX is None or mask_YX is None:
        raise InputError("\n".join(errors))
    if len(image_YX) != SIDE:
        notes.append(f"resampled to {SIDE} pixels an axis")
    image_YX, mask_YX = resized_image(image_YX), resized_mask(mask_YX[None], files.mask)[0]
    if obj_ZYX is not None:
        obj_ZYX = resized_mask(obj_ZYX, files.obj)
    slice_iou = None if obj_ZYX is None else _iou(mask_YX, obj_ZYX[SLICE])
    return ShapeCell(files.name, files.group, image_YX, mask_YX, obj_ZYX, tuple(notes), slice_iou)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return the intersection over union of two boolean arrays, at least one of which is not empty."""
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)
