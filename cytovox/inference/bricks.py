"""Weighted sums of overlapping windows, brick by brick: a brick is finished when its last window was added.

On a CPU bricks are small, so that they can be spilled to files and additions stay in a core's cache. On a GPU a brick
is a whole layer of the volume: a window then overlaps two or three of them instead of up to 27, each
addition is one kernel, and a batch is activated at once. Per voxel, channel and window the GPU then reads the network's
2 or 4 bytes, writes and reads the float32 probability (8), and reads and writes its sum (8): 18 to 20 bytes and about
10 FLOP; one fused kernel would move 10 to 12 bytes. A window of 64x128x128 with 4 channels is 80 MB: 0.09 ms at
900 GB/s (V100), 0.025 ms at 3.35 TB/s (H100), against milliseconds in the network.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from math import ceil

import torch

from cytovox.inference.regions import grid_parts, users
from cytovox.inference.store import BrickStore, Key
from cytovox.inference.windows import Windows
from cytovox.io.regions import Box, Shape, grid_boxes

#: Least size of bricks in voxels, if the volume has as many: as chunks of a Zarr they are neither many nor large (half
#: a million voxels), and four channels of one float32 sum are 8 MiB.
BRICK: Shape = (32, 128, 128)

#: Elements that are activated, weighted and added at once: one MiB of float32, which stays in a core's cache.
_CHUNK = 2**18

#: Number of sums of weights that are kept: bricks inside share one, those at faces, edges and corners differ.
_KEPT_WEIGHTS = 16

#: Overlap of a window and a brick along one axis: number of the brick, first voxel of the overlap in the window and in
#: the brick, and its length.
Overlap = tuple[int, int, int, int]


def brick_shape(shape: Shape, stride: Shape) -> Shape:
    """Return the size of bricks: `BRICK` rounded up to whole strides, so that windows share borders with bricks.

    It is at most the volume.
    """
    z, y, x = (min(n, s * ceil(b / s)) for n, s, b in zip(shape, stride, BRICK, strict=True))
    return z, y, x


@dataclass(frozen=True)
class BatchOutput:
    """Output of one network for a batch of windows, or for their mirror images."""

    output_BKZYX: torch.Tensor
    """Any float type; fastest in the memory format in which the network computes."""
    logits: bool = False
    """Apply the sigmoid, in float32, before averaging."""
    flips: tuple[int, ...] = ()
    """Axes (0 to 2 for z, y, x) along which the windows were mirrored."""

    def region(self, item: int, box: Box) -> torch.Tensor:
        """Return the float32 values of a box of one window, mirrored back; (K, z, y, x)."""
        output_KZYX = self.output_BKZYX[item]
        mirrored = list(box)
        for axis in self.flips:
            size = output_KZYX.shape[1 + axis]
            mirrored[axis] = slice(size - box[axis].stop, size - box[axis].start)
        region_KZYX = output_KZYX[(slice(None), *mirrored)]
        if self.flips:
            region_KZYX = region_KZYX.flip([1 + axis for axis in self.flips])
        return region_KZYX.float().sigmoid() if self.logits else region_KZYX.float()

    def activated(self) -> "BatchOutput":
        """Return the same as float32 probabilities, mirrored back, for the whole batch at once."""
        output = self.output_BKZYX.float()
        if self.logits:
            output = output.sigmoid()
        return BatchOutput(output.flip([2 + axis for axis in self.flips]) if self.flips else output)


@dataclass(frozen=True)
class _Axis:
    """Overlaps of windows and bricks along one axis."""

    bricks: list[slice]
    """Voxels of each brick."""
    overlaps: list[list[Overlap]]
    """Bricks that each window overlaps."""
    windows: list[list[int]]
    """Windows that overlap each brick."""

    @classmethod
    def of(cls, size: int, brick: int, starts: tuple[int, ...], window: int) -> "_Axis":
        bricks = [slice(a, min(a + brick, size)) for a in range(0, size, brick)]
        overlaps = [
            [
                (k, max(start, 0) - start + part.start, inside.start, inside.stop - inside.start)
                for k, inside, part in grid_parts(slice(max(start, 0), min(start + window, size)), brick)
            ]
            for start in starts
        ]
        return cls(bricks, overlaps, users([[k for k, *_ in parts] for parts in overlaps], len(bricks)))


class Bricks:
    """Accumulator of overlapping windows, which are added in raster order; sums and weights are float32.

    The sum of weights is known before any prediction, so it is not accumulated with the values but computed once for
    each arrangement of windows over a brick, by the same additions in the same order: a network of ones gives exactly
    one for all weights.

    Sums have the memory format of the network's output, channels innermost if that is `channels_last_3d`: each voxel is
    transposed once, when its brick is finished, instead of once per window.

    Parameters
    ----------
    windows : Windows
        All windows, also those that are skipped.
    brick : three ints
        Size of the bricks, on a regular grid from the volume's first voxel on.
    weight_ZYX : float32 tensor
        Weight of a window's voxels.
    store : BrickStore
        Store of the sums; its `needed` is set.
    box : three ints, optional
        Size of the boxes that a finished brick is cut into, on a regular grid too; whole bricks if not given. The
        bricks' size must be a multiple of it, or the volume's.
    """

    def __init__(
        self, windows: Windows, brick: Shape, weight_ZYX: torch.Tensor, store: BrickStore, box: Shape | None = None
    ) -> None:
        self.windows, self.store = windows, store
        self._box = box or brick
        self.axes = [
            _Axis.of(n, b, s, w)
            for n, b, s, w in zip(windows.shape, brick, windows.starts, windows.window, strict=True)
        ]
        self.channels: int | None = None
        """K; None before the first output."""
        self.views = 1
        """How often each window is added: once per network and mirror image."""
        self._weight_ZYX = weight_ZYX
        self._now: Key = (0, 0, 0)
        store.needed = self._next_use

    def set_format(self, output_BKZYX: torch.Tensor) -> None:
        """Set the number of channels, the memory format and the device to those of the first output."""
        self.channels, last = output_BKZYX.shape[1], torch.channels_last_3d
        self._channels_last = output_BKZYX.is_contiguous(memory_format=last) and not output_BKZYX.is_contiguous()
        weight_ZYX = self._weight_ZYX.to(output_BKZYX.device)
        self._sum_of_weights = lru_cache(_KEPT_WEIGHTS)(partial(_sum_of_weights, weight_ZYX))
        self._weight_KZYX = weight_ZYX.expand(self.channels, *self.windows.window)
        if self._channels_last:  # torch does not vectorise along an innermost axis that is broadcast
            self._weight_KZYX = self._weight_KZYX[None].contiguous(memory_format=last)[0]

    def prepare(self, indices: Sequence[Shape], device: torch.device) -> None:
        """Allocate the sums of these windows, so that none is added if memory does not suffice for all.

        Parameters
        ----------
        indices : sequence of three ints
            Numbers of the windows.
        device : torch.device
            Device of their outputs.
        """
        for index in indices:
            for z, y, x in self._overlaps(index):
                self._sums((z[0], y[0], x[0]), device)

    def add(self, index: Shape, output: BatchOutput, item: int) -> None:
        """Add one window.

        Parameters
        ----------
        index : three ints
            Number of the window. The store's choice of bricks to spill assumes raster order.
        output : BatchOutput
            Output of its batch.
        item : int
            Position of the window in the batch.
        """
        self._now = index
        for z, y, x in self._overlaps(index):
            sums_KZYX = self._sums((z[0], y[0], x[0]), output.output_BKZYX.device)
            for inside, place in _chunks((z, y, x), len(sums_KZYX), sums_KZYX.is_cpu):
                weight_Kzyx = self._weight_KZYX[(slice(None), *inside)]
                sums_KZYX[(slice(None), *place)].addcmul_(output.region(item, inside), weight_Kzyx)

    def finished(self, index: Shape) -> Iterator[Key]:
        """Yield the bricks whose last window this is."""
        ends = [
            [k for k, *_ in axis.overlaps[i] if axis.windows[k][-1] == i]
            for axis, i in zip(self.axes, index, strict=True)
        ]
        yield from product(*ends)

    def untouched(self) -> Iterator[Key]:
        """Yield the bricks that no window overlaps: above and below the slab of `z: center` or `middle`."""
        for key in product(*(range(len(axis.bricks)) for axis in self.axes)):
            if not all(axis.windows[k] for axis, k in zip(self.axes, key, strict=True)):
                yield key  # type: ignore[misc]

    def take(self, key: Key, place: Callable[[Box, int], torch.Tensor]) -> Iterator[tuple[Box, torch.Tensor]]:
        """Yield the weighted mean of a finished brick in boxes, and forget its sums.

        Parameters
        ----------
        key : three ints
            Number of the brick.
        place : callable
            From a box and K to the float32 tensor (K, z, y, x) that its values are written to, of any strides and
            device.

        Yields
        ------
        box, values
            The tensor of `place`, filled: 0 where no window was added.
        """
        assert self.channels is not None
        brick, stored = self._region(key), key in self.store
        if stored:
            sums_KZYX, weight_ZYX = self._as_KZYX(self.store.pop(key)), self._weights(key)
        for inside in grid_boxes([side.stop - side.start for side in brick], self._box):
            z, y, x = (slice(a.start + b.start, a.start + b.stop) for a, b in zip(brick, inside, strict=True))
            out_KZYX = place((z, y, x), self.channels)
            if stored:
                self._divide(sums_KZYX[(slice(None), *inside)], weight_ZYX[inside], out_KZYX)
            else:
                out_KZYX.zero_()
            yield (z, y, x), out_KZYX

    def _divide(self, sums_KZYX: torch.Tensor, weight_ZYX: torch.Tensor, out_KZYX: torch.Tensor) -> None:
        if sums_KZYX.device == out_KZYX.device:
            torch.div(sums_KZYX, weight_ZYX, out=out_KZYX)
        else:
            out_KZYX.copy_(sums_KZYX / weight_ZYX)
        if self.views > 1:
            out_KZYX /= self.views

    def _overlaps(self, index: Shape) -> Iterator[tuple[Overlap, ...]]:
        """Yield the overlaps (z, y, x) of a window with bricks."""
        return product(*(axis.overlaps[i] for axis, i in zip(self.axes, index, strict=True)))

    def _region(self, key: Key) -> Box:
        """Return the voxels of a brick."""
        z, y, x = (axis.bricks[k] for axis, k in zip(self.axes, key, strict=True))
        return z, y, x

    def _as_KZYX(self, brick: torch.Tensor) -> torch.Tensor:
        """Return a view of a stored brick, which is contiguous, as (K, z, y, x)."""
        return brick.permute(3, 0, 1, 2) if self._channels_last else brick

    def _sums(self, key: Key, device: torch.device) -> torch.Tensor:
        if key not in self.store:
            assert self.channels is not None
            shape = [s.stop - s.start for s in self._region(key)]
            sizes = [*shape, self.channels] if self._channels_last else [self.channels, *shape]
            self.store.put(key, torch.zeros(sizes, device=device))
        return self._as_KZYX(self.store.get(key, to_change=True))

    def _weights(self, key: Key) -> torch.Tensor:
        """Return the sum of weights of all windows over a brick, also of skipped ones; 1 where there is none."""
        overlaps = (
            tuple(part[1:] for i in axis.windows[k] for part in axis.overlaps[i] if part[0] == k)
            for axis, k in zip(self.axes, key, strict=True)
        )
        return self._sum_of_weights(tuple(s.stop - s.start for s in self._region(key)), *overlaps)

    def _next_use(self, key: Key) -> Key:
        """Return the next window that a brick is needed for; in raster order, the brick needed last is spilled."""
        y, x = (axis.windows[k] for axis, k in zip(self.axes[1:], key[1:], strict=True))
        iz, iy, ix = self._now
        if iy < y[0]:
            return iz, y[0], x[0]
        if iy <= y[-1] and ix < x[-1]:
            return iz, iy, max(ix + 1, x[0])
        if iy < y[-1]:
            return iz, iy + 1, x[0]
        return iz + 1, y[0], x[0]


def _sum_of_weights(
    weight_ZYX: torch.Tensor, shape: Shape, *overlaps: tuple[tuple[int, int, int], ...]
) -> torch.Tensor:
    """Return the sum of weights of a brick of that shape, whose overlaps with windows are those; 1 where it is 0."""
    total_ZYX = torch.zeros(shape, device=weight_ZYX.device)
    for parts in product(*overlaps):
        inside = tuple(slice(first, first + length) for first, _, length in parts)
        place = tuple(slice(first, first + length) for _, first, length in parts)
        total_ZYX[place] += weight_ZYX[inside]
    return total_ZYX.masked_fill_(total_ZYX == 0, 1)


def _chunks(parts: Sequence[Overlap], channels: int, on_cpu: bool) -> Iterator[tuple[Box, Box]]:
    """Yield boxes of the window and of the brick, thin enough in z to stay in cache; on a GPU all at once."""
    (_, z, z_to, depth), (_, y, y_to, height), (_, x, x_to, width) = parts
    step = max(1, _CHUNK // (height * width * channels)) if on_cpu else depth
    for a in range(0, depth, step):
        b = min(a + step, depth)
        yield (
            (slice(z + a, z + b), slice(y, y + height), slice(x, x + width)),
            (slice(z_to + a, z_to + b), slice(y_to, y_to + height), slice(x_to, x_to + width)),
        )
