"""Weighted sums of overlapping windows, brick by brick: a brick is handed out when its last window was added.

On a CPU bricks are small, so that they may be spilled to files, and what is added stays in a core's cache. On a GPU a
brick is a whole layer of the volume (`layer_shape`): a window then meets two or three of them instead of up to 27, each
addition is one kernel, and a batch is activated at once. A voxel of one channel of one window is then read as the
network's 2 or 4 bytes, written and read again as float32 probability (8), and its sum is read and written (8): 18 to 20
bytes and about 10 FLOP, of which 10 to 12 bytes are the least that one fused kernel would move. A window of 64x128x128
with 4 channels is 80 MB: 0.09 ms at 900 GB/s (V100), 0.025 ms at 3.35 TB/s (H100), against milliseconds in the network.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil

import torch

from cytovox.inference.store import BrickStore, Key
from cytovox.inference.windows import Windows
from cytovox.io.regions import Box, Shape, grid_boxes

#: Size in voxels that bricks are at least of, where the volume has as many: as chunks of a Zarr they are neither many
#: nor large (half a million voxels), and four channels of one float32 sum are 8 MiB.
BRICK: Shape = (32, 128, 128)

#: Elements that are activated, weighted and added at once: a float32 MiB, which stays in a core's cache.
_CHUNK = 2**18

#: Sums of weights that are kept: bricks in the inside share one, those at faces, edges and corners differ.
_KEPT_WEIGHTS = 16


def brick_shape(shape: Shape, stride: Shape) -> Shape:
    """Size of bricks: `BRICK` rounded up to whole strides, so that windows share their borders; at most the volume."""
    z, y, x = (min(n, s * ceil(b / s)) for n, s, b in zip(shape, stride, BRICK, strict=True))
    return z, y, x


def layer_shape(shape: Shape, stride: Shape) -> Shape:
    """Size of bricks that are whole layers: as deep as those of `brick_shape`, and as wide as the volume."""
    return (brick_shape(shape, stride)[0], *shape[1:])


@dataclass(frozen=True)
class Said:
    """What one network said to a batch of windows."""

    output_BKZYX: torch.Tensor
    """Any float type; best in the layout in which the network computes."""
    logits: bool = False
    """Take the sigmoid, in float32, before it is averaged."""
    flips: tuple[int, ...] = ()
    """Axes (0 to 2 for z, y, x) along which the network saw the windows mirrored."""

    def region(self, item: int, box: Box, last: bool) -> torch.Tensor:
        """Float32 values of a box of one window, turned back; (K, z, y, x), or (z, y, x, K) where `last`."""
        region = channels(self.output_BKZYX[item], last)
        first = 0 if last else 1  # where z is
        mirrored = list(box)
        for axis in self.flips:
            size = region.shape[first + axis]
            mirrored[axis] = slice(size - box[axis].stop, size - box[axis].start)
        region = region[_at(mirrored, last)]
        if self.flips:
            region = region.flip([first + axis for axis in self.flips])
        if region.dtype != torch.float32:
            region = region.float()
            return region.sigmoid_() if self.logits else region
        return region.sigmoid() if self.logits else region

    def activated(self) -> "Said":
        """Return the same as float32 probabilities, turned back, for the whole batch at once."""
        output = self.output_BKZYX.float()
        if self.logits:
            output = output.sigmoid()
        if self.flips:
            output = output.flip([2 + axis for axis in self.flips])
        return Said(output)


def channels(tensor_KZYX: torch.Tensor, last: bool) -> torch.Tensor:
    """The same tensor, or a view of it as (z, y, x, K)."""
    return tensor_KZYX.permute(1, 2, 3, 0) if last else tensor_KZYX


def channels_first(tensor: torch.Tensor, last: bool) -> torch.Tensor:
    """A view of it as (K, z, y, x); `last` says whether it is (z, y, x, K)."""
    return tensor.permute(3, 0, 1, 2) if last else tensor


def _at(box: Sequence[slice], last: bool) -> tuple[slice, ...]:
    """The index of a box in a tensor whose channels are the last axis, or the first."""
    return tuple(box) if last else (slice(None), *box)


@dataclass(frozen=True)
class _Axis:
    """How windows and bricks overlap along one axis."""

    bricks: list[slice]
    """What each brick covers."""
    parts: list[list[tuple[int, slice, slice]]]
    """For each window: the bricks it touches, with the part inside the window and inside the brick."""
    windows: list[range]
    """For each brick: the windows that touch it, a run of neighbours."""

    @classmethod
    def of(cls, size: int, brick: int, starts: tuple[int, ...], window: int) -> "_Axis":
        bricks = [slice(a, min(a + brick, size)) for a in range(0, size, brick)]
        parts: list[list[tuple[int, slice, slice]]] = []
        windows = [range(0)] * len(bricks)
        for i, start in enumerate(starts):
            parts.append([])
            for b in range(max(0, start) // brick, len(bricks)):
                low, high = max(start, bricks[b].start), min(start + window, bricks[b].stop)
                if low >= high:
                    break
                first = bricks[b].start
                parts[i].append((b, slice(low - start, high - start), slice(low - first, high - first)))
                windows[b] = range(windows[b].start if windows[b] else i, i + 1)
        return cls(bricks, parts, windows)


class Bricks:
    """The accumulator. Windows are added in raster order; the sums and weights are float32.

    The sum of weights is known before anything was predicted, so it is not accumulated with the values but made once
    for each way in which windows can lie over a brick, by the same additions in the same order: a network of ones
    comes out as ones to the last bit, whatever the weights.

    Sums are kept in the layout of the network's output, channels innermost where that is `channels_last_3d`: each
    voxel is transposed once, when its brick is handed out, instead of once a window.

    Parameters
    ----------
    windows : Windows
        All windows, those included that are skipped.
    brick : three ints
        Size of the bricks, on a regular grid from the volume's first voxel on.
    weight_ZYX : float32 tensor
        Weight of a window's voxels.
    store : BrickStore
        Where sums are kept; its `needed` is set.
    box : three ints, optional
        Size of the boxes that a brick is handed out in, on a regular grid too; whole bricks if not given. The bricks'
        size must be a multiple of it, or the volume's.
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
        """K; None until a network said something."""
        self.views = 1
        """How often each window is added: once a network and mirror image."""
        self._weight_ZYX = weight_ZYX
        self._laid_out = weight_ZYX
        self._last = False
        self._sums_of_weights: OrderedDict[tuple, torch.Tensor] = OrderedDict()
        self._now: Key = (0, 0, 0)
        store.needed = self._next_use

    def lay_out(self, said: Said) -> None:
        """Take number of channels, layout and device from a first output."""
        output = said.output_BKZYX
        self.channels = output.shape[1]
        last = torch.channels_last_3d
        self._last = output.is_contiguous(memory_format=last) and not output.is_contiguous()
        self._weight_ZYX = self._weight_ZYX.to(output.device)
        self._laid_out = channels(self._weight_ZYX.expand(self.channels, *self.windows.window), self._last)
        if self._last:  # torch does not vectorise along an innermost axis that is broadcast
            self._laid_out = self._laid_out.contiguous()

    def prepare(self, indices: Sequence[Shape], said: Said) -> None:
        """Allocate all that adding these windows needs, so that none is added where memory does not suffice for all.

        Parameters
        ----------
        indices : sequence of three ints
            Which windows.
        said : Said
            Their outputs.
        """
        if self.channels is None:
            self.lay_out(said)
        for index in indices:
            for parts in product(*(axis.parts[i] for axis, i in zip(self.axes, index, strict=True))):
                self._sums((parts[0][0], parts[1][0], parts[2][0]), said.output_BKZYX.device)

    def add(self, index: Shape, said: Said, item: int) -> None:
        """Add one window.

        Parameters
        ----------
        index : three ints
            Which window. Raster order is what the store counts on when it spills.
        said : Said
            A batch of outputs.
        item : int
            The window's place in the batch.
        """
        if self.channels is None:
            self.lay_out(said)
        self._now = index
        for parts in product(*(axis.parts[i] for axis, i in zip(self.axes, index, strict=True))):
            sums = self._sums((parts[0][0], parts[1][0], parts[2][0]), said.output_BKZYX.device)
            for inside, place in _chunks(parts, sums.shape[-1 if self._last else 0], sums.is_cpu):
                part = sums[_at(place, self._last)]
                part.addcmul_(said.region(item, inside, self._last), self._laid_out[_at(inside, self._last)])

    def finished(self, index: Shape) -> Iterator[Key]:
        """The bricks whose last window that is."""
        ends = [[p[0] for p in a.parts[i] if a.windows[p[0]][-1] == i] for a, i in zip(self.axes, index, strict=True)]
        yield from product(*ends)

    def untouched(self) -> Iterator[Key]:
        """The bricks that no window reaches: above and below the slab of `z: center` or `middle`."""
        for key in product(*(range(len(axis.bricks)) for axis in self.axes)):
            if not all(axis.windows[b] for axis, b in zip(self.axes, key, strict=True)):
                yield key  # type: ignore[misc]

    def box(self, key: Key) -> Box:
        """What a brick covers."""
        z, y, x = (axis.bricks[b] for axis, b in zip(self.axes, key, strict=True))
        return z, y, x

    def boxes(self, key: Key) -> Iterator[Box]:
        """The boxes that a brick is handed out in."""
        brick = self.box(key)
        for box in grid_boxes([side.stop - side.start for side in brick], self._box):
            z, y, x = (slice(a.start + b.start, a.start + b.stop) for a, b in zip(brick, box, strict=True))
            yield z, y, x

    def take(self, key: Key, place: Callable[[Box, int], torch.Tensor]) -> Iterator[tuple[Box, torch.Tensor]]:
        """Hand out the weighted mean of a finished brick in boxes, and forget its sums.

        Parameters
        ----------
        key : three ints
            Which brick.
        place : callable
            From a box and K to the float32 tensor (K, z, y, x) that it is written to, of any strides and device.

        Yields
        ------
        box, values
            What `place` gave, filled: 0 where no window was added.
        """
        assert self.channels is not None
        brick = self.box(key)
        sums, weight_ZYX = None, None
        if key in self.store:
            sums = channels_first(self.store.pop(key), self._last)
            weight_ZYX = self._sum_of_weights(key)
        for box in self.boxes(key):
            out_KZYX = place(box, self.channels)
            if sums is None or weight_ZYX is None:
                out_KZYX.zero_()
            else:
                inside = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, brick, strict=True))
                self._divide(sums[(slice(None), *inside)], weight_ZYX[inside], out_KZYX)
            yield box, out_KZYX

    def _divide(self, sums_KZYX: torch.Tensor, weight_ZYX: torch.Tensor, out_KZYX: torch.Tensor) -> None:
        if sums_KZYX.device == out_KZYX.device:
            torch.div(sums_KZYX, weight_ZYX, out=out_KZYX)
        else:
            out_KZYX.copy_(sums_KZYX / weight_ZYX)
        if self.views > 1:
            out_KZYX /= self.views

    def _sums(self, key: Key, device: torch.device) -> torch.Tensor:
        if key in self.store:
            return self.store.get(key, to_change=True)
        assert self.channels is not None
        shape = [s.stop - s.start for s in self.box(key)]
        sums = torch.zeros([*shape, self.channels] if self._last else [self.channels, *shape], device=device)
        self.store.put(key, sums)
        return sums

    def _sum_of_weights(self, key: Key) -> torch.Tensor:
        """Of all windows over a brick, those included that were skipped; 1 where there is none."""
        axes = list(zip(self.axes, key, strict=True))
        parts = [[p for i in axis.windows[b] for p in axis.parts[i] if p[0] == b] for axis, b in axes]
        shape = tuple(s.stop - s.start for s in self.box(key))
        way = (shape, *(tuple((p[1].start, p[2].start) for p in axis) for axis in parts))
        total = self._sums_of_weights.pop(way, None)
        if total is None:
            total = torch.zeros(shape, device=self._weight_ZYX.device)
            for z, y, x in product(*parts):
                total[z[2], y[2], x[2]] += self._weight_ZYX[z[1], y[1], x[1]]
            total.masked_fill_(total == 0, 1)
        self._sums_of_weights[way] = total
        if len(self._sums_of_weights) > _KEPT_WEIGHTS:
            self._sums_of_weights.popitem(last=False)
        return total

    def _next_use(self, key: Key) -> Key:
        """The window that a brick waits for: raster order is known, so the right brick can be spilled."""
        y, x = (axis.windows[b] for axis, b in zip(self.axes[1:], key[1:], strict=True))
        iz, iy, ix = self._now
        if iy < y[0]:
            return iz, y[0], x[0]
        if iy <= y[-1] and ix < x[-1]:
            return iz, iy, max(ix + 1, x[0])
        if iy < y[-1]:
            return iz, iy + 1, x[0]
        return iz + 1, y[0], x[0]


def _chunks(parts: Sequence[tuple[int, slice, slice]], channels: int, on_cpu: bool) -> Iterator[tuple[Box, Box]]:
    """Boxes inside the window and inside the brick, thin enough in z to stay in cache; on a GPU all at once."""
    (_, z, z_to), (_, y, y_to), (_, x, x_to) = parts
    depth = z.stop - z.start
    plane = (y.stop - y.start) * (x.stop - x.start) * channels
    step = max(1, _CHUNK // plane) if on_cpu else depth
    for a in range(0, depth, step):
        b = min(a + step, depth)
        yield (slice(z.start + a, z.start + b), y, x), (slice(z_to.start + a, z_to.start + b), y_to, x_to)
