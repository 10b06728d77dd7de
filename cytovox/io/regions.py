"""Read frames region by region, so that a frame can be larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import product
from typing import Protocol, TypeVar

import numpy as np

from cytovox.io.values import in_ri_units, ri_scale

#: A region along z, y, x, inside the frame: slices with a start and a stop, and without a step.
Box = tuple[slice, slice, slice]
Shape = tuple[int, int, int]
Result = TypeVar("Result")

#: Edge in voxels of the blocks that determine how a file stores its refractive index.
_BLOCK = (16, 128, 128)


class FrameReader(Protocol):
    """One frame of one channel."""

    @property
    def shape(self) -> Shape:
        """(Z, Y, X)."""
        ...

    def read(self, box: Box) -> np.ndarray:
        """Return a region as a float32 array, C-contiguous. It may be a view of shared data: do not write to it."""
        ...


class ArrayReader:
    """Regions of an array in memory.

    Parameters
    ----------
    array_ZYX : array, (Z, Y, X)
        Array of any numeric type.
    """

    def __init__(self, array_ZYX: np.ndarray) -> None:
        self.array_ZYX = array_ZYX

    @property
    def shape(self) -> Shape:
        z, y, x = self.array_ZYX.shape
        return z, y, x

    def read(self, box: Box) -> np.ndarray:
        return np.ascontiguousarray(self.array_ZYX[box], dtype=np.float32)


class _Frames(Protocol):
    @property
    def shape(self) -> tuple[int, int, int, int, int]: ...

    def read(self, t: int, c: int) -> np.ndarray: ...


class CachedReader:
    """Regions of a frame that can only be read as a whole; it is read at the first call and kept in memory.

    Parameters
    ----------
    frames : Frames
        Frames of the file.
    t, c : int
        Frame and channel.
    """

    def __init__(self, frames: _Frames, t: int, c: int) -> None:
        self._frames, self._t, self._c = frames, t, c

    @property
    def shape(self) -> Shape:
        return self._frames.shape[2:]

    @cached_property
    def _whole(self) -> ArrayReader:
        return ArrayReader(np.asarray(self._frames.read(self._t, self._c), dtype=np.float32))

    def read(self, box: Box) -> np.ndarray:
        return self._whole.read(box)


class StoredReader:
    """Regions of a file that may store a refractive index times 10 000 or times 1000.

    The scale is determined once for all regions (see `ri_scale`), from the first block of voxels that are not all 0.
    The block in the middle is examined first. For a refractive index, any block gives the same scale as the whole
    frame.

    Parameters
    ----------
    shape : (Z, Y, X)
    stored : callable
        Function that returns the stored voxels of a box (z, y, x).
    is_ri : bool
        Whether the voxels are a refractive index; other voxels are not scaled.
    """

    def __init__(self, shape: Shape, stored: Callable[[Box], np.ndarray], is_ri: bool) -> None:
        self.shape, self._stored, self._is_ri = shape, stored, is_ri

    @cached_property
    def _scale(self) -> float:
        return (first_result(self.shape, lambda box: ri_scale(self._stored(box))) if self._is_ri else None) or 1.0

    def read(self, box: Box) -> np.ndarray:
        return np.ascontiguousarray(in_ri_units(self._stored(box), self._scale))


def first_result(shape: Shape, tell: Callable[[Box], Result | None]) -> Result | None:
    """Return the first result that is not None, starting with the middle block; None if there is none."""
    boxes = list(grid_boxes(shape, _BLOCK))
    middle = len(boxes) // 2
    return next((found for box in boxes[middle:] + boxes[:middle] if (found := tell(box)) is not None), None)


def grid_boxes(shape: Sequence[int], size: Sequence[int]) -> Iterator[Box]:
    """Yield the boxes of a regular grid that starts at 0 and covers a frame once; boxes at the end may be smaller.

    Parameters
    ----------
    shape : (Z, Y, X)
        Shape of the frame.
    size : (z, y, x)
        Size of a box.
    """
    axes = [
        [slice(start, min(start + step, end)) for start in range(0, end, step)]
        for end, step in zip(shape, size, strict=True)
    ]
    yield from product(*axes)
