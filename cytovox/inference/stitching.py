"""One pass over one volume: windows are read, predicted in batches, and added to the sums."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from cytovox.inference.bricks import Bricks, Said
from cytovox.inference.device_memory import DeviceLimits
from cytovox.inference.store import Key
from cytovox.inference.transfers import Download, Step, Transfers
from cytovox.inference.windows import Source, Windows, exceeds, only_medium, read_padded
from cytovox.io.regions import Box, Shape

#: From a batch of windows (b, C, z, y, x) to what each network and mirror image says about it.
Predict = Callable[[torch.Tensor], Iterable[Said]]
#: Where the values of a box with K channels are written to: a float32 tensor (K, z, y, x).
Place = Callable[[Box, int], torch.Tensor]
#: A window's number along z, y, x, and what it shows: float32 (C, z, y, x), None if it is not to be computed.
Seen = tuple[Shape, torch.Tensor | None]


@dataclass
class WindowPass:
    """One pass of a network over a volume.

    In layers, nothing in the loop over windows waits for the device: the host enqueues the next batch (it reads,
    uploads, normalises and resamples what that needs) while the device still computes this one. What is skipped is
    decided for a layer of windows at once, on the device, one layer ahead, and read once a layer.
    """

    source: Source
    """The volume."""
    windows: Windows
    """Where windows lie in it."""
    bricks: Bricks
    """Where they are summed up."""
    predict: Predict
    """The network."""
    device: torch.device
    """Where it computes."""
    pad_mode: str
    """As of `read_padded`."""
    skip_below: float | None
    """As of `SlidingWindow`."""
    limits: DeviceLimits
    """Holds the size of a batch, which is lowered when it does not fit."""
    layers: bool
    """Bricks are whole layers, and sums lie where the network computes; else bricks of the CPU's size, in main memory
    if `limits` says so."""
    fill: bool = False
    """Fill the last batch up with windows of 0, so that all batches have one shape."""

    def steps(self, place: Place, progress: Callable[[int, int], None] | None = None) -> Iterator[Step]:
        """Yield each finished box and its values, and None after each batch of windows.

        Parameters
        ----------
        place : callable
            From a box and K to the tensor that its values are written to.
        progress : callable, optional
            Called with how many windows of how many are done.
        """
        since: list[Shape] = []  # windows since the last batch, and those of them that are to be computed
        kept: list[tuple[Shape, torch.Tensor]] = []
        self._transfers = Transfers(self.device)
        for done, (index, window_CZYX) in enumerate(self._seen(), 1):
            since.append(index)
            if window_CZYX is not None:
                kept.append((index, window_CZYX))
            if kept and len(kept) < self.limits.batch and done < len(self.windows):
                continue
            if kept:
                self._add(kept)
            for key in [key for index in since for key in self.bricks.finished(index)]:
                yield from self._hand_out(key, index, place)
            since.clear()
            kept.clear()
            if progress is not None:
                progress(done, len(self.windows))
            yield None
        for key in self.bricks.untouched():
            yield from self._hand_out(key, (0, 0, 0), place)

    def _hand_out(self, key: Key, index: Shape, place: Place) -> Iterator[tuple[Box, torch.Tensor]]:
        if self.bricks.channels is None:  # nothing but medium so far: ask, or K is not known
            self.bricks.lay_out(next(self._ask([self._read(index)])))
        yield from self.bricks.take(key, place)

    def _seen(self) -> Iterator[Seen]:
        """The windows in raster order."""
        if self.skip_below is None:
            for index in self.windows:
                yield index, self._read(index)
        elif self.layers:
            yield from self._seen_in_layers(self.skip_below)
        else:
            for index in self.windows:
                window_CZYX = self._read(index)
                yield index, None if only_medium(window_CZYX, self.skip_below) else window_CZYX

    def _seen_in_layers(self, threshold: float) -> Iterator[Seen]:
        """The same; whether the windows of the next layer show anything is enqueued before this layer's windows."""
        layers = len(self.windows.starts[0])
        ahead = self._shows(0, threshold)
        for z in range(layers):
            shows = ahead.wait().tolist()
            if z + 1 < layers:
                ahead = self._shows(z + 1, threshold)
            for index, show in zip(self.windows.layer(z), shows, strict=True):
                yield index, self._read(index) if show else None

    def _shows(self, z: int, threshold: float) -> Download:
        """Which windows of a layer show more than medium: bool, on its way to main memory."""
        indices = list(self.windows.layer(z))
        parts = []
        for first in range(0, len(indices), self.limits.batch):
            group = [self._read(index) for index in indices[first : first + self.limits.batch]]
            parts.append(exceeds(torch.stack(group), threshold))
        found = torch.cat(parts)
        return self._transfers.download(found) if found.device == self.device else Download(found.cpu(), None)

    def _read(self, index: Shape) -> torch.Tensor:
        return read_padded(self.source, self.windows.start(index), self.windows.window, self.pad_mode).float()

    def _add(self, kept: list[tuple[Shape, torch.Tensor]]) -> None:
        """Predict and add windows; where a batch does not fit into memory, its halves are.

        Raises
        ------
        torch.OutOfMemoryError
            A single window does not fit. No sum is lost, but those of this pass are incomplete.
        """
        groups = [(kept, 0)]  # with how many views of a group are in the sums
        while groups:
            group, added = groups.pop()
            if len(group) > self.limits.batch:
                size = self.limits.batch
                parts = [group[first : first + size] for first in range(0, len(group), size)]
                groups += [(part, added) for part in reversed(parts)]
                continue
            fits, added = self._fits(group, added)
            if not fits:
                groups.append((group, added))

    def _fits(self, group: list[tuple[Shape, torch.Tensor]], added: int) -> tuple[bool, int]:
        """Predict and add a batch but for its first views; False, and how many are added, if it was too large."""
        try:
            for view, said in enumerate(self._ask([window for _, window in group])):
                if view >= added:
                    self._add_view(group, said)
                    added = view + 1
                self.bricks.views = view + 1
        except torch.OutOfMemoryError:
            if not self.limits.halve_batch(len(group)):
                raise
            return False, added
        return True, added

    def _add_view(self, group: list[tuple[Shape, torch.Tensor]], said: Said) -> None:
        if self.layers:
            said = said.activated()
            self.bricks.prepare([index for index, _ in group], said)
        elif self.limits.sums_on_host:
            said = Said(said.output_BKZYX.cpu(), said.logits, said.flips)
        for item, (index, _) in enumerate(group):
            self.bricks.add(index, said, item)

    def _ask(self, windows: list[torch.Tensor]) -> Iterator[Said]:
        """What is said about a batch; it is a bug of the network if that does not fit."""
        missing = self.limits.batch - len(windows) if self.fill else 0
        batch_BCZYX = torch.stack(windows + [torch.zeros_like(windows[0])] * missing)
        if batch_BCZYX.device != self.device:
            batch_BCZYX = self._transfers.upload(batch_BCZYX)
        for said in self.predict(batch_BCZYX):
            output = said.output_BKZYX
            if not isinstance(output, torch.Tensor):
                raise TypeError(f"the network returned {type(output).__name__}: expected one tensor")
            if output.shape[2:] != batch_BCZYX.shape[2:]:
                raise ValueError(
                    f"windows of {list(batch_BCZYX.shape[2:])} became {list(output.shape[2:])} in the network"
                )
            yield said
