"""Regions of a resampled volume, exactly as if the whole volume had been resampled."""

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
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
    """Linear resampling along one axis, as `transforms.spatial.resize_linear` does it: which voxels count how much.

    torch computes its anti-aliased weights in single precision, which moves the sampling points of long axes by up to
    a ten-thousandth of a voxel. The same roundings are made here, so that regions agree with the whole.
    """

    n_in: int
    """Voxels before."""
    n_out: int
    """Voxels after."""
    low: np.ndarray
    """First voxel that counts, for each voxel after; ascending."""
    high: np.ndarray
    """One past the last."""
    weights: np.ndarray
    """float32, (n_out, most voxels that count); 0 where fewer do."""

    def part(self, start: int, stop: int) -> tuple[slice, torch.Tensor | None]:
        """The voxels that are read for voxels `start` to `stop`, and the matrix from them; None where nothing changes.

        Returns
        -------
        slice
            Of the axis before.
        float32 tensor, (stop - start, voxels of the slice), or None
        """
        span = self.span(start, stop)
        if self.n_in == self.n_out:
            return span, None
        first, last = span.start, span.stop
        matrix = np.zeros((stop - start, last - first + self.weights.shape[1]), dtype=np.float32)
        columns = self.low[start:stop, None] - first + np.arange(self.weights.shape[1])
        np.put_along_axis(matrix, columns, self.weights[start:stop], axis=1)
        return span, torch.from_numpy(np.ascontiguousarray(matrix[:, : last - first]))

    def span(self, start: int, stop: int) -> slice:
        """The voxels of the axis before that are read for voxels `start` to `stop`."""
        if self.n_in == self.n_out:
            return slice(start, stop)
        return slice(int(self.low[start]), int(self.high[stop - 1]))


@lru_cache(maxsize=32)
def taps(n_in: int, n_out: int) -> Taps:
    """The taps of an axis of `n_in` voxels that gets `n_out`: a triangle, widened where the axis shrinks."""
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


