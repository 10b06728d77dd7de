"""Tomograms to be predicted, checked as they are read; their errors are kept apart from errors in writing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cytovox.errors import InputError
from cytovox.io import ArrayReader, Box, FrameReader, Volume, check_finite
from datamodules.cases import checked_ri

#: Frames of more voxels are read region by region (0.5 GB of float32).
LARGE = 2**27


class UnusableInput(InputError):
    """A file that cannot be predicted; the others can."""


@contextmanager
def told_of_input(path: Path) -> Iterator[None]:
    """Tell errors of an input from those of the disk that the masks are written to."""
    try:
        yield
    except InputError as error:
        raise UnusableInput(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except OSError as error:
        raise UnusableInput(f"{path}: cannot be read ({error.strerror or error})") from error


class CheckedReader:
    """A frame that is checked as it is read: NaN and values that are no refractive index raise, with file and frame.

    One that fits into memory is read at the first call, and looked at as a whole before anything is computed.
    """

    def __init__(self, volume: Volume, path: Path, t: int) -> None:
        z, y, x = volume.shape[2:]
        self.shape = (z, y, x)
        self._volume, self._path, self._t, self._where = volume, path, t, f"{path}, frame {t}"
        self._reader: FrameReader | None = None
        self._whole = math.prod(self.shape) <= LARGE

    def read(self, box: Box) -> np.ndarray:
        """A region; UnusableInput where it holds no refractive index."""
        with told_of_input(self._path):
            if self._reader is None:
                volume, t = self._volume, self._t
                self._reader = (
                    ArrayReader(checked_ri(volume.frame(t), self._where)) if self._whole else volume.reader(t)
                )
            region_zyx = self._reader.read(box)
            if not self._whole:
                check_finite(region_zyx, self._where, (box[0].start, box[1].start, box[2].start))
                checked_ri(region_zyx, self._where, whole=False)
            return region_zyx

    def _open(self) -> FrameReader:
        if self._whole:
            return ArrayReader(checked_ri(self._volume.frame(self._t), self._where))
        return self._volume.reader(self._t)
