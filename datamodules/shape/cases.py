"""The files of one cell, read and checked by the rules of `cytovox.preprocess.cell_images`."""

from __future__ import annotations

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
        sizes = f"{sizes_of(mask_YX)}, but its image {files.image} is {sizes_of(image_YX)}"
        errors.append(f"{files.mask}: the mask is {sizes}: give the mask of this image")
    if obj_ZYX is not None and mask_YX is not None and obj_ZYX.shape[1:] != mask_YX.shape:
        sizes = f"{sizes_of(obj_ZYX)}, but its mask {files.mask} is {sizes_of(mask_YX)}"
        errors.append(f"{files.obj}: the object is {sizes}: give the object of this mask")
    if errors or image_YX is None or mask_YX is None:
        raise InputError("\n".join(errors))
    if len(image_YX) != SIDE:
        notes.append(f"resampled to {SIDE} pixels an axis")
    image_YX, mask_YX = resized_image(image_YX), resized_mask(mask_YX[None], files.mask)[0]
    if obj_ZYX is not None:
        obj_ZYX = resized_mask(obj_ZYX, files.obj)
    overlap = None if obj_ZYX is None else iou(mask_YX, obj_ZYX[SLICE])
    return ShapeCell(files.name, files.group, image_YX, mask_YX, obj_ZYX, tuple(notes), overlap)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boolean arrays; 1 where both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def read_image(path: Path, notes: list[str] | None = None) -> np.ndarray:
    """Read a square grey image: float32 (Y, X), 0 to 1."""
    return grey_image(read_array(path), path, notes)


def read_shape_mask(path: Path, notes: list[str] | None = None) -> np.ndarray:
    """Read a square mask: bool (Y, X)."""
    return cell_mask(read_array(path), path, notes)


def read_object(path: Path, notes: list[str] | None = None) -> np.ndarray:
    """Read an object, a cube: bool (Z, Y, X)."""
    return cell_object(read_array(path), path, notes)
