"""Resampling of regions, equal to the same regions of the whole resampled volume.

Frames are resampled to the common grid (`RegionSource`), and predictions back to the frame's own grid (`NativeGrid`).
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import torch

from cytovox.errors import InputError
from cytovox.inference.store import BrickStore, Key
from cytovox.inference.transfers import Step, Transfers, indexed
from cytovox.io.regions import Box, FrameReader, Shape
from cytovox.preprocess.intensity import NormaliseRI


@dataclass(frozen=True)
class Taps:
    """Input voxels and weights of each output voxel of a linear resampling along one axis.

    torch computes its anti-aliased weights in single precision, which moves the sampling points of long axes by up to
    a ten-thousandth of a voxel. The same roundings are made here, so that regions agree with
    `cytovox.preprocess.resampling.resize_linear` of the whole volume.
    """

    n_in: int
    """Number of input voxels."""
    n_out: int
    """Number of output voxels."""
    low: np.ndarray
    """First input voxel of each output voxel; ascending."""
    high: np.ndarray
    """One past the last input voxel."""
    weights: np.ndarray
    """float32, (n_out, largest number of input voxels of an output voxel), padded with 0."""

    def span(self, start: int, stop: int) -> slice:
        """Return the input voxels of the output voxels `start` to `stop`."""
        if self.n_in == self.n_out:
            return slice(start, stop)
        return slice(int(self.low[start]), int(self.high[stop - 1]))

    def matrix(self, start: int, stop: int) -> torch.Tensor:
        """Return the float32 matrix (output voxels, input voxels) of the output voxels `start` to `stop`."""
        first, last, width = int(self.low[start]), int(self.high[stop - 1]), self.weights.shape[1]
        matrix = np.zeros((stop - start, last - first + width), dtype=np.float32)
        columns = self.low[start:stop, None] - first + np.arange(width)
        np.put_along_axis(matrix, columns, self.weights[start:stop], axis=1)
        return torch.from_numpy(np.ascontiguousarray(matrix[:, : last - first]))


@lru_cache(maxsize=32)
def taps(n_in: int, n_out: int) -> Taps:
    """Return the taps of an axis that is resampled from `n_in` to `n_out` voxels.

    The kernel is a triangle, which is widened if the axis shrinks.
    """
    single = np.float32
    scale = single(n_in) / single(n_out)
    support = max(scale, single(1))
    shrink = single(1 / float(support))
    centre = (float(scale) * (np.arange(n_out) + 0.5)).astype(single)
    low = np.maximum(((centre - support).astype(float) + 0.5).astype(int), 0)
    high = np.minimum(((centre + support).astype(float) + 0.5).astype(int), n_in)
    columns = low[:, None] + np.arange((high - low).max())
    offset = (columns.astype(single) - centre[:, None]).astype(float) + 0.5
    weights = np.maximum(1 - np.abs((offset * float(shrink)).astype(single)), single(0))
    weights[columns >= high[:, None]] = 0
    weights /= weights.sum(axis=1, keepdims=True, dtype=single)
    return Taps(n_in, n_out, low, high, weights)


class Resampler:
    """Linear resampling of regions from one grid to another.

    In main memory each axis is one matrix product. On a device each axis is a sum of voxels times weights, because a
    GPU may round matrix products to TF32; nothing is copied to the device after the constructor. The two agree to 1e-6.

    Parameters
    ----------
    shape_in, shape_out : three ints
        Sizes of the two grids.
    device : torch.device, optional
        Device of the regions; main memory if not given.
    """

    def __init__(self, shape_in: Shape, shape_out: Shape, device: torch.device | None = None) -> None:
        self.axes = [taps(n, m) for n, m in zip(shape_in, shape_out, strict=True)]
        self._on_device: list[list[torch.Tensor]] | None = None
        if device is not None:
            self._on_device = [[torch.from_numpy(a).to(device) for a in (t.low, t.weights)] for t in self.axes]

    def span(self, box: Box) -> Box:
        """Return the region of the input grid that a region of the output grid is computed from."""
        z, y, x = (t.span(s.start, s.stop) for t, s in zip(self.axes, box, strict=True))
        return z, y, x

    def __call__(self, values_CZYX: torch.Tensor, box: Box) -> torch.Tensor:
        """Return the values of `box`, a region of the output grid, from the float32 values of `span(box)`.

        The result is float32 also if the caller computes in 16 bits (autocast).
        """
        with torch.autocast(values_CZYX.device.type, enabled=False):
            for axis, (t, s) in enumerate(zip(self.axes, box, strict=True), start=1):
                if t.n_in == t.n_out:
                    continue
                if self._on_device is not None:
                    low, weights = (values[s] for values in self._on_device[axis - 1])
                    values_CZYX = _weighted_sum(values_CZYX, axis, low - int(t.low[s.start]), weights)
                elif axis == 3:
                    values_CZYX = values_CZYX @ t.matrix(s.start, s.stop).T
                else:
                    product_CZN = t.matrix(s.start, s.stop) @ values_CZYX.flatten(axis + 1)
                    values_CZYX = product_CZN.unflatten(-1, values_CZYX.shape[axis + 1 :])
        return values_CZYX


def _weighted_sum(values_CZYX: torch.Tensor, axis: int, first: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the sums, along one axis, of the voxels from `first` on times the columns of `weights`."""
    last = values_CZYX.shape[axis] - 1
    columns = weights.view([-1 if k == axis else 1 for k in range(4)] + [weights.shape[1]]).unbind(-1)
    result_CZYX = values_CZYX.index_select(axis, first.clamp(max=last)).mul_(columns[0])
    for k, column in enumerate(columns[1:], start=1):
        # beyond the last input voxel the weight is 0, so any voxel may be taken
        result_CZYX.addcmul_(values_CZYX.index_select(axis, (first + k).clamp_(max=last)), column)
    return result_CZYX


