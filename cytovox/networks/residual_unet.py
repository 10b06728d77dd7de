"""The default network: a residual U-Net of MONAI blocks that computes mostly below full resolution.

The encoder halves the resolution before its first convolutions, and the decoder ends at half resolution. At full
resolution there is only a narrow head, whose input is the upsampled output of the decoder and the image, which contains
the edges. A training step on a CPU takes a fourth to a seventh of the time of a network with its first convolutions at
full resolution (benchmarks/network_speed.py). The upsampling to full resolution and the head are computed as one
convolution at half resolution (cytovox/networks/subpixel.py).

References
----------
Kerfoot et al., Left-Ventricle Quantification Using Residual U-Net, STACOM 2018 (MONAI's ``ResidualUnit``).
"""

import math
from dataclasses import dataclass, field
from typing import cast

import torch
from monai.networks.blocks.convolutions import ResidualUnit
from monai.networks.blocks.upsample import UpSample
from torch import nn

from cytovox.networks.convolutions import use_safe_convolutions
from cytovox.networks.norms import keep_layout
from cytovox.networks.sizes import check_size, size_errors
from cytovox.networks.subpixel import fits, upsample_and_convolve
from cytovox.options import option_errors, raise_errors

#: Normalisations by name, in the form of MONAI's factory.
NORMS: dict[str, tuple[str, dict[str, bool | int]]] = {
    "instance": ("instance", {"affine": True}),
    "batch": ("batch", {}),
    "group": ("group", {"num_groups": 8}),
}
#: Activations by name, in the form of MONAI's factory.
ACTIVATIONS: dict[str, tuple[str, dict[str, bool | float]]] = {
    "leakyrelu": ("leakyrelu", {"negative_slope": 0.01, "inplace": True}),
    "relu": ("relu", {"inplace": True}),
    "prelu": ("prelu", {}),
    "swish": ("swish", {}),
}


@dataclass
class ResidualUNetConfig:
    """Options of `ResidualUNet`."""

    channels: list[int] = field(default_factory=lambda: [32, 64, 128, 256])
    """Feature maps per level, finest first. Multiples of 16 are fast on the matrix units of CPUs and GPUs."""
    strides: list[int] = field(default_factory=list)
    """Downsampling factor in y and x before each level, the first from full resolution. Empty: 2 for all levels."""
    strides_z: list[int] = field(default_factory=list)
    """Downsampling factor in z before each level. Empty: `strides`, but 1 for the last level, as stacks are shallow."""
    units: int = 2
    """Convolutions in each residual unit of the encoder."""
    decoder_units: int = 1
    """Convolutions in each residual unit of the decoder."""
    head_channels: int = 8
    """Feature maps at full resolution, besides the input image."""
    norm: str = "instance"
    """instance, batch or group (of 8 groups)."""
    activation: str = "leakyrelu"
    """leakyrelu, relu, prelu or swish."""
    dropout: float = 0.0
    """Fraction of the features in each residual unit that are set to 0 in training."""

    @property
    def strides_ZYX(self) -> list[tuple[int, int, int]]:
        """Stride before each level, with defaults filled in."""
        lateral = list(self.strides) or [2] * len(self.channels)
        axial = list(self.strides_z) or [*lateral[:-1], 1]
        return [(z, yx, yx) for z, yx in zip(axial, lateral, strict=True)]

    @property
    def divisor(self) -> tuple[int, int, int]:
        """Product of the strides along each axis (z, y, x), of which the size must be a multiple."""
        z, y, x = (math.prod(axis) for axis in zip(*self.strides_ZYX, strict=True))
        return z, y, x

    @property
    def minimum(self) -> tuple[int, int, int]:
        """Smallest size (z, y, x): two voxels in y and x and three in z at the coarsest level.

        A single voxel cannot be normalised. On x86 CPUs with bfloat16 but without AMX, the weight gradient of a
        3x3x3 convolution over two slices is wrong or NaN (torch 2.13, oneDNN's ``jit_bf16``).
        """
        z, y, x = self.divisor
        return 3 * z, 2 * y, 2 * x

    def errors(self, patch_ZYX: tuple[int, int, int] | None = None) -> list[str]:
        """Return what is wrong with the options, also for a patch of this size, one line per error."""
        levels = len(self.channels)
        errors = option_errors(
            self,
            ("channels", levels > 0 and min(self.channels) >= 1, "at least one level, each of 1 or more"),
            *(
                (
                    name,
                    not strides or (len(strides) == levels and min(strides) >= 1),
                    f"{levels} numbers of 1 or more, one for each of channels, or [] for the default",
                )
                for name, strides in (("strides", self.strides), ("strides_z", self.strides_z))
            ),
            *((name, getattr(self, name) >= 1, "1 or more") for name in ("units", "decoder_units", "head_channels")),
            ("norm", self.norm in NORMS, f"one of {', '.join(NORMS)}"),
            (
                "channels",
                self.norm != "group" or all(width % 8 == 0 for width in self.channels),
                "multiples of 8 with norm: group",
            ),
            ("activation", self.activation in ACTIVATIONS, f"one of {', '.join(ACTIVATIONS)}"),
            ("dropout", 0 <= self.dropout < 1, "0 or more and less than 1"),
        )
        if patch_ZYX is not None and not errors:
            errors += [f"patch: {error}" for error in size_errors(patch_ZYX, self.divisor, self.minimum)]
        return errors

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        """Return a new network.

        Raises
        ------
        InputError
            An option is out of range.
        """
        raise_errors("residual_unet", self.errors())
        return ResidualUNet(in_channels, out_channels, self)


