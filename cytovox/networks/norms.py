"""Instance normalisation that keeps the memory layout of its input.

torch's instance normalisation copies a ``channels_last_3d`` tensor to the default layout and returns that layout, so
that the next convolution copies it back. On CPUs these copies took as long as the convolutions.
"""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.functional import group_norm

#: Below this number of voxels, torch's kernel for groups is slower in channels-last layout (torch 2.13).
LEAST_VOXELS = 1024


class InstanceNorm3d(nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` that returns ``channels_last_3d`` for such input; results are the same.

    Without gradients, 16-bit tensors on CPUs are also normalised in this layout, by group normalisation with one group
    per channel. With gradients this would be slower, because the backward pass of torch's kernel for groups is not made
    for the layout. For float32 it would not be exact enough, because the kernel computes the variance as a difference
    of float32 sums.
    """

    def forward(self, x_BCZYX: torch.Tensor) -> torch.Tensor:
        """Return each channel of each sample with mean 0 and variance 1, then scaled and shifted."""
        if x_BCZYX.is_contiguous() or not x_BCZYX.is_contiguous(memory_format=torch.channels_last_3d):
            return super().forward(x_BCZYX)
        short = x_BCZYX.device.type == "cpu" and x_BCZYX.dtype in (torch.bfloat16, torch.float16)
        learns = torch.is_grad_enabled() and (x_BCZYX.requires_grad or self.affine)
        if short and not learns and x_BCZYX[0, 0].numel() >= LEAST_VOXELS:
            return group_norm(x_BCZYX, self.num_features, self.weight, self.bias, self.eps)
        return super().forward(x_BCZYX).contiguous(memory_format=torch.channels_last_3d)


def keep_layout(network: nn.Module) -> nn.Module:
    """Turn every `torch.nn.InstanceNorm3d` without running statistics into an `InstanceNorm3d`, in place."""
    for module in network.modules():
        if type(module) is nn.InstanceNorm3d and not module.track_running_stats:
            module.__class__ = InstanceNorm3d
    return network


def channels_last_pays(networks: Iterable[nn.Module], precision: str, device: str) -> bool:
    """Return whether networks are faster with weights and windows in ``channels_last_3d``.

    This is so on CPUs in 16 bits, unless a network has `channels_last = False`. On a GPU the convolutions are faster in
    this layout, but the copies of each normalisation cost more: on an H200 in bfloat16 a training step took 17.8 ms
    instead of 13.9 ms (`organelle`), and 97.5 instead of 77.5 ms (`organelle_choi`); see docs/benchmarks.md.

    Parameters
    ----------
    networks : iterable of Module
        Networks that compute.
    precision : str
        Lightning's name of the precision: 32-true, 16-mixed or bf16-mixed.
    device : str
        Type of the device, such as cpu or cuda.
    """
    return device == "cpu" and "16" in precision and all(getattr(one, "channels_last", True) for one in networks)
