"""Small arrays from TIFF, PNG and NPY files: the images, masks and objects of single cells."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from cytovox.errors import InputError

#: Endings of files that are read; a two-dimensional PNG holds no object.
IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".npy")
OBJECT_SUFFIXES = (".tif", ".tiff", ".npy")

#: Values of the largest array that one cell may have: 512 an axis.
MOST_VALUES = 512**3

_FAULTS = (
    *(tifffile.TiffFileError, Image.DecompressionBombError, OSError, EOFError, ValueError, KeyError, IndexError),
    *(RuntimeError, ArithmeticError, TypeError, SyntaxError, struct.error, zlib.error),
)


def read_array(path: Path) -> np.ndarray:
    """The values of one file, as they are stored.

    Parameters
    ----------
    path : Path
        `.tif`, `.tiff`, `.png` or `.npy`.

    Returns
    -------
    array
        (Y, X), (Y, X, 2..4) for colours or an alpha channel, (Z, Y, X) for objects. Axes of length 1 are dropped.

    Raises
    ------
    InputError
        Missing, empty, damaged, cut off, too large, a pickle, NaN or infinity, or no numbers.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty: copy it again")
    try:
        values = _READERS[path.suffix.lower()](path)
    except KeyError:
        raise InputError(f"{path}: expected a file that ends in {', '.join(IMAGE_SUFFIXES)}") from None
    except InputError:
        raise
    except _FAULTS as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason}): copy it again, or save it anew") from error
    if values.dtype.kind not in "buif" or not values.size:
        raise InputError(f"{path}: holds {values.size} values of type {values.dtype}: expected numbers")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int(np.count_nonzero(~np.isfinite(values)))
        raise InputError(
            f"{path}: {count} of {values.size} values are NaN or infinite: repair the file or leave it out"
        )
    return values.squeeze()


def _read_tiff(path: Path) -> np.ndarray:
    log = tifffile.logger()
    level = log.level
    log.setLevel(logging.CRITICAL)  # what it would log, the checks below say as a fault
    try:
        with tifffile.TiffFile(path) as tiff:
            if not tiff.series:
                raise InputError(f"{path}: holds no image")
            series = tiff.series[0]
            _refuse_large(path, series.shape)
            # tifffile fills what is missing with zeros: a cut-off object would end in an empty half
            size = tiff.filehandle.size
            for page in series.pages:
                ends = (
                    [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)] if page else [size + 1]
                )
                if any(end > size for end in ends):
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
        raise InputError(f"{path}: holds several arrays: expected a .npy file of one")
    _refuse_large(path, header.shape)
    return np.array(header)


def _refuse_large(path: Path, shape: tuple[int, ...]) -> None:
    if int(np.prod(shape, dtype=np.int64)) > MOST_VALUES:
        raise InputError(f"{path}: of shape {tuple(shape)}: too large for one cell; cut the cells out first")


_READERS = {".tif": _read_tiff, ".tiff": _read_tiff, ".png": _read_png, ".npy": _read_npy}
