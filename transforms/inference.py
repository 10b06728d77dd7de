"""A whole tomogram to probabilities on its own grid."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from formats.errors import InputError
from transforms.intensity import NormaliseRI
from transforms.spatial import ResampleTo, common_grid, resize_linear
from transforms.tiling import SlidingWindow

#: Lightning's names of precisions, and what autocast computes in.
PRECISIONS: dict[str, torch.dtype | None] = {
    "32-true": None,
    "bf16-mixed": torch.bfloat16,
    "16-mixed": torch.float16,
}


def probability_predictor(
    network: Callable[[torch.Tensor], torch.Tensor], precision: str = "32-true"
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A predictor of probabilities from a network of logits.

    The sigmoid is taken window by window, in float32, so that stitching averages probabilities.

    Parameters
    ----------
    network : callable
        (B, C, Z, Y, X) to logits (B, K, Z, Y, X).
    precision : str
        `32-true`, `bf16-mixed` or `16-mixed`, as Lightning names them.

    Returns
    -------
    callable
        (B, C, Z, Y, X) to float32 probabilities (B, K, Z, Y, X).

    Raises
    ------
    InputError
        Another precision.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    dtype = PRECISIONS[precision]

    def predict(windows_BCZYX: torch.Tensor) -> torch.Tensor:
        device = windows_BCZYX.device.type
        context: AbstractContextManager = nullcontext() if dtype is None else torch.autocast(device, dtype=dtype)
        with context:
            logits_BKZYX = network(windows_BCZYX)
        return logits_BKZYX.float().sigmoid()

    return predict


@dataclass
class DenseInferer:
    """Normalise, resample, slide, resample back: one tomogram to probabilities on its own grid.

    The network is moved to `device` (and to `channels_last_3d`) once, and put into evaluation mode for the time of
    each call. Volumes stay in main memory; only windows travel to the device.
    """

    network: nn.Module
    """Logits (B, K, Z, Y, X) from windows (B, 1, Z, Y, X)."""
    resample: ResampleTo
    """The grid that the network was trained on."""
    tiling: SlidingWindow = field(default_factory=SlidingWindow)
    """Windows, blending, z rule and padding."""
    normalise: NormaliseRI = field(default_factory=NormaliseRI)
    """Refractive index to 0..1."""
    device: str = "cpu"
    """Where the network runs."""
    precision: str = "32-true"
    """32-true, bf16-mixed or 16-mixed."""
    channels_last: bool = False
    """Lay out weights and windows as channels_last_3d, which is faster on matrix units."""

    def __post_init__(self) -> None:
        predict = probability_predictor(self.network, self.precision)
        self.network.to(self.device)
        if self.channels_last:
            self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        layout = torch.channels_last_3d if self.channels_last else torch.contiguous_format
        self._predict = lambda windows_BCZYX: predict(windows_BCZYX.contiguous(memory_format=layout))

    @torch.inference_mode()
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
        image_CZYX = torch.from_numpy(self.normalise(ri_ZYX))[None]
        shape, _ = common_grid(ri_ZYX.shape, spacing_um, self.resample)
        image_CZYX = resize_linear(image_CZYX, shape)
        was_training = self.network.training
        self.network.eval()
        try:
            probabilities_KZYX = self.tiling(image_CZYX[None], self._predict, window_device=self.device)[0]
        finally:
            self.network.train(was_training)
        return resize_linear(probabilities_KZYX, ri_ZYX.shape).numpy()
