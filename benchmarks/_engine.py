"""Ways to predict one whole volume with the same weights and the same windows: MONAI's engine and ours."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import nn
from torch.profiler import record_function

from benchmarks._plain import PlainResidualUNet
from cytovox.inference.predictor import DenseInferer, probability_predictor
from cytovox.inference.tiling import SlidingWindow, window_weight
from cytovox.io.regions import Shape
from cytovox.io.volume import ZYX
from cytovox.models.metadata import load_network, read_checkpoint
from cytovox.networks import network_config
from cytovox.networks.residual_unet import ResidualUNet, ResidualUNetConfig
from cytovox.preprocess.intensity import NormaliseRI
from cytovox.preprocess.resampling import ResampleTo
from cytovox.simulation.tomogram import Tomogram

LAST = torch.channels_last_3d
#: Windows in a batch of MONAI's, as its tutorials have it.
MONAI_BATCH = 4
#: Name of the region of a profile that is inside the network.
INSIDE = "network"


@dataclass(frozen=True)
class Windows:
    """Size of the windows and step between them, z, y, x."""

    size: Shape = (64, 128, 128)
    stride: Shape = (32, 64, 64)


@dataclass(frozen=True)
class Variant:
    """How a volume is predicted."""

    engine: str
    """MONAI or ours."""
    mixed: bool = True
    """bfloat16 in channels_last_3d; else float32 in torch's own layout."""
    plain: bool = False
    """The network as written with MONAI's parts, instead of our forward pass."""
    batch: int = 1
    """Windows in a batch."""
    skip_below: float | None = None
    """See `SlidingWindow`; ours only."""


class Timed(nn.Module):
    """A network that notes how long it took and how many windows it saw."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seconds = 0.0
        self.windows = 0

    def forward(self, x_BCZYX: torch.Tensor) -> torch.Tensor:
        """Output of the network."""
        begun = time.perf_counter()
        with record_function(INSIDE):
            logits = self.network(x_BCZYX)
        self.seconds += time.perf_counter() - begun
        self.windows += len(x_BCZYX)
        return logits


@dataclass
class Run:
    """One way, ready to be called; it keeps what the last call gave."""

    call: Callable[[], np.ndarray]
    """Probabilities (K, Z, Y, X)."""
    network: Timed
    seconds: float = 0.0
    inside: float = 0.0
    """Of these, in the network."""
    windows: int = 0
    """That the network saw."""
    result: np.ndarray | None = field(default=None, repr=False)

    def __call__(self, keep: bool = False) -> tuple[float, float]:
        """Seconds of all and in the network."""
        self.network.seconds, self.network.windows = 0.0, 0
        begun = time.perf_counter()
        result = self.call()
        self.seconds = time.perf_counter() - begun
        self.inside, self.windows = self.network.seconds, self.network.windows
        self.result = result if keep else None
        return self.seconds, self.inside


def prepare(way: Variant, network: ResidualUNet, tomogram: Tomogram, normalise: NormaliseRI, windows: Windows) -> Run:
    """A way, with a network of its own."""
    timed = Timed(PlainResidualUNet(network) if way.plain else copy.deepcopy(network)).eval()
    if way.engine == "MONAI":
        return Run(_monai(way, timed, tomogram, normalise, windows), timed)
    inferer = DenseInferer(
        timed,
        resample=ResampleTo.chosen("spacing_um", list(tomogram.spacing_um), []),
        tiling=SlidingWindow(
            windows.size, windows.stride, pad_yx=(0, 0), sw_batch_size=way.batch, skip_below=way.skip_below
        ),
        normalise=normalise,
        precision="bf16-mixed" if way.mixed else "32-true",
        channels_last=way.mixed,
    )
    return Run(lambda: inferer(tomogram.ri_ZYX, tomogram.spacing_um), timed)


def _monai(
    way: Variant, network: Timed, tomogram: Tomogram, normalise: NormaliseRI, windows: Windows
) -> Callable[[], np.ndarray]:
    """MONAI's function as its users call it; our weight of a window's voxels, so that both blend the same."""
    predict = probability_predictor(network, "bf16-mixed" if way.mixed else "32-true")
    weight = window_weight(windows.size, "spline")
    overlap = [1 - step / size for size, step in zip(windows.size, windows.stride, strict=True)]
    layout = LAST if way.mixed else torch.contiguous_format
    if way.mixed:
        network.to(memory_format=LAST)  # type: ignore[call-overload]

    def call() -> np.ndarray:
        with torch.inference_mode():
            image_BCZYX = torch.from_numpy(normalise(tomogram.ri_ZYX))[None, None]
            found = sliding_window_inference(
                image_BCZYX,
                windows.size,
                way.batch,
                lambda seen: predict(seen.contiguous(memory_format=layout)),
                overlap=overlap,
                roi_weight_map=weight,
            )
        assert isinstance(found, torch.Tensor)
        return found[0].numpy()

    return call


def network_of(weights: Path | None, organelles: int) -> tuple[ResidualUNet, NormaliseRI, ZYX | None]:
    """The network of a weights file, how it wants the index normalised, and the spacing it was trained at.

    Without a file, a small network of random weights: for a quick run.
    """
    if weights is None:
        torch.manual_seed(0)
        network = ResidualUNetConfig(channels=[16, 16]).build(1, organelles)
        assert isinstance(network, ResidualUNet)
        return network, NormaliseRI(), None
    read = read_checkpoint(weights, "organelle", "--weights")
    model = dict(read.metadata.model)
    config = network_config(str(model.pop("network")))(**model)
    network = config.build(1, len(read.metadata.organelles))
    load_network(network, read, "--weights")
    if not isinstance(network, ResidualUNet):
        raise SystemExit(f"--weights: {weights}: expected the weights of a residual_unet, got {read.metadata.model}")
    z, y, x = read.metadata.resample_spacing_um
    return network, NormaliseRI(*read.metadata.ri_range), (z, y, x)
