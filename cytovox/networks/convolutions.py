"""3D convolutions that are correct in 16 bits on a CPU, too.

torch 2.13 on CPUs with matrix units reads uninitialised memory in bfloat16 convolutions of volumes with one or two
slices. The gradient of the weights (depth 2, kernel 3, stride 1) was wrong, including NaN, in 5 to 90 % of steps, and
so was the output for volumes of one slice. Other depths, sizes of y and x, strides and kernels were correct.
"""

import torch
from torch import nn

#: Number of slices up to which the 16-bit kernels may be wrong.
FEW_SLICES = 2


class Conv3d(nn.Conv3d):
    """`torch.nn.Conv3d` that convolves volumes of one or two slices in float32 instead of 16 bits on a CPU."""

    def forward(self, x_BCZYX: torch.Tensor) -> torch.Tensor:
        """Return the convolution; float32 where 16 bits were avoided."""
        if x_BCZYX.shape[2] > FEW_SLICES or x_BCZYX.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x_BCZYX)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x_BCZYX.float())


def use_safe_convolutions(network: nn.Module) -> nn.Module:
    """Turn every `torch.nn.Conv3d` of a network into a `Conv3d` with the same parameters, in place."""
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = Conv3d
    return network
