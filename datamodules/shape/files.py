"""Reading of TIFF, PNG and NPY files with the images, masks and objects of single cells."""

from __future__ import annotations

import logging
import math
import operator
import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from cytovox.errors import InputError

#: Supported file suffixes; a PNG is two-dimensional, so it cannot be an object.
IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".npy")
OBJECT_SUFFIXES = (".tif", ".tiff", ".npy")

#: Largest number of values in one file: 512 along each axis.
MOST_VALUES = 512**3

#: Exceptions of the libraries for damaged files.
_READ_ERRORS = (
    *(tifffile.TiffFileError, Image.DecompressionBombError, OSError, EOFError, ValueError, KeyError, IndexError),
    *(RuntimeError, ArithmeticError, TypeError, SyntaxError, struct.error, zlib.error),
)


def read_array(path: Path) -> np.ndarray:
    """Return the values of one file as stored.

    Parameters
    ----------
    path : Path
        File with the suffix `.tif`, `.tiff`, `.png` or `.npy`.

    Returns
    -------
    array
        (Y, X), (Y, X, 2..4) with colours or an alpha channel, or (Z, Y, X) for objects. Axes of length 1 are removed.

    Raises
    ------
    InputError
        The file is missing, empty, damaged, truncated, too large or a pickle, or has NaN, infinity or no numbers.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty: copy it again")
    if (read := _READERS.get(path.suffix.lower())) is None:
        raise InputError(f"{path}: expected a file that ends in {', '.join(IMAGE_SUFFIXES)}")
    try:
        values = read(path)
    except _READ_ERRORS as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason}): copy it again, or open and save it") from error
    if values.dtype.kind not in "buif" or not values.size:
        raise InputError(f"{path}: has {values.size} values of type {values.dtype}: expected numbers")
    if bad := np.count_nonzero(~np.isfinite(values)):
        raise InputError(f"{path}: {bad} of {values.size} values are NaN or infinite: repair the file or leave it out")
    return values.squeeze()


def _read_tiff(path: Path) -> np.ndarray:
    log = tifffile.logger()
    level = log.level
    log.setLevel(logging.CRITICAL)  # the checks below raise errors for what it would log
    try:
        with tifffile.TiffFile(path) as tiff:
            if not tiff.series:
                raise InputError(f"{path}: has no image")
            series = tiff.series[0]
            _refuse_large(path, series.shape)
            # tifffile replaces missing data by zeros: half of an object in a truncated file would be empty
            for page in series.pages:
                ends = map(operator.add, page.dataoffsets, page.databytecounts) if page else [math.inf]
                if any(end > tiff.filehandle.size for end in ends):
                    raise InputError(f"{path}: the file is cut off: copy it again")
            return np.asarray(series.asarray())
    finally:
        log.setLevel(level)


def _read_png(path: Path) -> np.ndarray:
    with Image.open(path, formats=["PNG"]) as image:
        _refuse_large(path, image.size)
        return np.asarray(image.convert("RGB") if image.mode == "P" else image)


def _read_npy(path: Path) -> np.ndarray:
    header = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(header, np.ndarray):
        raise InputError(f"{path}: has several arrays: expected a .npy file with one")
    _refuse_large(path, header.shape)
    return np.array(header)


def _refuse_large(path: Path, shape: tuple[int, ...]) -> None:
    if int(np.prod(shape, dtype=np.int64)) > MOST_VALUES:
        raise InputError(f"{path}: shape {tuple(shape)} is too large for one cell; cut the cells out first")


_READERS = {".tif": _read_tiff, ".tiff": _read_tiff, ".png": _read_png, ".npy": _read_npy}
