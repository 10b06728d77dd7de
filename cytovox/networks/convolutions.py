"""3D convolutions that are right in 16 bits on a CPU, too.

torch 2.13 on CPUs with matrix units reads unwritten memory in bfloat16 convolutions of volumes one or two slices deep:
the gradient of the weights (depth 2, kernel 3, stride 1) then holds whatever lay there, NaN included, in 5 to 90 % of
steps; so did the output of volumes one slice deep. Other depths, sizes of y and x, strides and kernels were right.
"""

import torch
from torch import nn

#: Slices up to which the 16-bit kernels are not to be trusted.
FEW_SLICES = 2


class Conv3d(nn.Conv3d):
    """`torch.nn.Conv3d` that computes volumes of one or two slices in float32 where a CPU would take 16 bits."""

    def forward(self, x_BCZYX: torch.Tensor) -> torch.Tensor:
        """Convolve; the result is float32 where 16 bits were avoided."""
        if x_BCZYX.shape[2] > FEW_SLICES or x_BCZYX.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x_BCZYX)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x_BCZYX.float())


def use_safe_convolutions(network: nn.Module) -> nn.Module:
    """Put `Conv3d` in the place of torch's, in place; names and values of parameters stay."""
    for name, child in network.named_children():
        if type(child) is nn.Conv3d:
            # on meta, so that no random number is drawn for weights that are replaced
            safe = Conv3d(
                child.in_channels, child.out_channels, child.kernel_size, child.stride, child.padding,  # type: ignore[arg-type]
                child.dilation, child.groups, child.bias is not None, child.padding_mode, "meta",  # type: ignore[arg-type]
            )  # fmt: skip
            safe.weight, safe.bias = child.weight, child.bias
            setattr(network, name, safe)
        else:
            use_safe_convolutions(child)
    return network
