"""Check the voxels and metadata that are written to an image file."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np


def stored_dtype(dtype: Any) -> np.dtype:
    """Return the type in which voxels are stored: uint8 for bool, else the type itself."""
    return np.dtype(np.uint8) if np.dtype(dtype) == bool else np.dtype(dtype)


def check_image_shape(
    shape: Sequence[int], channels: Sequence[str], times_s: Sequence[float] | None
) -> tuple[int, int, int, int, int]:
    """Return a shape (T, C, Z, Y, X); ValueError if it differs from the number of channels or of times."""
    full = tuple(int(n) for n in shape)
    if len(full) != 5 or len(channels) != full[1] or (times_s is not None and len(times_s) != full[0]):
        raise ValueError(f"shape {full}, {len(channels)} channels, times {times_s}: expected (T, C, Z, Y, X), one each")
    return full


def iterate_volumes(
    data: np.ndarray | Iterable[np.ndarray], shape: Sequence[int] | None, times_s: Sequence[float] | None
) -> tuple[tuple[int, ...], np.dtype, Iterator[np.ndarray]]:
    """Return the shape and type of an image, and an iterator over its volumes (Z, Y, X) in the order of t, c.

    Parameters
    ----------
    data : array (T, C, Z, Y, X), or iterable of (C, Z, Y, X)
        Data of the image. The iterator takes one frame at a time from an iterable. It raises ValueError for a frame of
        another shape, and for too many or too few frames.
    shape : (T, C, Z, Y, X), optional
        Shape of an iterable; without it, T is the number of `times_s`.
    times_s : sequence of float, optional

    Raises
    ------
    ValueError
        An iterable without `shape` and `times_s`.
    """
    if isinstance(data, np.ndarray):
        shape = data.shape
    if shape is None and times_s is None:
        raise ValueError("frames from an iterable: expected shape, or times_s")
    frames = iter(data)
    first = np.asarray(next(frames, np.empty(0)))
    full = tuple(shape) if shape is not None else (len(times_s or ()), *first.shape)

    def volumes() -> Iterator[np.ndarray]:
        count = 0
        for count, frame in enumerate(map(np.asarray, chain([first], frames)), start=1):
            if count > full[0] or frame.shape != full[1:]:
                raise ValueError(f"frame {count - 1} has shape {frame.shape}: expected {full[0]} of shape {full[1:]}")
            yield from frame
        if count != full[0]:
            raise ValueError(f"{count} frames: expected {full[0]}")

    return full, stored_dtype(first.dtype), volumes()
