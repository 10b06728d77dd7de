"""One pass over one volume: read windows, predict them in batches, and add them to the sums."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from cytovox.inference.bricks import BatchOutput, Bricks
from cytovox.inference.device_memory import DeviceLimits
from cytovox.inference.store import Key
from cytovox.inference.transfers import Download, Step, Transfers
from cytovox.inference.windows import Source, Windows, exceeds, only_medium, read_padded
from cytovox.io.regions import Box, Shape

#: From a batch of windows (b, C, z, y, x) to the output of each network for the windows and each mirror image of them.
Predict = Callable[[torch.Tensor], Iterable[BatchOutput]]
#: From a box and K to the float32 tensor (K, z, y, x) that the values of the box are written to.
Place = Callable[[Box, int], torch.Tensor]
#: Number (z, y, x) and voxels of a window: float32 (C, z, y, x).
Window = tuple[Shape, torch.Tensor]
Item = TypeVar("Item")


@dataclass
class WindowPass:
    """One pass of a network over a volume.

    In layers, the loop over windows never waits for the device: the host enqueues the next batch (reading, upload,
    normalisation and resampling) while the device computes this one. Which windows are skipped is computed on the
    device for one layer of windows ahead, and read once per layer.
    """

    source: Source
    """The volume."""
    windows: Windows
    """Positions of the windows."""
    bricks: Bricks
    """Sums of the windows."""
    predict: Predict
    """The network."""
    device: torch.device
    """Device of the network."""
    pad_mode: str
    """As of `read_padded`."""
    skip_below: float | None
    """As of `SlidingWindow`."""
    limits: DeviceLimits
    """Size of a batch, which is lowered when a batch does not fit."""
    layers: bool
    """Bricks are whole layers on the network's device; else bricks of the CPU's size, in main memory if `limits` says
    so."""
    fill: bool = False
    """Fill the last batch up with windows of 0, so that all batches have one shape."""

    def steps(self, place: Place, progress: Callable[[int, int], None] | None = None) -> Iterator[Step]:
        """Yield each finished box and its values, and None after each batch of windows.

        Parameters
        ----------
        place : callable
            From a box and K to the tensor that its values are written to.
        progress : callable, optional
            Called with the number of windows that are done, and of all.
        """
        since: list[Shape] = []  # windows since the last batch, and those of them that are not skipped
        kept: list[Window] = []
        self._transfers = Transfers(self.device)
        for done, (index, window_CZYX) in enumerate(self._read_all(), 1):
            since.append(index)
            if window_CZYX is not None:
                kept.append((index, window_CZYX))
            if kept and len(kept) < self.limits.batch and done < len(self.windows):
                continue
            self._add(kept)
            for key in [key for index in since for key in self.bricks.finished(index)]:
                yield from self._take(key, index, place)
            since.clear()
            kept.clear()
            if progress is not None:
                progress(done, len(self.windows))
            yield None
        for key in self.bricks.untouched():
            yield from self._take(key, (0, 0, 0), place)

    def _take(self, key: Key, index: Shape, place: Place) -> Iterator[tuple[Box, torch.Tensor]]:
        if self.bricks.channels is None:  # all windows were skipped so far: only an output shows K
            self._summand(next(self._outputs([self._read(index)])))
        yield from self.bricks.take(key, place)

    def _read_all(self) -> Iterator[tuple[Shape, torch.Tensor | None]]:
        """Yield number and voxels of each window in raster order; None for the voxels of a skipped one."""
        if self.skip_below is not None and self.layers:
            yield from self._read_in_layers(self.skip_below)
            return
        for index in self.windows:
            window_CZYX = self._read(index)
            skipped = self.skip_below is not None and only_medium(window_CZYX, self.skip_below)
            yield index, None if skipped else window_CZYX

    def _read_in_layers(self, threshold: float) -> Iterator[tuple[Shape, torch.Tensor | None]]:
        """Yield the same; the check of the next layer is enqueued before the windows of this layer."""
        layers = len(self.windows.starts[0])
        ahead = self._not_skipped(0, threshold)
        for z in range(layers):
            computed = ahead.wait().tolist()
            if z + 1 < layers:
                ahead = self._not_skipped(z + 1, threshold)
            for index, wanted in zip(self.windows.layer(z), computed, strict=True):
                yield index, self._read(index) if wanted else None

    def _not_skipped(self, z: int, threshold: float) -> Download:
        """Return which windows of a layer show more than medium: bool, copied to main memory in the background."""
        groups = _batches(list(self.windows.layer(z)), self.limits.batch)
        found = torch.cat([exceeds(torch.stack([self._read(i) for i in group]), threshold) for group in groups])
        return self._transfers.download(found) if found.device == self.device else Download(found.cpu(), None)

    def _read(self, index: Shape) -> torch.Tensor:
        return read_padded(self.source, self.windows.start(index), self.windows.window, self.pad_mode).float()

    def _add(self, kept: list[Window]) -> None:
        """Predict and add windows, in smaller batches if they do not fit into memory.

        Raises
        ------
        torch.OutOfMemoryError
            A single window does not fit. No sum is lost, but those of this pass are incomplete.
        """
        groups = [(kept, 0)] if kept else []  # with the number of views of a group that are in the sums
        while groups:
            group, added = groups.pop()
            if len(group) > self.limits.batch:
                groups += [(part, added) for part in reversed(_batches(group, self.limits.batch))]
                continue
            fits, added = self._fits(group, added)
            if not fits:
                groups.append((group, added))

    def _fits(self, group: list[Window], added: int) -> tuple[bool, int]:
        """Predict and add a batch except its first views; return whether it fitted, and how many views are added."""
        try:
            for view, output in enumerate(self._outputs([window for _, window in group])):
                if view >= added:
                    self._add_view(group, output)
                    added = view + 1
                self.bricks.views = view + 1
        except torch.OutOfMemoryError:
            if not self.limits.halve_batch(len(group)):
                raise
            return False, added
        return True, added

    def _add_view(self, group: list[Window], output: BatchOutput) -> None:
        output = self._summand(output)
        if self.layers:
            self.bricks.prepare([index for index, _ in group], output.output_BKZYX.device)
        for item, (index, _) in enumerate(group):
            self.bricks.add(index, output, item)

    def _summand(self, output: BatchOutput) -> BatchOutput:
        """Return an output as it is added to the sums, which take their format from the first one."""
        if self.layers:
            output = output.activated()
        elif self.limits.sums_on_host:
            output = replace(output, output_BKZYX=output.output_BKZYX.cpu())
        if self.bricks.channels is None:
            self.bricks.set_format(output.output_BKZYX)
        return output

    def _outputs(self, windows: list[torch.Tensor]) -> Iterator[BatchOutput]:
        """Yield the outputs for a batch; an output of another type or size is a bug of the network."""
        missing = self.limits.batch - len(windows) if self.fill else 0
        batch_BCZYX = torch.stack(windows + [torch.zeros_like(windows[0])] * missing)
        if batch_BCZYX.device != self.device:
            batch_BCZYX = self._transfers.upload(batch_BCZYX)
        for output in self.predict(batch_BCZYX):
            values = output.output_BKZYX
            if not isinstance(values, torch.Tensor):
                raise TypeError(f"the network returned {type(values).__name__}: expected one tensor")
            if values.shape[2:] != batch_BCZYX.shape[2:]:
                raise ValueError(
                    f"windows of {list(batch_BCZYX.shape[2:])} became {list(values.shape[2:])} in the network"
                )
            yield output


def _batches(items: list[Item], size: int) -> list[list[Item]]:
    return [items[first : first + size] for first in range(0, len(items), size)]


def new_tensor(device: torch.device | None, box: Box, channels: int) -> torch.Tensor:
    """Return an uninitialised tensor for the values of a box; in main memory if no device is given."""
    return torch.empty((channels, *(side.stop - side.start for side in box)), device=device)