def resample_part(values_CZYX: torch.Tensor, matrices: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Resample a region along z, y and x by the matrices of `Taps.part`.

    Float32 also where the caller computes in 16 bits (autocast).
    """
    with torch.autocast(values_CZYX.device.type, enabled=False):
        for axis, matrix in enumerate(matrices, start=1):
            if matrix is None:
                continue
            if axis == 3:
                values_CZYX = values_CZYX @ matrix.T
            else:  # the axes behind it as one
                flat = matrix @ values_CZYX.flatten(axis + 1 if axis == 2 else 2)
                shape = [*values_CZYX.shape]
                shape[axis] = len(matrix)
                values_CZYX = flat.reshape(shape)
    return values_CZYX


class DeviceTaps:
    """Linear resampling along one axis, as `Taps` has it, by sums of voxels times weights on a device.

    No matrices are multiplied, so that no GPU may round them to TF32: the result is that of `resample_part` but for the
    order of float32 additions. Nothing is copied to the device after the first call.

    Parameters
    ----------
    taps : Taps
        Which voxels count how much.
    device : torch.device
        Where the values lie.
    """

    def __init__(self, taps: Taps, device: torch.device) -> None:
        self.taps = taps
        if taps.n_in == taps.n_out:
            return
        self._low = torch.from_numpy(taps.low).to(device)
        self._weights = torch.from_numpy(taps.weights).to(device)

    def resample(self, values_CZYX: torch.Tensor, axis: int, start: int, stop: int) -> torch.Tensor:
        """Resample a region along one axis.

        Parameters
        ----------
        values_CZYX : float32 tensor
            Its axis `axis` holds the voxels of `Taps.span`.
        axis : int
            1, 2 or 3 for z, y, x.
        start, stop : int
            The voxels afterwards.
        """
        if self.taps.n_in == self.taps.n_out:
            return values_CZYX
        span = self.taps.span(start, stop)
        first = self._low[start:stop] - span.start
        shape = [-1 if k == axis else 1 for k in range(4)]
        result_CZYX = None
        for k, weights in enumerate(self._weights[start:stop].unbind(1)):
            # where fewer voxels count the weight is 0, whichever voxel is taken
            taken_CZYX = values_CZYX.index_select(axis, (first + k).clamp_(max=span.stop - span.start - 1))
            weights = weights.view(shape)
            if result_CZYX is None:
                result_CZYX = taken_CZYX.mul_(weights)
            else:
                result_CZYX.addcmul_(taken_CZYX, weights)
        assert result_CZYX is not None
        return result_CZYX


def matched_size(size: int, n_own: int, n_other: int) -> int:
    """The largest piece of an axis, at most `size`, whose extent on the other grid is about `size` at most too."""
    return max(1, min(n_own, size, round(size * n_own / n_other)))


class RegionSource:
    """A frame, normalised and on the common grid, made piece by piece as its regions are asked for.

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
        Where pieces are normalised, resampled and kept. Each is copied there once, as it was read, while the device
        computes. Main memory if not given. Both agree to 1e-6.
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
        self._taps = [taps(n, m) for n, m in zip(reader.shape, shape_ZYX, strict=True)]
        self._piece = [matched_size(p, t.n_out, t.n_in) for p, t in zip(piece, self._taps, strict=True)]
        self._pieces: OrderedDict[Key, torch.Tensor] = OrderedDict()
        self._bytes = 0
        self._on_device = None if device is None else [DeviceTaps(t, device) for t in self._taps]
        self._transfers = Transfers(self.device)

    def read(self, box: Box) -> torch.Tensor:
        """A region of the common grid, (1, z, y, x), float32.

        Raises
        ------
        InputError
            NaN in a voxel that counts.
        """
        spans = [list(_cut(s, p)) for s, p in zip(box, self._piece, strict=True)]
        if all(len(span) == 1 for span in spans):
            (z, *zs), (y, *ys), (x, *xs) = (span[0] for span in spans)
            return self._get((z, y, x))[:, zs[0], ys[0], xs[0]]
        region_CZYX = torch.empty((1, *(s.stop - s.start for s in box)), device=self.device)
        for (z, z_from, z_to), (y, y_from, y_to), (x, x_from, x_to) in product(*spans):
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
        ends = [(k * p, min((k + 1) * p, t.n_out)) for t, k, p in zip(self._taps, key, self._piece, strict=True)]
        if self._on_device is not None:
            return self._make_on_device(self._on_device, ends)
        parts = [t.part(*end) for t, end in zip(self._taps, ends, strict=True)]
        z, y, x = (span for span, _ in parts)
        values_ZYX = self.reader.read((z, y, x))
        with _located((z, y, x)):
            image_ZYX = self.normalise(values_ZYX)
        return resample_part(torch.from_numpy(image_ZYX)[None], [matrix for _, matrix in parts])

    def _make_on_device(self, taps: Sequence[DeviceTaps], ends: Sequence[tuple[int, int]]) -> torch.Tensor:
        z, y, x = (t.taps.span(*end) for t, end in zip(taps, ends, strict=True))
        values_ZYX = self.reader.read((z, y, x))
        with _located((z, y, x)):
            self.normalise.check(values_ZYX)
        ri_ZYX = self._transfers.upload(torch.from_numpy(np.require(values_ZYX, requirements=["C", "W"])))
        if ri_ZYX.is_cpu:  # not copied: it may be a view of what others read
            ri_ZYX = ri_ZYX.clone()
        piece_CZYX = self.normalise.on_device(ri_ZYX)[None]
        for axis, (t, end) in enumerate(zip(taps, ends, strict=True), start=1):
            piece_CZYX = t.resample(piece_CZYX, axis, *end)
        return piece_CZYX


@contextmanager
def _located(box: Box) -> Iterator[None]:
    """Add to an error where in the frame it was found."""
    try:
        yield
    except InputError as error:
        where = ", ".join(f"{axis} {s.start} to {s.stop - 1}" for axis, s in zip("zyx", box, strict=True))
        raise InputError(f"{error} (found in {where})") from error


def _cut(span: slice, piece: int) -> Iterator[tuple[int, slice, slice]]:
    """The pieces that a span touches: number, part inside the piece, part inside the span."""
    for k in range(span.start // piece, math.ceil(span.stop / piece)):
        low, high = max(span.start, k * piece), min(span.stop, (k + 1) * piece)
        yield k, slice(low - k * piece, high - k * piece), slice(low - span.start, high - span.start)
