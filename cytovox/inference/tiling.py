"""Dense prediction of a volume of any size, window by window."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Any, TypeVar

import torch
from monai.inferers import Inferer
from rich.progress import Progress

from cytovox.inference.bricks import BatchOutput, Bricks, brick_shape
from cytovox.inference.cell_layer import find_layer, middle_slab
from cytovox.inference.device_memory import DeviceLimits, note, with_less_memory
from cytovox.inference.store import BrickStore, Key
from cytovox.inference.transfers import Download, Step, Transfers, indexed
from cytovox.inference.windows import (
    PAD_MODES,
    WEIGHTS,
    Source,
    TensorSource,
    Windows,
    exceeds,
    only_medium,
    read_padded,
    window_starts,
    window_weight,
)
from cytovox.io.regions import Box, Shape
from cytovox.options import option_errors, raise_errors

Z_RULES = ("tile", "center", "middle")

#: From a batch of windows (b, C, z, y, x) to the output of each network for the windows and each mirror image of them.
Predict = Callable[[torch.Tensor], Iterable[BatchOutput]]
#: From a box and K to the float32 tensor (K, z, y, x) that the values of the box are written to.
Place = Callable[[Box, int], torch.Tensor]
#: Number (z, y, x) and voxels of a window: float32 (C, z, y, x).
Window = tuple[Shape, torch.Tensor]
Item = TypeVar("Item")


@dataclass
class SlidingWindow(Inferer):
    """Sliding-window inference: overlapping windows, blended and divided by the accumulated weight.

    Windows begin at 0, s, 2s, ... of the padded volume, and the last one ends with it. Their order is z, y, x. Their
    outputs are summed up brick by brick (`cytovox.inference.bricks`), so that a volume need not fit into memory
    (`stream`).

    The outputs of the network are averaged unchanged: it must return probabilities (as in the paper), not logits.

    References
    ----------
    Choi et al. 2021, bioRxiv 2021.05.23.445351: `weight: spline`, `z: center`, stride 64 and `pad_yx: [64, 64]`. The
    paper takes the central 64 slices of tomograms that are focused on the cells.
    """

    window: Shape = (64, 128, 128)
    """Size (z, y, x) of a window in voxels."""
    stride: Shape = (32, 64, 64)
    """Step (z, y, x) from window to window, 1 up to the window's size. Half a window blends without a seam."""
    weight: str = "spline"
    """Weights of a window's voxels: spline (triangular, as in the paper), gaussian or constant."""
    z: str = "tile"
    """tile: the whole depth. center: a slab, one window deep, centred on the layer of cells (see `cell_layer`), 0
    above and below it; as in the paper, whose cells lie in the middle. middle: a slab in the middle of the volume."""
    pad_yx: tuple[int, int] = (64, 64)
    """Voxels added at each side of y and x before tiling and removed after it; 64 in the paper."""
    pad_mode: str = "symmetric"
    """Values of the added voxels: symmetric (mirrored, edge voxels repeated), edge, or constant (0: the normalisation's
    ri_min). A volume smaller than the window is padded with the same, also in z."""
    sw_batch_size: int = 1
    """Windows in one batch."""
    progress: bool = False
    """Show a progress bar over the windows."""
    skip_below: float | None = None
    """Threshold of the check for windows that show only medium. Such a window is not computed; its output is 0 and
    counts with its weight. The window, normalised and padded, is cut into blocks of 4x4x4 voxels from its first voxel
    on (blocks at its end may be smaller); it is skipped if no block has a mean above the threshold. None computes all
    windows."""

    limits: DeviceLimits = field(init=False, repr=False, compare=False)
    """Limits of the device's memory, kept from volume to volume."""
    noted: set[bool] = field(init=False, repr=False, compare=False, default_factory=set)
    """`Layer.found` of the notes that were printed: each kind of note is printed once."""

    def __post_init__(self) -> None:
        raise_errors("sliding window", self.errors())
        for name in ("window", "stride", "pad_yx"):  # a config hands over lists
            setattr(self, name, tuple(getattr(self, name)))
        self.limits = DeviceLimits(self.sw_batch_size)

    def errors(self) -> list[str]:
        """Return one line per value that is not allowed."""
        window, stride, skip_below = self.window, self.stride, self.skip_below
        window_fits = len(window) == 3 and min(window) >= 1
        steps_fit = len(stride) == 3 and all(1 <= s <= w for s, w in zip(stride, window, strict=False))
        return option_errors(
            self,
            ("window", window_fits, "three sizes in voxels, z, y, x, at least 1"),
            ("stride", steps_fit or not window_fits,
             f"1 up to the window {list(window)} in each axis, or voxels between windows are never computed"),
            ("pad_yx", len(self.pad_yx) == 2 and min(self.pad_yx) >= 0, "two numbers of voxels, y and x, at least 0"),
            ("sw_batch_size", self.sw_batch_size >= 1, "at least 1"),
            ("weight", self.weight in WEIGHTS, f"one of {', '.join(WEIGHTS)}"),
            ("z", self.z in Z_RULES, f"one of {', '.join(Z_RULES)}"),
            ("pad_mode", self.pad_mode in PAD_MODES, f"one of {', '.join(PAD_MODES)}"),
            ("skip_below", skip_below is None or 0 <= skip_below < 1,
             "null, or 0 to less than 1 of the normalised range"),
        )  # fmt: skip

    def __call__(
        self,
        inputs: torch.Tensor,
        network: Callable[..., torch.Tensor],
        *args: Any,
        window_device: torch.device | str | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Predict every voxel.

        Parameters
        ----------
        inputs : float tensor, (B, C, Z, Y, X)
            Images of any size, also smaller than a window. The result lies on their device.
        network : callable
            (b, C, z, y, x) windows, float32, to (b, K, z, y, x) probabilities of any float type.
        window_device : device, optional
            Device of the network; the inputs' device if not given. Its outputs are summed up there.
        *args, **kwargs
            Further arguments of the network.

        Returns
        -------
        float32 tensor, (B, K, Z, Y, X)
            Weighted mean of the windows' outputs, without a gradient; 0 outside the slab of `z: center` and `middle`.
        """
        results: list[torch.Tensor] = []
        number = 0

        def predict(windows_BCZYX: torch.Tensor) -> Iterator[BatchOutput]:
            yield BatchOutput(network(windows_BCZYX, *args, **kwargs))

        def place(box: Box, channels: int) -> torch.Tensor:
            if not results:
                results.append(inputs.new_empty((len(inputs), channels, *inputs.shape[2:]), dtype=torch.float32))
            return results[0][number, :, box[0], box[1], box[2]]

        with Progress(disable=not self.progress, transient=True) as bar:
            task = bar.add_task("windows")

            def report(done: int, total: int) -> None:
                bar.update(task, completed=number * total + done, total=len(inputs) * total)

            for number in range(len(inputs)):
                with BrickStore(inf) as store:
                    for _ in self.stream(TensorSource(inputs[number]), predict, store, window_device, place, report):
                        pass
        return results[0]

    @torch.no_grad()
    def stream(
        self,
        source: Source,
        predict: Predict,
        store: BrickStore,
        device: torch.device | str | None = None,
        place: Place | None = None,
        progress: Callable[[int, int], None] | None = None,
        layers: bool | None = None,
    ) -> Iterator[tuple[Box, torch.Tensor]]:
        """Predict a volume brick by brick; memory is limited by the store's budget.

        If a GPU's memory does not suffice, batches are halved down to one window, then sums are kept in main memory.
        This is printed, and kept for the next volumes (`limits`).

        Parameters
        ----------
        source : Source
            The volume, (C, Z, Y, X).
        predict : callable
            (b, C, z, y, x) windows, float32, to the output of each network for the windows and each mirror image of
            them; the mean is taken.
        store : BrickStore
            Store of unfinished sums; the caller ends its context.
        device : device, optional
            Device of the network; the source's if not given.
        place : callable, optional
            From a box and K to the tensor that its values are written to; a new one in main memory if not given.
        progress : callable, optional
            Called with the number of windows that are done, and of all.
        layers : bool, optional
            Keep sums of whole layers of the volume on the network's device
            (`WindowPass`); if not given, on every device but a CPU.

        Yields
        ------
        box, values
            Disjoint boxes of `brick_shape` that cover the volume, as soon as their last window was added, with their
            float32 probabilities (K, z, y, x).

        Raises
        ------
        DeviceError
            The device has too little memory for one window.
        """
        target = source.device if device is None else indexed(device)

        def attempt() -> Iterator[tuple[Box, torch.Tensor]]:
            store.clear()
            return filter(None, self.steps(source, predict, store, target, place, progress, layers))

        sums_on_device = target.type != "cpu" or self.sums_in_layers(target, layers)
        yield from with_less_memory(self.limits, target, sums_on_device, attempt)

    def steps(
        self,
        source: Source,
        predict: Predict,
        store: BrickStore,
        device: torch.device,
        place: Place | None = None,
        progress: Callable[[int, int], None] | None = None,
        layers: bool | None = None,
        fill: bool = False,
    ) -> Iterator[Step]:
        """Yield the boxes of one attempt of `stream`, and None after each batch of windows.

        Parameters
        ----------
        fill : bool
            Fill the last batch up with windows of 0, so that all batches have one shape.

        Raises
        ------
        torch.OutOfMemoryError
            One window does not fit into the device's memory, or the sums do not.
        """
        windows = self.windows(source.shape, self.find_slab(source))
        box = brick_shape(source.shape, self.stride)
        device, in_layers = indexed(device), self.sums_in_layers(device, layers)
        brick = (box[0], *source.shape[1:]) if in_layers else box  # whole layers are as deep as boxes
        bricks = Bricks(windows, brick, window_weight(self.window, self.weight), store, box)
        one_pass = WindowPass(source, windows, bricks, predict, device, self, in_layers, fill)
        yield from one_pass.steps(place or partial(new_tensor, None), progress)

    def sums_in_layers(self, device: torch.device, layers: bool | None = None) -> bool:
        """Return whether sums are kept in whole layers, on the network's device."""
        return not self.limits.sums_on_host and (device.type != "cpu" if layers is None else layers)

    def windows(self, shape_ZYX: Sequence[int], slab: tuple[int, int] | None = None) -> Windows:
        """Return the positions of the windows in a volume; windows of nothing but padding are left out.

        Parameters
        ----------
        shape_ZYX : three ints
            Size of the volume.
        slab : two ints, optional
            Start and stop along z of the predicted slices (`find_slab`); in the middle of the volume if not given,
            which has the same number of windows.
        """
        starts = []
        ranges = [slab or self.middle(shape_ZYX[0]), (0, shape_ZYX[1]), (0, shape_ZYX[2])]
        for (a, b), window, stride, wanted in zip(ranges, self.window, self.stride, (0, *self.pad_yx), strict=True):
            missing = max(0, window - (b - a) - 2 * wanted)  # voxels that the padded axis lacks to one window
            before = wanted + missing // 2
            padded = window_starts(b - a + 2 * wanted + missing, window, stride)
            starts.append(tuple(a - before + s for s in padded if before - window < s < before + b - a))
        z, y, x = shape_ZYX
        return Windows((z, y, x), self.window, (starts[0], starts[1], starts[2]))

    def middle(self, depth: int) -> tuple[int, int]:
        """Return start and stop along z of a slab in the middle of a volume; of the whole depth for `z: tile`."""
        return (0, depth) if self.z == "tile" else middle_slab(depth, self.window[0])

    def find_slab(self, source: Source) -> tuple[int, int]:
        """Return start and stop along z of the predicted slices; for `z: center` the volume is read once more.

        A note is printed, once for all volumes, if no layer of cells is found, and if the slab cuts it.
        """
        if self.z != "center":
            return self.middle(source.shape[0])
        layer = find_layer(source, self.window[0])
        if layer.notes and layer.found not in self.noted:
            self.noted.add(layer.found)
            note(f"{layer.notes[0]} (printed once, for the first of such volumes)")
        return layer.start, layer.stop


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
    tiling: SlidingWindow
    """Padding, skipped windows, and the size of a batch, which is lowered when a batch does not fit."""
    layers: bool
    """Bricks are whole layers on the network's device; else bricks of the CPU's size, in main memory if
    `tiling.limits.sums_on_host`."""
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
            if kept and len(kept) < self.tiling.limits.batch and done < len(self.windows):
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
        if self.tiling.skip_below is not None and self.layers:
            yield from self._read_in_layers(self.tiling.skip_below)
            return
        for index in self.windows:
            window_CZYX = self._read(index)
            skipped = self.tiling.skip_below is not None and only_medium(window_CZYX, self.tiling.skip_below)
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
        groups = _batches(list(self.windows.layer(z)), self.tiling.limits.batch)
        found = torch.cat([exceeds(torch.stack([self._read(i) for i in group]), threshold) for group in groups])
        return self._transfers.download(found) if found.device == self.device else Download(found.cpu(), None)

    def _read(self, index: Shape) -> torch.Tensor:
        return read_padded(self.source, self.windows.start(index), self.windows.window, self.tiling.pad_mode).float()

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
            if len(group) > self.tiling.limits.batch:
                groups += [(part, added) for part in reversed(_batches(group, self.tiling.limits.batch))]
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
            if not self.tiling.limits.halve_batch(len(group)):
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
        elif self.tiling.limits.sums_on_host:
            output = replace(output, output_BKZYX=output.output_BKZYX.cpu())
        if self.bricks.channels is None:
            self.bricks.set_format(output.output_BKZYX)
        return output

    def _outputs(self, windows: list[torch.Tensor]) -> Iterator[BatchOutput]:
        """Yield the outputs for a batch; an output of another type or size is a bug of the network."""
        missing = self.tiling.limits.batch - len(windows) if self.fill else 0
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
