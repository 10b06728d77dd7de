"""Boxes of a frame's own grid from finished bricks of the common grid, as soon as all bricks that a box needs exist."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product

import torch

from cytovox.inference.regions import Resampler, Taps, grid_parts, matched_size
from cytovox.inference.store import BrickStore, Key
from cytovox.inference.transfers import Step
from cytovox.io.regions import Box, Shape


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
        self._users = [
            [[i for i, needed in enumerate(needs) if k in needed] for k in range(math.ceil(t.n_in / b))]
            for needs, (t, b, _) in zip(self._needs, axes, strict=True)
        ]
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
        source_KZYX = torch.zeros((channels, *(s.stop - s.start for s in span)), device=self.device)
        empty = True
        for parts in product(*(grid_parts(s, n) for s, n in zip(span, self.brick, strict=True))):
            (kz, *_), (ky, *_), (kx, *_) = parts
            if (key := (kz, ky, kx)) not in self.store:
                continue
            empty = False
            inside, place = (tuple(part[i] for part in parts) for i in (1, 2))
            source_KZYX[(slice(None), *place)] = self.store.get(key)[(slice(None), *inside)]
            self._made[key] += 1
            if self._made[key] == _count(self._users, key):
                del self._made[key]
                self.store.pop(key)
        if empty:
            return box, torch.zeros((channels, *(s.stop - s.start for s in box)))
        return box, self._resampler(source_KZYX, box)


def _count(axes: Sequence[Sequence[Sequence[int]]], key: Key) -> int:
    """Return the number of boxes of a brick, or of bricks of a box, from those along each axis."""
    return math.prod(len(axis[k]) for axis, k in zip(axes, key, strict=True))


def _needs(axis: Taps, brick: int, box: int) -> list[range]:
    """Return the bricks that each box along one axis is computed from."""
    spans = [axis.span(start, min(start + box, axis.n_out)) for start in range(0, axis.n_out, box)]
    return [range(span.start // brick, math.ceil(span.stop / brick)) for span in spans]
