"""The way back: finished bricks of the common grid to boxes of a frame's own grid, as soon as their halo is there."""

import math
from collections import Counter
from collections.abc import Iterator
from itertools import product

import torch

from cytovox.inference.regions import DeviceTaps, Taps, matched_size, resample_part, taps
from cytovox.inference.store import BrickStore, Key
from cytovox.inference.transfers import Step
from cytovox.io.regions import Box, Shape


def own_box_shape(brick: Shape, common: Shape, own: Shape) -> Shape:
    """Size of the boxes that are made of bricks of that size: none larger than a brick, on either grid."""
    z, y, x = (matched_size(b, n, m) for b, n, m in zip(brick, own, common, strict=True))
    return z, y, x


class NativeGrid:
    """Boxes of the own grid from bricks of the common grid, equal to resampling the whole.

    A brick is kept until the last box that needs it was made. Raster order makes that about one layer of bricks in z;
    what the store's budget does not hold of it lies in files.

    Parameters
    ----------
    common, own : three ints
        Sizes of the two grids.
    brick, box : three ints
        Sizes of bricks on the common grid and of boxes on the own grid.
    store : BrickStore
        Where finished bricks are kept.
    device : torch.device, optional
        Where bricks lie, and boxes are made. Main memory if not given. Both agree to 1e-6.
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
        self._taps = [taps(n, m) for n, m in zip(common, own, strict=True)]
        self._on_device = None if device is None else [DeviceTaps(t, device) for t in self._taps]
        axes = list(zip(self._taps, brick, box, strict=True))
        self._needs = [_needs(t, b, n) for t, b, n in axes]
        self._users = [_users(needs, math.ceil(t.n_in / b)) for needs, (t, b, _) in zip(self._needs, axes, strict=True)]
        self._there: Counter[Key] = Counter()  # bricks of a box that are finished
        self._made: Counter[Key] = Counter()  # boxes of a brick that were made

    def steps(self, bricks: Iterator[Step]) -> Iterator[Step]:
        """Yield each box as soon as its bricks are there, and None wherever `bricks` yields it."""
        for step in bricks:
            if step is None:
                yield None
            else:
                yield from self.take(*step)

    def take(self, brick: Box, values_KZYX: torch.Tensor) -> Iterator[tuple[Box, torch.Tensor]]:
        """Take one finished brick, and give the boxes that waited for it.

        Parameters
        ----------
        brick : three slices
            What it covers on the common grid.
        values_KZYX : float32 tensor, contiguous
            Its values. It is kept.

        Yields
        ------
        box, values
            A box of the own grid, and (K, z, y, x).
        """
        z, y, x = (s.start // b for s, b in zip(brick, self.brick, strict=True))
        users = list(product(self._users[0][z], self._users[1][y], self._users[2][x]))
        # bricks of zeros, where all was skipped, are not worth their memory; on a device, looking would wait for it
        if users and (self._on_device is not None or values_KZYX.any()):
            self.store.put((z, y, x), values_KZYX)
        for box in users:
            self._there[box] += 1
            if self._there[box] == math.prod(len(axis[b]) for axis, b in zip(self._needs, box, strict=True)):
                del self._there[box]
                yield self._make(box, len(values_KZYX))

    def _make(self, box: Key, channels: int) -> tuple[Box, torch.Tensor]:
        z, y, x = (slice(b * n, min((b + 1) * n, m)) for b, n, m in zip(box, self.box, self.own, strict=True))
        spans = [t.span(s.start, s.stop) for t, s in zip(self._taps, (z, y, x), strict=True)]
        source_KZYX = torch.zeros((channels, *(span.stop - span.start for span in spans)), device=self.device)
        needs_z, needs_y, needs_x = (axis[b] for axis, b in zip(self._needs, box, strict=True))
        empty = True
        for key in product(needs_z, needs_y, needs_x):
            if key not in self.store:
                continue
            empty = False
            inside, place = [], []
            for span, k, size in zip(spans, key, self.brick, strict=True):
                low, high = max(span.start, k * size), min(span.stop, (k + 1) * size)
                inside.append(slice(low - k * size, high - k * size))
                place.append(slice(low - span.start, high - span.start))
            source_KZYX[(slice(None), *place)] = self.store.get(key)[(slice(None), *inside)]
            self._made[key] += 1
            if self._made[key] == math.prod(len(axis[k]) for axis, k in zip(self._users, key, strict=True)):
                del self._made[key]
                self.store.pop(key)
        if empty:
            return (z, y, x), torch.zeros((channels, z.stop - z.start, y.stop - y.start, x.stop - x.start))
        return (z, y, x), self._resampled(source_KZYX, (z, y, x))

    def _resampled(self, source_KZYX: torch.Tensor, box: Box) -> torch.Tensor:
        if self._on_device is None:
            parts = [t.part(s.start, s.stop) for t, s in zip(self._taps, box, strict=True)]
            return resample_part(source_KZYX, [matrix for _, matrix in parts])
        for axis, (t, s) in enumerate(zip(self._on_device, box, strict=True), start=1):
            source_KZYX = t.resample(source_KZYX, axis, s.start, s.stop)
        return source_KZYX


def _needs(axis: Taps, brick: int, box: int) -> list[range]:
    """For each box along one axis: the bricks that its voxels are made of."""
    needs = []
    for start in range(0, axis.n_out, box):
        span, _ = axis.part(start, min(start + box, axis.n_out))
        needs.append(range(span.start // brick, math.ceil(span.stop / brick)))
    return needs


def _users(needs: list[range], bricks: int) -> list[range]:
    """For each brick along one axis: the boxes that need it, a run of neighbours."""
    users = [range(0)] * bricks
    for box, needed in enumerate(needs):
        for brick in needed:
            users[brick] = range(users[brick].start if users[brick] else box, box + 1)
    return users
