"""Regions of a resampled volume, equal to the same regions of the whole volume resampled."""

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import torch

from cytovox.errors import InputError
from cytovox.inference.store import Key
from cytovox.inference.transfers import Transfers, indexed
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
    shape, last = [-1 if k == axis else 1 for k in range(4)], values_CZYX.shape[axis] - 1
    result_CZYX = None
    for k, weight in enumerate(weights.unbind(1)):
        # beyond the last input voxel the weight is 0, so any voxel may be taken
        taken_CZYX = values_CZYX.index_select(axis, (first + k).clamp_(max=last))
        if result_CZYX is None:
            result_CZYX = taken_CZYX.mul_(weight.view(shape))
        else:
            result_CZYX.addcmul_(taken_CZYX, weight.view(shape))
    assert result_CZYX is not None
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


class RegionSource:
    """A frame, normalised and resampled to the common grid piece by piece, when its regions are read.

    The pieces used last are kept, so that overlapping windows do not read and resample everything anew.

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
            (z, zs, _), (y, ys, _), (x, xs, _) = (axis[0] for axis in parts)
            return self._get((z, y, x))[:, zs, ys, xs]
        region_CZYX = torch.empty((1, *(s.stop - s.start for s in box)), device=self.device)
        for (z, z_from, z_to), (y, y_from, y_to), (x, x_from, x_to) in product(*parts):
            region_CZYX[:, z_to, y_to, x_to] = self._get((z, y, x))[:, z_from, y_from, x_from]
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


@contextmanager
def _located(box: Box) -> Iterator[None]:
    """Append the region of the frame to the message of an error."""
    try:
        yield
    except InputError as error:
        where = ", ".join(f"{axis} {s.start} to {s.stop - 1}" for axis, s in zip("zyx", box, strict=True))
        raise InputError(f"{error} (found in {where})") from error
