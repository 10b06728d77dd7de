"""Probabilities of a whole tomogram on its own grid, in memory or streamed.

On a GPU a tomogram is copied to the device once, layer by layer, as it is read. It is normalised, resampled, cut into
windows, stitched and resampled back there, and finished boxes are copied to pinned memory while later windows are
computed. The host waits for the GPU only for finished boxes and, if windows are skipped, for one bool per window, read
one layer of windows at a time. The least traffic on the bus is 4 bytes per voxel of the tomogram, and 4 back per voxel
and organelle: for 128x512x512 and 4 organelles 0.13 and 0.54 GB, 13 and 55 ms at 10 GB/s, besides the network's time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path

import numpy as np
import torch
from monai.networks.utils import eval_mode
from torch import nn

from cytovox.errors import InputError
from cytovox.inference.bricks import BRICK, brick_shape
from cytovox.inference.compiled import Compile
from cytovox.inference.device_memory import with_less_memory
from cytovox.inference.ensemble import Ensemble, probability_predictor
from cytovox.inference.regions import NativeGrid, RegionSource, own_box_shape
from cytovox.inference.store import BrickStore
from cytovox.inference.tiling import Place, SlidingWindow, new_tensor
from cytovox.inference.transfers import Transfers, indexed, to_host
from cytovox.io.regions import ArrayReader, Box, FrameReader, Shape
from cytovox.io.values import unscaled_ri
from cytovox.preprocess.intensity import NormaliseRI
from cytovox.preprocess.resampling import ResampleTo, common_grid

__all__ = ["DenseInferer", "probability_predictor"]

#: Largest share of a GPU's memory for the layers of the input that one layer of windows needs.
_DEVICE_INPUT = 0.25

#: Shares of the working memory: unfinished sums, finished bricks that are not resampled yet, and input. Two rows of
#: bricks across 1024 voxels are 270 MB of sums at four channels, the same rows of input 65 MB.
SUMS, FINISHED, INPUT = 0.6, 0.2, 0.2


@dataclass
class DenseInferer:
    """Normalise, resample, predict windows, resample back: one tomogram to probabilities on its own grid.

    Networks are moved to `device` (and to `channels_last_3d`) once, and are in evaluation mode during each call.
    Volumes are read and predicted region by region.
    """

    network: nn.Module | Sequence[nn.Module]
    """Logits (B, K, Z, Y, X) from windows (B, 1, Z, Y, X). Several are an ensemble: the mean of their probabilities."""
    resample: ResampleTo
    """The common grid, on which the network was trained."""
    tiling: SlidingWindow = field(default_factory=SlidingWindow)
    """Windows, blending, z rule, padding, and which windows are skipped."""
    normalise: NormaliseRI = field(default_factory=NormaliseRI)
    """Refractive index to 0..1."""
    device: str = "cpu"
    """Device of the network and of the sums."""
    precision: str = "32-true"
    """32-true, bf16-mixed or 16-mixed."""
    channels_last: bool = False
    """Lay out weights and windows as channels_last_3d, which is faster on matrix units."""
    flips: tuple[str, ...] = ()
    """Axes out of z, y, x: the mean over every combination of mirror images. Each axis doubles the time."""
    memory_gb: float = 0.5
    """Working memory in GB for partial sums and pieces of the input; what is beyond it goes to files. On a GPU both lie
    in the GPU's memory, and this limits the boxes that are being copied to main memory."""
    scratch: Path | None = None
    """Folder for those files, on a disk with room for a layer of the volume, one window deep; the system's temporary
    folder if not given, which on some systems lies in memory. The files are removed at the end."""
    progress: Callable[[int, int], None] | None = None
    """Called with the number of windows that are done, and of all."""
    compile: Compile = "none"
    """none, default (torch.compile) or cuda_graphs. The last batch is then filled up to the shape of the others."""
    layers: bool | None = None
    """Keep input, sums and finished bricks as whole layers on the device; if not given, on every device but a CPU."""

    def __post_init__(self) -> None:
        if not 0 <= self.memory_gb < inf:
            raise InputError(f"memory_gb {self.memory_gb}: expected a number of gigabytes, at least 0")
        networks = [self.network] if isinstance(self.network, nn.Module) else list(self.network)
        self._ensemble = Ensemble(networks, self.flips, self.precision, self.channels_last, self.compile, self.device)
        for network in networks:
            memory_format = torch.channels_last_3d if self.channels_last else None
            network.to(self.device, memory_format=memory_format)  # type: ignore[call-overload]

    def __call__(self, ri_ZYX: np.ndarray, spacing_um: Sequence[float]) -> np.ndarray:
        """Predict one frame.

        Parameters
        ----------
        ri_ZYX : array, (Z, Y, X)
            Refractive index, 1.33 to 1.45; or that times 1000 or 10 000, as files may store it (see `unscaled_ri`).
        spacing_um : three floats
            Voxel size (z, y, x) in µm.

        Returns
        -------
        float32 array, (K, Z, Y, X)
            Probabilities, one channel per organelle, on the input's grid.

        Raises
        ------
        InputError
            NaN in the tomogram, or a spacing that is no length.
        """
        results: list[torch.Tensor] = []

        def place(box: Box, channels: int) -> torch.Tensor:
            if not results:
                results.append(torch.empty((channels, *ri_ZYX.shape)))
            return results[0][:, box[0], box[1], box[2]]

        for _ in self._boxes(ArrayReader(unscaled_ri(ri_ZYX)), spacing_um, place):
            pass
        return results[0].numpy()

    def boxes(self, reader: FrameReader, spacing_um: Sequence[float]) -> Iterator[tuple[Box, np.ndarray]]:
        """Yield the probabilities of one frame of any size, box by box, while it is read.

        Peak memory is that of the networks plus `memory_gb`, for frames of any size.

        Parameters
        ----------
        reader : FrameReader
            Reads regions of the refractive index, 1.33 to 1.45.
        spacing_um : three floats
            Voxel size (z, y, x) in µm.

        Yields
        ------
        box : three slices
            z, y, x on the frame's own grid. The boxes are disjoint, cover the frame, and lie on the regular grid of
            `box_shape`; their order is not defined.
        probabilities : float32 array, (K, z, y, x)
            One channel per organelle.

        Raises
        ------
        InputError
            NaN in the tomogram, a spacing that is no length, or no space left for partial sums.
        """
        for box, values_KZYX in self._boxes(reader, spacing_um):
            yield box, values_KZYX.numpy()

    def box_shape(self, shape_ZYX: Sequence[int], spacing_um: Sequence[float]) -> Shape:
        """Return the size of the boxes that `boxes` yields for a frame; the last along an axis may be smaller.

        Parameters
        ----------
        shape_ZYX : three ints
            Size of the frame in voxels.
        spacing_um : three floats
            Voxel size (z, y, x) in µm.
        """
        own = (shape_ZYX[0], shape_ZYX[1], shape_ZYX[2])
        common, _ = common_grid(own, spacing_um, self.resample, streamed=True)
        return own_box_shape(brick_shape(common, self.tiling.stride), common, own)

    @torch.inference_mode()
    def _boxes(
        self,
        reader: FrameReader,
        spacing_um: Sequence[float],
        place: Place | None = None,
    ) -> Iterator[tuple[Box, torch.Tensor]]:
        """Yield the boxes of the own grid, written to the tensors of `place` or else to new ones."""
        device = indexed(self.device)
        with eval_mode(*self._ensemble.networks):
            attempt = partial(self._attempt, reader, spacing_um, device, place)
            sums_on_device = device.type != "cpu" or self.tiling.sums_in_layers(device, self.layers)
            yield from with_less_memory(self.tiling.limits, device, sums_on_device, attempt)

    def _attempt(
        self, reader: FrameReader, spacing_um: Sequence[float], device: torch.device, place: Place | None
    ) -> Iterator[tuple[Box, torch.Tensor]]:
        """Yield the same, or raise an error if the device's memory does not suffice."""
        own, budget = reader.shape, self.memory_gb * 1e9
        common, _ = common_grid(own, spacing_um, self.resample, streamed=True)
        layers = self.tiling.sums_in_layers(device, self.layers)
        results = device if layers else None  # device of sums and finished bricks; None is main memory of any size
        on_host = results is None and common == own  # windows are summed up where the caller reads them
        source = self._source(reader, common, device if layers or device.type != "cpu" else None)
        with BrickStore(SUMS * budget, self.scratch) as sums, BrickStore(FINISHED * budget, self.scratch) as finished:
            boxes = self.tiling.steps(
                source, self._ensemble, sums, device, place=place if on_host else partial(new_tensor, results),
                progress=self.progress, layers=layers, fill=self.compile != "none",
            )  # fmt: skip
            if common != own:
                brick = brick_shape(common, self.tiling.stride)
                boxes = NativeGrid(common, own, brick, self.box_shape(own, spacing_um), finished, results).steps(boxes)
            if on_host:
                yield from filter(None, boxes)
            else:
                yield from to_host(boxes, Transfers(results or torch.device("cpu")), budget, place)

    def _source(self, reader: FrameReader, common: Shape, device: torch.device | None) -> RegionSource:
        """Return the frame on the common grid; on a device in whole layers, if they fit into its memory."""
        if device is None:
            return RegionSource(reader, common, self.normalise, BRICK, INPUT * self.memory_gb * 1e9)
        total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else inf
        # skipped windows are found one layer ahead; one more piece at either side, where windows begin inside a piece
        depth = self.tiling.window[0] + self.tiling.stride[0] + 2 * BRICK[0]
        needed = 4 * depth * common[1] * common[2]
        layer = (BRICK[0], max(reader.shape[1], common[1]), max(reader.shape[2], common[2]))
        budget = _DEVICE_INPUT * total
        piece = layer if needed <= budget else BRICK
        return RegionSource(reader, common, self.normalise, piece, min(needed, budget), device)