class ResidualUNet(nn.Module):
    """Residual U-Net, from (B, in_channels, Z, Y, X) to logits (B, out_channels, Z, Y, X).

    Parameters
    ----------
    in_channels, out_channels : int
        Number of images and of organelles.
    config : ResidualUNetConfig
        Valid options.
    """

    #: Whether ``channels_last_3d`` is faster on a CPU in 16 bits.
    channels_last = True

    def __init__(self, in_channels: int, out_channels: int, config: ResidualUNetConfig) -> None:
        super().__init__()
        self.divisor, self.minimum = config.divisor, config.minimum
        widths, strides = [in_channels, *config.channels], config.strides_ZYX

        def unit(channels_in: int, channels_out: int, stride: tuple[int, int, int], subunits: int) -> nn.Module:
            return ResidualUnit(
                3,
                channels_in,
                channels_out,
                strides=stride,
                subunits=subunits,
                act=ACTIVATIONS[config.activation],
                norm=NORMS[config.norm],
                dropout=config.dropout or None,
                bias=False,
            )

        def up(channels_in: int, channels_out: int, stride: tuple[int, int, int]) -> nn.Module:
            return UpSample(3, channels_in, channels_out, scale_factor=stride, mode="deconv")

        levels = range(len(config.channels))
        self.encoder = nn.ModuleList(unit(widths[i], widths[i + 1], strides[i], config.units) for i in levels)
        upward = list(reversed(levels))[:-1]
        self.ups = nn.ModuleList(up(widths[i + 1], widths[i], strides[i]) for i in upward)
        self.decoder = nn.ModuleList(unit(2 * widths[i], widths[i], (1, 1, 1), config.decoder_units) for i in upward)
        self.top = up(widths[1], config.head_channels, strides[0])
        self.head = nn.Conv3d(config.head_channels + in_channels, out_channels, 3, padding=1)
        keep_layout(self)
        use_safe_convolutions(self)

    def forward(self, x_BCZYX: torch.Tensor) -> torch.Tensor:
        """Return logits of the input's size.

        Raises
        ------
        InputError
            A size that the network does not accept; see ``ResidualUNetConfig.divisor`` and ``minimum``.
        """
        check_size("residual_unet", x_BCZYX.shape[2:], self.divisor, self.minimum)
        features, skips = x_BCZYX, []
        for level in self.encoder:
            features = level(features)
            skips.append(features)
        for up, level, skip in zip(self.ups, self.decoder, reversed(skips[:-1]), strict=True):
            features = level(torch.cat([up(features), skip], dim=1))
        deconv = cast(nn.ConvTranspose3d, self.top.deconv)
        if fits(deconv, self.head):
            return upsample_and_convolve(features, x_BCZYX, deconv, self.head)
        top = self.top(features)
        return self.head(torch.cat([top, x_BCZYX.to(top.dtype)], dim=1))
