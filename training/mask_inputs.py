"""Tomograms to predict, checked as they are read; their errors are distinguished from errors of the output."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np

from cytovox.errors import InputError
from cytovox.io import ArrayReader, Box, FrameReader, Volume, check_finite
from datamodules.cases import checked_ri

#: Frames of more voxels are read region by region (0.5 GB of float32).
LARGE = 2**27


class UnusableInput(InputError):
    """A file that cannot be predicted; the prediction of the other files continues."""


@contextmanager
def input_errors(path: Path) -> Iterator[None]:
    """Raise errors in reading an input as `UnusableInput` with the name of the file."""
    try:
        yield
    except InputError as error:
        raise UnusableInput(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except OSError as error:
        raise UnusableInput(f"{path}: cannot be read ({error.strerror or error})") from error


class CheckedReader:
    """Reader of one frame; NaN and values that are no refractive index raise `UnusableInput` with file and frame.

    A frame of at most `LARGE` voxels is read and checked as a whole at the first call.
    """

    def __init__(self, volume: Volume, path: Path, t: int) -> None:
        z, y, x = volume.shape[2:]
        self.shape = (z, y, x)
        self._volume, self._path, self._t, self._where = volume, path, t, f"{path}, frame {t}"
        self._whole = math.prod(self.shape) <= LARGE

    @cached_property
    def _reader(self) -> FrameReader:
        if self._whole:
            return ArrayReader(checked_ri(self._volume.frame(self._t), self._where))
        return self._volume.reader(self._t)

    def read(self, box: Box) -> np.ndarray:
        """Return a region (z, y, x); raise `UnusableInput` if it is no refractive index."""
        with input_errors(self._path):
            region_zyx = self._reader.read(box)
            if not self._whole:
                check_finite(region_zyx, self._where, (box[0].start, box[1].start, box[2].start))
                checked_ri(region_zyx, self._where, whole=False)
            return region_zyx
