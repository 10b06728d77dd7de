"""Instance normalisation that keeps the layout of its input.

torch's own copies a ``channels_last_3d`` tensor into its default layout first, and what comes out of it stays there:
the next convolution then copies it back. On CPUs that took as long as the convolutions between.
"""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.functional import group_norm

#: With fewer voxels than this, torch's kernel for groups walks a channels-last tensor voxel by voxel (2.13: slower).
LEAST_VOXELS = 1024


class InstanceNorm3d(nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` that gives ``channels_last_3d`` back as such; parameters and results are the same.

    Where nothing learns, 16-bit tensors on CPUs are normalised in that layout, too: as one group a channel. (With
    gradients this would be slower: torch's kernel for groups has a backward pass that is not made for the layout. And
    it takes the variance as a difference of sums in float32, far finer than 16 bits but not than 32.)
    """

    def forward(self, x_BCZYX: torch.Tensor) -> torch.Tensor:
        """Each channel of each sample with mean 0 and variance 1, then scaled and shifted."""
        if x_BCZYX.is_contiguous() or not x_BCZYX.is_contiguous(memory_format=torch.channels_last_3d):
            return super().forward(x_BCZYX)
        short = x_BCZYX.device.type == "cpu" and x_BCZYX.dtype in (torch.bfloat16, torch.float16)
        learns = torch.is_grad_enabled() and (x_BCZYX.requires_grad or self.affine)
        if short and not learns and x_BCZYX[0, 0].numel() >= LEAST_VOXELS:
            return group_norm(x_BCZYX, self.num_features, self.weight, self.bias, self.eps)
        return super().forward(x_BCZYX).contiguous(memory_format=torch.channels_last_3d)


def keep_layout(network: nn.Module) -> nn.Module:
    """Put `InstanceNorm3d` in the place of torch's, in place; names and values of parameters stay.

    One that keeps running statistics is left alone.
    """
    for name, child in network.named_children():
        if type(child) is nn.InstanceNorm3d and not child.track_running_stats:
            norm = InstanceNorm3d(child.num_features, child.eps, affine=child.affine)
            norm.load_state_dict(child.state_dict())
            setattr(network, name, norm)
        else:
            keep_layout(child)
    return network


def channels_last_pays(networks: Iterable[nn.Module], precision: str, device: str) -> bool:
    """Return whether weights and windows are best laid out as ``channels_last_3d``.

    On CPUs, in 16 bits, for networks that do not say otherwise. On a GPU the convolutions are faster in that layout,
    but the copies of each normalisation cost more: on an H200 in bfloat16 a training step took 17.8 ms against 13.9 ms
    in the default layout (`organelle`), and 97.5 against 77.5 ms (`organelle_choi`); see docs/benchmarks.md.

    Parameters
    ----------
    networks : iterable of Module
        Those that compute.
    precision : str
        As Lightning names it: 32-true, 16-mixed or bf16-mixed.
    device : str
        Kind of the device, such as cpu or cuda.
    """
    return device == "cpu" and "16" in precision and all(getattr(one, "channels_last", True) for one in networks)