def matched_size(size: int, n_own: int, n_other: int) -> int:
    """Return the largest piece of an axis, at most `size`, whose extent on the other grid is about `size` at most."""
    return max(1, min(n_own, size, round(size * n_own / n_other)))


def grid_parts(span: slice, step: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield the cells of a regular grid along one axis that a span overlaps.

    Parameters
    ----------
    span : slice
        From 0 on.
    step : int
        Size of a cell.

    Yields
    ------
    number, inside, part
        Number of the cell, and the overlap in the coordinates of the cell and of the span.
    """
    for k in range(span.start // step, math.ceil(span.stop / step)):
        low, high = max(span.start, k * step), min(span.stop, (k + 1) * step)
        yield k, slice(low - k * step, high - k * step), slice(low - span.start, high - span.start)


def users(needs: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """Return, for each of `count` pieces, the items that need it; `needs` lists the pieces of each item."""
    return [[i for i, needed in enumerate(needs) if k in needed] for k in range(count)]


class RegionSource:
    """A frame, normalised and resampled to the common grid piece by piece, when its regions are read.

    The pieces used last are kept, so that overlapping windows do not read and resample voxels again.

    Parameters
    ----------
    reader : FrameReader
        The frame, on its own grid.
    shape_ZYX : three ints
        Size of the common grid.
    normalise : NormaliseRI
        Refractive index to 0..1, applied before resampling.
    piece : three ints
        Largest size of a piece, on either grid.
    budget_bytes : float
        Memory for pieces; the last one stays in any case.
    device : torch.device, optional
        Device on which pieces are normalised, resampled and kept. The voxels of each are copied there once, while the
        device computes. Main memory if not given. Both agree to 1e-6.
    """

    def __init__(
        self,
        reader: FrameReader,
        shape_ZYX: Shape,
        normalise: NormaliseRI,
        piece: Shape,
        budget_bytes: float,
        device: torch.device | None = None,
    ) -> None:
        self.shape = shape_ZYX
        self.device = torch.device("cpu") if device is None else indexed(device)
        self.reader, self.normalise, self.budget_bytes = reader, normalise, budget_bytes
        self._resampler = Resampler(reader.shape, shape_ZYX, device)
        self._piece = [matched_size(p, n, m) for p, n, m in zip(piece, shape_ZYX, reader.shape, strict=True)]
        self._pieces: OrderedDict[Key, torch.Tensor] = OrderedDict()
        self._bytes = 0
        self._transfers = Transfers(self.device)

    def read(self, box: Box) -> torch.Tensor:
        """Return a region of the common grid, (1, z, y, x), float32; do not write to it.

        Raises
        ------
        InputError
            NaN in a voxel that the region is computed from.
        """
        parts = [list(grid_parts(s, p)) for s, p in zip(box, self._piece, strict=True)]
        if all(len(axis) == 1 for axis in parts):
            key, inside, _ = zip(*(axis[0] for axis in parts), strict=True)
            return self._get(key)[(slice(None), *inside)]
        region_CZYX = torch.empty((1, *(s.stop - s.start for s in box)), device=self.device)
        for overlap in product(*parts):
            key, inside, place = zip(*overlap, strict=True)
            region_CZYX[(slice(None), *place)] = self._get(key)[(slice(None), *inside)]
        return region_CZYX

    def _get(self, key: Key) -> torch.Tensor:
        piece = self._pieces.pop(key, None)
        if piece is None:
            piece = self._make(key)
            self._bytes += piece.nbytes
        self._pieces[key] = piece
        while self._bytes > self.budget_bytes and len(self._pieces) > 1:
            self._bytes -= self._pieces.popitem(last=False)[1].nbytes
        return piece

    def _make(self, key: Key) -> torch.Tensor:
        z, y, x = (slice(k * p, min((k + 1) * p, n)) for k, p, n in zip(key, self._piece, self.shape, strict=True))
        span = self._resampler.span((z, y, x))
        values_ZYX = self.reader.read(span)
        with _located(span):
            self.normalise.check(values_ZYX)
        ri_ZYX = self._transfers.upload(torch.from_numpy(np.require(values_ZYX, requirements=["C", "W"])))
        if ri_ZYX.is_cpu:  # not copied: it may be a view of the reader's array
            ri_ZYX = ri_ZYX.clone()
        return self._resampler(self.normalise.on_device(ri_ZYX)[None], (z, y, x))


def own_box_shape(brick: Shape, common: Shape, own: Shape) -> Shape:
    """Return the size of boxes that are computed from bricks of that size: at most a brick, on either grid."""
    z, y, x = (matched_size(b, n, m) for b, n, m in zip(brick, own, common, strict=True))
    return z, y, x


class NativeGrid:
    """Boxes of the own grid from bricks of the common grid, equal to resampling the whole.

    A brick is kept until the last box that needs it is computed. In raster order that is about one layer of bricks in
    z; bricks beyond the store's budget lie in files.

    Parameters
    ----------
    common, own : three ints
        Sizes of the two grids.
    brick, box : three ints
        Sizes of bricks on the common grid and of boxes on the own grid.
    store : BrickStore
        Store of finished bricks.
    device : torch.device, optional
        Device of the bricks and boxes; main memory if not given. Both agree to 1e-6.
    """

    def __init__(
        self,
        common: Shape,
        own: Shape,
        brick: Shape,
        box: Shape,
        store: BrickStore,
        device: torch.device | None = None,
    ) -> None:
        self.own, self.brick, self.box, self.store, self.device = own, brick, box, store, device
        self._resampler = Resampler(common, own, device)
        axes = list(zip(self._resampler.axes, brick, box, strict=True))
        self._needs = [_needs(t, b, n) for t, b, n in axes]
        self._users = [users(needs, math.ceil(t.n_in / b)) for needs, (t, b, _) in zip(self._needs, axes, strict=True)]
        self._finished: Counter[Key] = Counter()  # finished bricks of a box
        self._made: Counter[Key] = Counter()  # boxes that were computed from a brick

    def steps(self, bricks: Iterator[Step]) -> Iterator[Step]:
        """Yield each box as soon as its bricks are finished, and None wherever `bricks` yields it."""
        for step in bricks:
            if step is None:
                yield None
            else:
                yield from self.take(*step)

    def take(self, brick: Box, values_KZYX: torch.Tensor) -> Iterator[tuple[Box, torch.Tensor]]:
        """Add one finished brick, and yield the boxes whose last brick it is.

        Parameters
        ----------
        brick : three slices
            Its region of the common grid.
        values_KZYX : float32 tensor, contiguous
            Its values; the tensor is kept.

        Yields
        ------
        box, values
            A box of the own grid, and (K, z, y, x).
        """
        z, y, x = (s.start // b for s, b in zip(brick, self.brick, strict=True))
        boxes = list(product(self._users[0][z], self._users[1][y], self._users[2][x]))
        # bricks of zeros, whose windows were all skipped, need no memory; on a device the check would wait for it
        if boxes and (self.device is not None or values_KZYX.any()):
            self.store.put((z, y, x), values_KZYX)
        for box in boxes:
            self._finished[box] += 1
            if self._finished[box] == _count(self._needs, box):
                del self._finished[box]
                yield self._make(box, len(values_KZYX))

    def _make(self, number: Key, channels: int) -> tuple[Box, torch.Tensor]:
        z, y, x = (slice(k * n, min((k + 1) * n, m)) for k, n, m in zip(number, self.box, self.own, strict=True))
        box, span = (z, y, x), self._resampler.span((z, y, x))
        overlaps = product(*(grid_parts(s, n) for s, n in zip(span, self.brick, strict=True)))
        stored = [parts for parts in overlaps if tuple(k for k, _, _ in parts) in self.store]
        if not stored:
            return box, torch.zeros((channels, *(s.stop - s.start for s in box)))
        source_KZYX = torch.zeros((channels, *(s.stop - s.start for s in span)), device=self.device)
        for parts in stored:
            key, inside, place = zip(*parts, strict=True)
            source_KZYX[(slice(None), *place)] = self.store.get(key)[(slice(None), *inside)]
            self._made[key] += 1
            if self._made[key] == _count(self._users, key):
                del self._made[key]
                self.store.pop(key)
        return box, self._resampler(source_KZYX, box)


def _count(axes: Sequence[Sequence[Sequence[int]]], key: Key) -> int:
    """Return the number of boxes of a brick, or of bricks of a box, from those along each axis."""
    return math.prod(len(axis[k]) for axis, k in zip(axes, key, strict=True))


def _needs(axis: Taps, brick: int, box: int) -> list[range]:
    """Return the bricks that each box along one axis is computed from."""
    spans = [axis.span(start, min(start + box, axis.n_out)) for start in range(0, axis.n_out, box)]
    return [range(span.start // brick, math.ceil(span.stop / brick)) for span in spans]


@contextmanager
def _located(box: Box) -> Iterator[None]:
    """Append the region of the frame to the message of an error."""
    try:
        yield
    except InputError as error:
        where = ", ".join(f"{axis} {s.start} to {s.stop - 1}" for axis, s in zip("zyx", box, strict=True))
        raise InputError(f"{error} (found in {where})") from error
