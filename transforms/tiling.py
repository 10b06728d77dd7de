"""A dense prediction over a volume of any size, window by window."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data.utils import compute_importance_map
from monai.inferers import Inferer, sliding_window_inference
from torch.nn.functional import pad

from formats.errors import InputError

Shape = tuple[int, int, int]
Predictor = Callable[..., torch.Tensor]

WEIGHTS = ("spline", "gaussian", "constant")
Z_RULES = ("tile", "center")
PAD_MODES = ("symmetric", "edge", "constant")

#: Smallest weight inside a window: a voxel seen only by a window's corner is still divided by a sound number.
WEIGHT_FLOOR = 1e-3


@dataclass
class SlidingWindow(Inferer):
    """Sliding-window inference: overlapping windows, blended and divided by the accumulated weight.

    The predictor's outputs are averaged as they are, so give it probabilities (as the paper does), not logits: the
    sigmoid belongs into the predictor, window by window.

    References
    ----------
    Choi et al. 2021, bioRxiv 2021.05.23.445351: `weight: spline`, `z: center`, stride 64 and `pad_yx: [64, 64]`.
    """

    window: Shape = (64, 128, 128)
    """Size (z, y, x) of what the network sees at once, in voxels."""
    stride: Shape = (32, 64, 64)
    """Step (z, y, x) from window to window, 1 up to the window's size. Half a window blends without a seam."""
    weight: str = "spline"
    """How a window's voxels count: spline (triangular, as in the paper), gaussian or constant."""
    z: str = "tile"
    """tile: the whole depth. center: one window of depth in the middle, as in the paper; 0 above and below it."""
    pad_yx: tuple[int, int] = (64, 64)
    """Voxels added on either side of y and x before tiling and cut off again after it; 64 in the paper."""
    pad_mode: str = "symmetric"
    """What is added: symmetric (mirrored, edge voxels repeated), edge, or constant (0: the normalisation's ri_min).
    A volume smaller than the window is filled up with the same, in z too."""
    sw_batch_size: int = 1
    """Windows that the network sees in one batch."""
    progress: bool = False
    """Show a progress bar over the batches."""

    def __post_init__(self) -> None:
        faults = self.faults()
        if faults:
            raise InputError("sliding window: " + "; ".join(faults))
        for name in ("window", "stride", "pad_yx"):  # a config hands over lists
            setattr(self, name, tuple(getattr(self, name)))

    def faults(self) -> list[str]:
        """Everything that is wrong with these settings, a phrase each."""
        faults = []
        if len(self.window) != 3 or min(self.window) < 1:
            faults.append(f"window {list(self.window)}: expected three sizes in voxels, z, y, x, at least 1")
        elif len(self.stride) != 3 or any(not 1 <= s <= w for s, w in zip(self.stride, self.window, strict=True)):
            faults.append(
                f"stride {list(self.stride)}: expected 1 up to the window {list(self.window)} in each axis, "
                "or voxels between windows are never seen"
            )
        if len(self.pad_yx) != 2 or min(self.pad_yx) < 0:
            faults.append(f"pad_yx {list(self.pad_yx)}: expected two numbers of voxels, y and x, at least 0")
        if self.sw_batch_size < 1:
            faults.append(f"sw_batch_size {self.sw_batch_size}: expected at least 1")
        for name, legal in (("weight", WEIGHTS), ("z", Z_RULES), ("pad_mode", PAD_MODES)):
            if getattr(self, name) not in legal:
                faults.append(f"{name} {getattr(self, name)!r}: expected one of {', '.join(legal)}")
        return faults

    def __call__(
        self,
        inputs: torch.Tensor,
        network: Predictor,
        *args: Any,
        window_device: torch.device | str | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Predict every voxel.

        Parameters
        ----------
        inputs : float tensor, (B, C, Z, Y, X)
            Images of any size, also smaller than a window. The result is put together on their device.
        network : callable
            (b, C, z, y, x) windows, float32, to (b, K, z, y, x) probabilities of any float type.
        window_device : device, optional
            Where the windows are sent before the network sees them; the inputs' device if not given.
        *args, **kwargs
            Handed on to the network.

        Returns
        -------
        float32 tensor, (B, K, Z, Y, X)
            The weighted mean of what the windows said. 0 outside the slab of `z: center`.
        """
        start, stop = self.slab(inputs.shape[2])
        slab_BCZYX = inputs[:, :, start:stop].float()
        pads = self._pads(slab_BCZYX.shape[2:])
        blended = sliding_window_inference(
            pad_volume(slab_BCZYX, pads, self.pad_mode),
            self.window,
            self.sw_batch_size,
            _in_float32(network),
            _overlap(self.window, self.stride),
            "constant",
            0.125,
            "constant",
            0.0,
            window_device,
            None,
            self.progress,
            window_weight(self.window, self.weight),
            None,
            None,
            -1,
            False,
            *args,
            **kwargs,
        )
        if not isinstance(blended, torch.Tensor):
            raise TypeError(f"the network returned {type(blended).__name__}: expected one tensor")
        inner = [slice(before, before + n) for (before, _), n in zip(pads, slab_BCZYX.shape[2:], strict=True)]
        blended = blended[:, :, inner[0], inner[1], inner[2]]
        if (start, stop) == (0, inputs.shape[2]):
            return blended.contiguous()
        result = blended.new_zeros((*blended.shape[:2], *inputs.shape[2:]))
        result[:, :, start:stop] = blended
        return result

    def slab(self, depth: int) -> tuple[int, int]:
        """Start and stop along z of what is predicted in a volume of that depth."""
        if self.z == "tile" or depth <= self.window[0]:
            return 0, depth
        start = (depth - self.window[0]) // 2
        return start, start + self.window[0]

    def _pads(self, shape_ZYX: Sequence[int]) -> list[tuple[int, int]]:
        """Voxels before and after in z, y, x: the wanted padding, and what is missing to one window."""
        pads = []
        for size, window, wanted in zip(shape_ZYX, self.window, (0, *self.pad_yx), strict=True):
            missing = max(0, window - size - 2 * wanted)
            pads.append((wanted + missing // 2, wanted + missing - missing // 2))
        return pads


def window_weight(window: Shape, kind: str) -> torch.Tensor:
    """How much each voxel of a window counts.

    Parameters
    ----------
    window : three ints
        Size of the window.
    kind : str
        `spline`: the product of a triangle along each axis, 1 at the middle; triangles half a window apart sum to
        one. `gaussian`: MONAI's, of an eighth of the window in standard deviation. `constant`: 1.

    Returns
    -------
    float32 tensor, of the window's size
        At least `WEIGHT_FLOOR`, at most 1.
    """
    if kind == "constant":
        return torch.ones(window)
    if kind == "gaussian":
        weight = compute_importance_map(window, mode="gaussian", sigma_scale=0.125, device="cpu", dtype=torch.float32)
        return weight.clamp(min=WEIGHT_FLOOR)
    z, y, x = (_triangle(n) for n in window)
    return (z[:, None, None] * y[:, None] * x).clamp(min=WEIGHT_FLOOR)


def _triangle(size: int) -> torch.Tensor:
    """The triangular window: 1 / n, 3 / n, ... up and down again; nowhere 0."""
    half = size / 2
    return 1 - (torch.arange(size, dtype=torch.float32) + 0.5 - half).abs() / half


def _overlap(window: Shape, stride: Shape) -> tuple[float, ...]:
    """MONAI's overlap for a stride in voxels; half a voxel of slack, because MONAI rounds it down to whole voxels."""
    return tuple(0.0 if s == w else 1 - (s + 0.5) / w for w, s in zip(window, stride, strict=True))


def _in_float32(network: Predictor) -> Predictor:
    """The network with a float32 output of its own: MONAI multiplies it in place and in its own precision."""

    def predict(windows: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        output = network(windows, *args, **kwargs)
        if output.shape[2:] != windows.shape[2:]:
            raise ValueError(f"windows of {list(windows.shape[2:])} became {list(output.shape[2:])} in the network")
        return output.to(torch.float32, copy=True)

    return predict


def pad_volume(volume_BCZYX: torch.Tensor, pads_ZYX: Sequence[tuple[int, int]], mode: str) -> torch.Tensor:
    """Pad a volume by any number of voxels, also by more than it has.

    Parameters
    ----------
    volume_BCZYX : tensor, (B, C, Z, Y, X)
        The volume.
    pads_ZYX : three pairs of ints
        Voxels before and after in z, y and x.
    mode : str
        `symmetric`, `edge` or `constant` (0), as numpy's `pad` has them.

    Returns
    -------
    tensor, (B, C, Z', Y', X')
    """
    if mode == "constant":
        return pad(volume_BCZYX, [n for pair in reversed(pads_ZYX) for n in pair])
    for axis, pair in enumerate(pads_ZYX, start=2):
        if any(pair):  # torch's own modes fail where the padding is larger than the volume
            index = np.arange(volume_BCZYX.shape[axis])
            index = np.pad(index, pair, mode="symmetric") if mode == "symmetric" else np.pad(index, pair, mode="edge")
            volume_BCZYX = volume_BCZYX.index_select(axis, torch.from_numpy(index).to(volume_BCZYX.device))
    return volume_BCZYX
