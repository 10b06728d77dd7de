"""Positions, weights and voxels of windows, and the check for windows that show only medium."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product
from math import prod
from typing import Protocol

import torch
from monai.data.utils import compute_importance_map
from torch.nn.functional import avg_pool3d, pad

from cytovox.io.regions import Box, Shape

WEIGHTS = ("spline", "gaussian", "constant")
PAD_MODES = ("symmetric", "edge", "constant")

#: Smallest weight inside a window: the sum of weights of a voxel at the corner of one window is not near zero.
WEIGHT_FLOOR = 1e-3

#: Edge in voxels of the blocks whose means decide whether a window shows only medium (`only_medium`).
MEDIUM_BLOCK = 4


class Source(Protocol):
    """A volume that windows are read from: in memory, or read and resampled region by region."""

    @property
    def shape(self) -> Shape:
        """Size (Z, Y, X) in voxels."""

    @property
    def device(self) -> torch.device:
        """Device of the regions."""

    def read(self, box: Box) -> torch.Tensor:
        """Return a region, (C, z, y, x); do not write to it."""


@dataclass(frozen=True)
class TensorSource:
    """A volume in memory."""

    volume_CZYX: torch.Tensor
    """Any number type, any device."""

    @property
    def shape(self) -> Shape:
        z, y, x = self.volume_CZYX.shape[1:]
        return z, y, x

    @property
    def device(self) -> torch.device:
        """Device of the volume."""
        return self.volume_CZYX.device

    def read(self, box: Box) -> torch.Tensor:
        """Return a view of a region, (C, z, y, x)."""
        return self.volume_CZYX[:, box[0], box[1], box[2]]


@dataclass(frozen=True)
class Windows:
    """Positions of the windows in one volume, in raster order z, y, x."""

    shape: Shape
    """Size of the volume in voxels."""
    window: Shape
    """Size of a window."""
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """First voxels along z, y, x, ascending; below 0 where a window begins in the padding."""

    def __len__(self) -> int:
        return prod(map(len, self.starts))

    def __iter__(self) -> Iterator[Shape]:
        """Yield the number (z, y, x) of each window."""
        yield from product(*(range(len(axis)) for axis in self.starts))

    def layer(self, z: int) -> Iterator[Shape]:
        """Yield the numbers of the windows of one layer, which begin at the same depth."""
        yield from product((z,), *(range(len(axis)) for axis in self.starts[1:]))

    def start(self, index: Shape) -> Shape:
        """Return the first voxel of a window."""
        z, y, x = (axis[i] for axis, i in zip(self.starts, index, strict=True))
        return z, y, x


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """Return the first voxels of windows along one axis: 0, s, 2s, ...; the last window ends with the axis.

    Parameters
    ----------
    size : int
        Voxels along the axis, at least one window.
    window, stride : int
        Size of a window and step, in voxels.
    """
    return [*range(0, size - window, stride), size - window]


def window_weight(window: Shape, kind: str) -> torch.Tensor:
    """Return the weight of each voxel of a window.

    Parameters
    ----------
    window : three ints
        Size of the window.
    kind : str
        `spline`: the product of a triangle along each axis, 1 at the middle; triangles half a window apart sum to
        one. `gaussian`: MONAI's, with a standard deviation of an eighth of the window. `constant`: 1.

    Returns
    -------
    float32 tensor, of the window's size
        At least `WEIGHT_FLOOR`, at most 1.
    """
    if kind == "constant":
        return torch.ones(window)
    if kind == "gaussian":
        weight = compute_importance_map(window, mode="gaussian", sigma_scale=0.125, device="cpu", dtype=torch.float32)
        return weight.clamp(min=WEIGHT_FLOOR)
    z, y, x = (_triangle(n) for n in window)
    return (z[:, None, None] * y[:, None] * x).clamp(min=WEIGHT_FLOOR)


def _triangle(size: int) -> torch.Tensor:
    """Return the triangular window: 1 / n, 3 / n, ... up and down again; nowhere 0."""
    half = size / 2
    return 1 - (torch.arange(size, dtype=torch.float32) + 0.5 - half).abs() / half


def read_padded(source: Source, start: Sequence[int], size: Sequence[int], mode: str) -> torch.Tensor:
    """Return a region that may extend beyond its volume by any number of voxels.

    Only voxels of the volume are read; those outside are copies of them, as if the whole volume had been padded.

    Parameters
    ----------
    source : Source
        The volume.
    start, size : three ints
        First voxel of the region, negative before the volume, and its size. It must contain a voxel of the volume.
    mode : str
        `symmetric`, `edge` or `constant` (0), as of `numpy.pad`.

    Returns
    -------
    tensor, (C, *size)
        A view of the region of the source if nothing is padded.
    """
    spans = [_span(s, n, volume, mode) for s, n, volume in zip(start, size, source.shape, strict=True)]
    region_CZYX = source.read((spans[0], spans[1], spans[2]))
    if mode == "constant":
        missing = [(span.start - s, s + n - span.stop) for span, s, n in zip(spans, start, size, strict=True)]
        return pad(region_CZYX, list(chain(*reversed(missing)))) if any(map(any, missing)) else region_CZYX
    for axis, (span, s, n, volume) in enumerate(zip(spans, start, size, source.shape, strict=True), start=1):
        if s < 0 or s + n > volume:
            shown = _shown(torch.arange(s, s + n, device=region_CZYX.device), volume, mode)
            region_CZYX = region_CZYX.index_select(axis, shown - span.start)
    return region_CZYX


def _span(start: int, size: int, volume: int, mode: str) -> slice:
    """Return the voxels of the volume that are read along one axis."""
    stop = start + size
    inside = slice(max(0, start), min(stop, volume))
    if inside == slice(start, stop) or mode == "constant":
        return inside
    shown = _shown(torch.arange(start, stop), volume, mode)
    return slice(int(shown.min()), int(shown.max()) + 1)


def _shown(place: torch.Tensor, volume: int, mode: str) -> torch.Tensor:
    """Return the voxel of the volume that each position along an axis is a copy of, on the device of `place`."""
    if mode == "edge":
        return place.clamp(0, volume - 1)
    place = place.remainder(2 * volume)
    return torch.minimum(place, 2 * volume - 1 - place)


def only_medium(window_CZYX: torch.Tensor, threshold: float) -> bool:
    """Return whether a window shows only medium.

    The window is cut into blocks of 4x4x4 voxels from its first voxel on; blocks at its end may be smaller. It shows
    only medium if no block of any channel has a mean above the threshold.

    Parameters
    ----------
    window_CZYX : float32 tensor, (C, z, y, x)
        Normalised refractive index, padding included.
    threshold : float
        0 is the lower end of the normalised range, 1 the upper end.
    """
    return not bool(exceeds(window_CZYX[None], threshold))


def exceeds(windows_BCZYX: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return which windows of a batch show more than medium (`only_medium`): bool (B,), on the windows' device."""
    kernel = [min(MEDIUM_BLOCK, n) for n in windows_BCZYX.shape[2:]]
    means = avg_pool3d(windows_BCZYX, kernel, ceil_mode=True)
    return (means > threshold).flatten(1).any(1)
