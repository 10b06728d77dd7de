"""A dense prediction over a volume of any size, window by window."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from monai.inferers import Inferer
from rich.progress import Progress

from cytovox.errors import InputError
from cytovox.inference.bricks import BatchOutput, Bricks, brick_shape, layer_shape
from cytovox.inference.cell_layer import find_layer, middle_slab
from cytovox.inference.device_memory import DeviceLimits, note, with_less_memory
from cytovox.inference.stitching import Place, Predict, WindowPass
from cytovox.inference.store import BrickStore
from cytovox.inference.transfers import Step, indexed
from cytovox.inference.windows import PAD_MODES, WEIGHTS, Source, TensorSource, Windows, window_starts, window_weight
from cytovox.io.regions import Box, Shape

Z_RULES = ("tile", "center", "middle")


@dataclass
class SlidingWindow(Inferer):
    """Sliding-window inference: overlapping windows, blended and divided by the accumulated weight.

    Windows begin at 0, s, 2s, ... of the padded volume, and the last one ends with it. Their order is z, y, x, and what
    they say is summed up brick by brick (`cytovox.inference.bricks`), so that a volume need not fit into memory
    (`stream`).

    The predictor's outputs are averaged as they are, so give it probabilities (as the paper does), not logits: the
    sigmoid belongs into the predictor, window by window.

    References
    ----------
    Choi et al. 2021, bioRxiv 2021.05.23.445351: `weight: spline`, `z: center`, stride 64 and `pad_yx: [64, 64]`. Of z
    its text says the central 64 slices: of tomograms that are focused on the cells.
    """

    window: Shape = (64, 128, 128)
    """Size (z, y, x) of what the network sees at once, in voxels."""
    stride: Shape = (32, 64, 64)
    """Step (z, y, x) from window to window, 1 up to the window's size. Half a window blends without a seam."""
    weight: str = "spline"
    """How a window's voxels count: spline (triangular, as in the paper), gaussian or constant."""
    z: str = "tile"
    """tile: the whole depth. center: a slab, one window deep, centred on the layer of cells (see `cell_layer`), 0
    above and below it; as in the paper, whose cells lie in the middle. middle: a slab in the middle of the volume."""
    pad_yx: tuple[int, int] = (64, 64)
    """Voxels added on either side of y and x before tiling and cut off again after it; 64 in the paper."""
    pad_mode: str = "symmetric"
    """What is added: symmetric (mirrored, edge voxels repeated), edge, or constant (0: the normalisation's ri_min).
    A volume smaller than the window is filled up with the same, in z too."""
    sw_batch_size: int = 1
    """Windows that the network sees in one batch."""
    progress: bool = False
    """Show a progress bar over the windows."""
    skip_below: float | None = None
    """Do not compute windows that show nothing but medium: they are taken for 0 everywhere, and count with their weight
    just as if the network had said so. A window is skipped if, cut into blocks of 4x4x4 voxels from its first voxel on
    (blocks cut by its end are smaller), no block has a mean above this; the window is looked at as the network would
    see it, normalised and padded. None computes all windows."""

    limits: DeviceLimits = field(init=False, repr=False, compare=False)
    """How far a device's memory reached; kept from volume to volume."""
    noted: set[str] = field(init=False, repr=False, compare=False, default_factory=set)
    """Kinds of notes that were printed: each once, not for every volume."""

    def __post_init__(self) -> None:
        errors = self.errors()
        if errors:
            raise InputError("sliding window: " + "; ".join(errors))
        for name in ("window", "stride", "pad_yx"):  # a config hands over lists
            setattr(self, name, tuple(getattr(self, name)))
        self.limits = DeviceLimits(self.sw_batch_size)

    def errors(self) -> list[str]:
        """Everything that is wrong with these settings, a phrase each."""
        errors = []
        if len(self.window) != 3 or min(self.window) < 1:
            errors.append(f"window {list(self.window)}: expected three sizes in voxels, z, y, x, at least 1")
        elif len(self.stride) != 3 or any(not 1 <= s <= w for s, w in zip(self.stride, self.window, strict=True)):
            errors.append(
                f"stride {list(self.stride)}: expected 1 up to the window {list(self.window)} in each axis, "
                "or voxels between windows are never seen"
            )
        if len(self.pad_yx) != 2 or min(self.pad_yx) < 0:
            errors.append(f"pad_yx {list(self.pad_yx)}: expected two numbers of voxels, y and x, at least 0")
        if self.sw_batch_size < 1:
            errors.append(f"sw_batch_size {self.sw_batch_size}: expected at least 1")
        for name, legal in (("weight", WEIGHTS), ("z", Z_RULES), ("pad_mode", PAD_MODES)):
            if getattr(self, name) not in legal:
                errors.append(f"{name} {getattr(self, name)!r}: expected one of {', '.join(legal)}")
        if self.skip_below is not None and not 0 <= self.skip_below < 1:
            errors.append(f"skip_below {self.skip_below}: expected null, or 0 to less than 1 of the normalised range")
        return errors

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
            Where the windows are sent before the network sees them; the inputs' device if not given. What the network
            says is summed up where it says it.
        *args, **kwargs
            Handed on to the network.

        Returns
        -------
        float32 tensor, (B, K, Z, Y, X)
            The weighted mean of what the windows said. 0 outside the slab of `z: center` and `middle`. It carries no
            gradient.
        """
        results: list[torch.Tensor] = []
        number = 0

        def predict(windows_BCZYX: torch.Tensor) -> Iterator[BatchOutput]:
            yield BatchOutput(network(windows_BCZYX, *args, **kwargs))

        def place(box: Box, channels: int) -> torch.Tensor:
            if not results:
                shape = (len(inputs), channels, *inputs.shape[2:])
                results.append(torch.empty(shape, dtype=torch.float32, device=inputs.device))
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
        """Predict a volume brick by brick; memory is the store's budget, whatever the volume's size.

        Where a GPU's memory does not suffice, batches are halved down to one window, then sums are kept in main memory.
        That is printed, and remembered for the next volumes (`limits`).

        Parameters
        ----------
        source : Source
            The volume, (C, Z, Y, X).
        predict : callable
            (b, C, z, y, x) windows, float32, to what each network and mirror image says about them; the mean is taken.
        store : BrickStore
            Where unfinished sums are kept; the caller ends its context.
        device : device, optional
            Where windows are sent; the source's if not given.
        place : callable, optional
            From a box and K to the tensor that its values are written to; a new one in main memory if not given.
        progress : callable, optional
            Called with the number of windows that are done, and of all.
        layers : bool, optional
            Keep sums of whole layers of the volume where the network computes
            (`cytovox.inference.stitching.WindowPass`); if not given, everywhere but on a CPU.

        Yields
        ------
        box, values
            Disjoint boxes of `brick_shape` that cover the volume, as soon as their last window was added, with their
            float32 probabilities (K, z, y, x).

        Raises
        ------
        InputError
            The device has not even memory for one window.
        """
        target = source.device if device is None else indexed(device)

        def attempt() -> Iterator[tuple[Box, torch.Tensor]]:
            store.clear()
            steps = self.steps(source, predict, store, target, place, progress, layers)
            return (step for step in steps if step is not None)

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
        """One attempt of `stream`, which also yields None after each batch of windows.

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
        brick = layer_shape(source.shape, self.stride) if in_layers else box
        bricks = Bricks(windows, brick, window_weight(self.window, self.weight), store, box)
        one_pass = WindowPass(
            source,
            windows,
            bricks,
            predict,
            indexed(device),
            self.pad_mode,
            self.skip_below,
            self.limits,
            in_layers,
            fill,
        )
        yield from one_pass.steps(place or _new, progress)

    def sums_in_layers(self, device: torch.device, layers: bool | None = None) -> bool:
        """Return whether sums are kept in whole layers, where the network computes."""
        return not self.limits.sums_on_host and (device.type != "cpu" if layers is None else layers)

    def windows(self, shape_ZYX: Sequence[int], slab: tuple[int, int] | None = None) -> Windows:
        """Where windows lie in a volume of that size. Windows of nothing but padding are left out.

        Parameters
        ----------
        shape_ZYX : three ints
            Size of the volume.
        slab : two ints, optional
            Start and stop along z of what is predicted (`find_slab`); in the middle of the volume if not given, which
            has as many windows as any other.
        """
        start, stop = slab if slab is not None else self.middle(shape_ZYX[0])
        ranges = [(start, stop), (0, shape_ZYX[1]), (0, shape_ZYX[2])]
        pads = self._pads([b - a for a, b in ranges])
        starts = []
        for (a, b), (before, after), window, stride in zip(ranges, pads, self.window, self.stride, strict=True):
            padded = window_starts(before + b - a + after, window, stride)
            starts.append(tuple(a - before + s for s in padded if before - window < s < before + b - a))
        z, y, x = shape_ZYX
        return Windows((z, y, x), self.window, (starts[0], starts[1], starts[2]))

    def middle(self, depth: int) -> tuple[int, int]:
        """Start and stop along z of a slab in the middle of a volume of that depth; all of it for `z: tile`."""
        return (0, depth) if self.z == "tile" else middle_slab(depth, self.window[0])

    def find_slab(self, source: Source) -> tuple[int, int]:
        """Start and stop along z of what is predicted in a volume; for `z: center` its voxels are read once more.

        Prints a note, once for all volumes, where no layer of cells is found, and where the slab cuts it.
        """
        if self.z != "center":
            return self.middle(source.shape[0])
        layer = find_layer(source, self.window[0])
        for text in layer.notes:
            kind = "cut" if layer.found else "none"
            if kind not in self.noted:
                self.noted.add(kind)
                note(f"{text} (said once, for the first of such volumes)")
        return layer.start, layer.stop

    def _pads(self, shape_ZYX: Sequence[int]) -> list[tuple[int, int]]:
        """Voxels before and after in z, y, x: the wanted padding, and what is missing to one window."""
        pads = []
        for size, window, wanted in zip(shape_ZYX, self.window, (0, *self.pad_yx), strict=True):
            missing = max(0, window - size - 2 * wanted)
            pads.append((wanted + missing // 2, wanted + missing - missing // 2))
        return pads


def _new(box: Box, channels: int) -> torch.Tensor:
    return torch.empty((channels, *(side.stop - side.start for side in box)))
