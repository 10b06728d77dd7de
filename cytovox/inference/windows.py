"""Where windows lie in a volume, how their voxels count, what they show, and which of them show nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Protocol

import torch
from monai.data.utils import compute_importance_map
from torch.nn.functional import avg_pool3d, pad

from cytovox.io.regions import Box, Shape

WEIGHTS = ("spline", "gaussian", "constant")
PAD_MODES = ("symmetric", "edge", "constant")

#: Smallest weight inside a window: a voxel seen only by a window's corner is still divided by a sound number.
WEIGHT_FLOOR = 1e-3

#: Edge in voxels of the blocks whose mean decides whether a window shows anything (`only_medium`).
MEDIUM_BLOCK = 4


class Source(Protocol):
    """Where windows are cut from: a volume in memory, or one that is read and resampled region by region."""

    @property
    def shape(self) -> Shape:
        """Size (Z, Y, X) in voxels."""
        ...

    @property
    def device(self) -> torch.device:
        """Where regions lie."""
        ...

    def read(self, box: Box) -> torch.Tensor:
        """That region, (C, z, y, x); not to be written to."""
        ...


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
        """Where the volume lies."""
        return self.volume_CZYX.device

    def read(self, box: Box) -> torch.Tensor:
        """A view of that region, (C, z, y, x)."""
        return self.volume_CZYX[:, box[0], box[1], box[2]]


@dataclass(frozen=True)
class Windows:
    """The windows over one volume, in raster order z, y, x."""

    shape: Shape
    """Size of the volume in voxels."""
    window: Shape
    """Size of a window."""
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """First voxels along z, y, x, ascending; below 0 where a window begins in the padding."""

    def __len__(self) -> int:
        return prod(map(len, self.starts))

    def __iter__(self) -> Iterator[Shape]:
        """Numbers (z, y, x) of the windows along each axis."""
        yield from product(*(range(len(axis)) for axis in self.starts))

    def layer(self, z: int) -> Iterator[Shape]:
        """Numbers of those that begin at the same depth."""
        yield from product((z,), *(range(len(axis)) for axis in self.starts[1:]))

    def start(self, index: Shape) -> Shape:
        """First voxel of one window."""
        z, y, x = (axis[i] for axis, i in zip(self.starts, index, strict=True))
        return z, y, x


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """Where windows begin along one axis: 0, s, 2s, ...; the last one ends with the axis.

    Parameters
    ----------
    size : int
        Voxels along the axis, at least one window.
    window, stride : int
        Size of a window and step, in voxels.
    """
    return [*range(0, size - window, stride), size - window]


def window_weight(window: Shape, kind: str) -> torch.Tensor:
    """How much each voxel of a window counts.

    Parameters
    ----------
    window : three ints
        Size of the window.
    kind : str
        `spline`: the product of a triangle along each axis, 1 at the middle; triangles half a window apart sum to
        one. `gaussian`: MONAI's, of an eighth of the window in standard deviation. `constant`: 1.

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
    """The triangular window: 1 / n, 3 / n, ... up and down again; nowhere 0."""
    half = size / 2
    return 1 - (torch.arange(size, dtype=torch.float32) + 0.5 - half).abs() / half


def read_padded(source: Source, start: Sequence[int], size: Sequence[int], mode: str) -> torch.Tensor:
    """A region that may reach beyond its volume, by any number of voxels.

    Only voxels of the volume are read: what lies outside is mapped to them, as if the whole volume had been padded.

    Parameters
    ----------
    source : Source
        The volume.
    start, size : three ints
        First voxel of the region, below 0 before the volume; and its size. It must hold a voxel of the volume.
    mode : str
        `symmetric`, `edge` or `constant` (0), as numpy's `pad` has them.

    Returns
    -------
    tensor, (C, *size)
        A view of what the source gave where nothing is padded.
    """
    spans = [_span(s, n, volume, mode) for s, n, volume in zip(start, size, source.shape, strict=True)]
    region_CZYX = source.read((spans[0], spans[1], spans[2]))
    missing = [(span.start - s, s + n - span.stop) for span, s, n in zip(spans, start, size, strict=True)]
    if mode == "constant":
        return (
            pad(region_CZYX, [n for pair in reversed(missing) for n in pair]) if any(map(any, missing)) else region_CZYX
        )
    for axis, (span, s, n, volume) in enumerate(zip(spans, start, size, source.shape, strict=True), start=1):
        if s < 0 or s + n > volume:
            shown = _shown(torch.arange(s, s + n, device=region_CZYX.device), volume, mode)
            region_CZYX = region_CZYX.index_select(axis, shown - span.start)
    return region_CZYX


def _span(start: int, size: int, volume: int, mode: str) -> slice:
    """What is read along one axis."""
    stop = start + size
    inside = slice(max(0, start), min(stop, volume))
    if inside == slice(start, stop) or mode == "constant":
        return inside
    shown = _shown(torch.arange(start, stop), volume, mode)
    return slice(int(shown.min()), int(shown.max()) + 1)


def _shown(place: torch.Tensor, volume: int, mode: str) -> torch.Tensor:
    """The voxel of the volume that each place along an axis shows, computed where `place` lies."""
    if mode == "edge":
        return place.clamp(0, volume - 1)
    place = place.remainder(2 * volume)
    return torch.minimum(place, 2 * volume - 1 - place)


def only_medium(window_CZYX: torch.Tensor, threshold: float) -> bool:
    """Whether a window shows nothing but medium.

    The window is cut into blocks of 4x4x4 voxels from its first voxel on; blocks that its end cuts are smaller. It
    shows only medium if in no block, and no channel, the mean is above the threshold.

    Parameters
    ----------
    window_CZYX : float32 tensor, (C, z, y, x)
        Normalised refractive index, padding included.
    threshold : float
        0 is the lower end of the normalised range, 1 the upper.
    """
    return not bool(exceeds(window_CZYX[None], threshold))


def exceeds(windows_BCZYX: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return which windows of a batch show more than medium (`only_medium`): bool (B,), on the windows' device."""
    kernel = [min(MEDIUM_BLOCK, n) for n in windows_BCZYX.shape[2:]]
    means = avg_pool3d(windows_BCZYX, kernel, ceil_mode=True)
    return (means > threshold).flatten(1).any(1)
