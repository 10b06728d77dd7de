"""A whole tomogram to probabilities on its own grid, in memory or streamed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from formats.errors import InputError
from formats.regions import ArrayReader, Box, FrameReader, Shape
from transforms.bricks import BRICK, brick_shape
from transforms.ensemble import Ensemble, probability_predictor
from transforms.intensity import NormaliseRI
from transforms.own_grid import OwnGrid, own_box_shape
from transforms.regions import RegionSource
from transforms.spatial import ResampleTo, common_grid
from transforms.store import BrickStore
from transforms.tiling import SlidingWindow

__all__ = ["DenseInferer", "probability_predictor"]

#: Shares of the working memory: sums that are not finished, finished bricks that wait to be resampled, and input. Two
#: rows of bricks across 1024 voxels are 270 MB of sums at four channels, the same rows of input 65 MB.
SUMS, FINISHED, INPUT = 0.6, 0.2, 0.2


@dataclass
class DenseInferer:
    """Normalise, resample, slide, resample back: one tomogram to probabilities on its own grid.

    Networks are moved to `device` (and to `channels_last_3d`) once, and put into evaluation mode for the time of each
    call. Volumes are read and handed out region by region; only windows travel to the device.
    """

    network: nn.Module | Sequence[nn.Module]
    """Logits (B, K, Z, Y, X) from windows (B, 1, Z, Y, X). Several are an ensemble: the mean of their probabilities."""
    resample: ResampleTo
    """The grid that the network was trained on."""
    tiling: SlidingWindow = field(default_factory=SlidingWindow)
    """Windows, blending, z rule, padding, and what is skipped."""
    normalise: NormaliseRI = field(default_factory=NormaliseRI)
    """Refractive index to 0..1."""
    device: str = "cpu"
    """Where the network runs, and where windows are summed up."""
    precision: str = "32-true"
    """32-true, bf16-mixed or 16-mixed."""
    channels_last: bool = False
    """Lay out weights and windows as channels_last_3d, which is faster on matrix units."""
    flips: tuple[str, ...] = ()
    """Axes out of z, y, x: the mean over every combination of mirror images. Each axis doubles the time."""
    memory_gb: float = 0.5
    """Working memory in GB for partial sums and pieces of the input; what is beyond it goes to files."""
    scratch: Path | None = None
    """Folder for those files, on a disk with room for a layer of the volume, one window deep; the system's temporary
    folder if not given, which on some systems lies in memory. They are removed at the end."""
    progress: Callable[[int, int], None] | None = None
    """Told how many windows of how many are done."""

    def __post_init__(self) -> None:
        if not 0 <= self.memory_gb < float("inf"):
            raise InputError(f"memory_gb {self.memory_gb}: expected a number of gigabytes, at least 0")
        networks = [self.network] if isinstance(self.network, nn.Module) else list(self.network)
        self._ensemble = Ensemble(networks, self.flips, self.precision, self.channels_last)
        for network in networks:
            network.to(self.device)
            if self.channels_last:
                network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def __call__(self, ri_ZYX: np.ndarray, spacing_um: Sequence[float]) -> np.ndarray:
        """Predict one frame.

        Parameters
        ----------
        ri_ZYX : array, (Z, Y, X)
            Refractive index, 1.33 to 1.45.
        spacing_um : three floats
            Voxel size (z, y, x) in µm.

        Returns
        -------
        float32 array, (K, Z, Y, X)
            Probabilities, one channel an organelle, on the input's grid.

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

        for _ in self._boxes(ArrayReader(ri_ZYX), spacing_um, place):
            pass
        return results[0].numpy()

    def boxes(self, reader: FrameReader, spacing_um: Sequence[float]) -> Iterator[tuple[Box, np.ndarray]]:
        """Predict one frame of any size, box by box, while it is read.

        Peak memory is that of the networks and `memory_gb`, whatever the frame's size.

        Parameters
        ----------
        reader : FrameReader
            Gives regions of the refractive index, 1.33 to 1.45.
        spacing_um : three floats
            Voxel size (z, y, x) in µm.

        Yields
        ------
        box : three slices
            z, y, x on the frame's own grid. The boxes are disjoint, cover the frame, and lie on the regular grid of
            `box_shape`; their order is not promised.
        probabilities : float32 array, (K, z, y, x)
            One channel an organelle.

        Raises
        ------
        InputError
            NaN in the tomogram, a spacing that is no length, or no space left for partial sums.
        """
        for box, values_KZYX in self._boxes(reader, spacing_um):
            yield box, values_KZYX.numpy()

    def box_shape(self, shape_ZYX: Sequence[int], spacing_um: Sequence[float]) -> Shape:
        """Size of the boxes that `boxes` gives for a frame of that size; only the last along an axis is smaller.

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
        place: Callable[[Box, int], torch.Tensor] | None = None,
    ) -> Iterator[tuple[Box, torch.Tensor]]:
        """Boxes of the own grid, written to what `place` gives for them, or else to new memory."""
        own, budget = reader.shape, self.memory_gb * 1e9
        common, _ = common_grid(own, spacing_um, self.resample, streamed=True)
        source = RegionSource(reader, common, self.normalise, BRICK, INPUT * budget)
        with self._ensemble.evaluating(), BrickStore(SUMS * budget, self.scratch) as sums:
            stream = partial(self.tiling.stream, source, self._ensemble, sums, self.device, progress=self.progress)
            if common == own:
                yield from stream(place)
                return
            with BrickStore(FINISHED * budget, self.scratch) as finished:
                brick = brick_shape(common, self.tiling.stride)
                own_grid = OwnGrid(common, own, brick, self.box_shape(own, spacing_um), finished)
                for brick_box, brick_KZYX in stream():
                    for box, values_KZYX in own_grid.take(brick_box, brick_KZYX):
                        yield box, values_KZYX if place is None else place(box, len(values_KZYX)).copy_(values_KZYX)
