"""The default network: a residual U-Net of MONAI parts that spends its work below full resolution.

The encoder halves the grid before its first convolutions and the decoder ends there; at full resolution there is only
a narrow head that sees the decoder's output, upsampled, beside the input image itself, which carries the edges.
Compared with convolutions of the first width at full resolution, a training step on a CPU takes a fourth to a
seventh of the time (benchmarks/network_speed.py). The upsampling to full resolution and the head behind it are
computed as one convolution on the half grid (cytovox/networks/subpixel.py).

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

from cytovox.errors import InputError
from cytovox.networks.convolutions import use_safe_convolutions
from cytovox.networks.norms import keep_layout
from cytovox.networks.sizes import check_size, size_errors
from cytovox.networks.subpixel import fits, upsample_and_convolve

#: Normalisations by name, as MONAI's factory spells them.
NORMS: dict[str, tuple[str, dict[str, bool | int]]] = {
    "instance": ("instance", {"affine": True}),
    "batch": ("batch", {}),
    "group": ("group", {"num_groups": 8}),
}
#: Activations by name, as MONAI's factory spells them.
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
    """Feature maps per level, finest first. Multiples of 16 suit the matrix units of CPUs and GPUs."""
    strides: list[int] = field(default_factory=list)
    """Downsampling in y and x on the way into each level, the first from full resolution. Empty: 2 everywhere."""
    strides_z: list[int] = field(default_factory=list)
    """The same along z. Empty: as `strides`, but 1 into the last level, as a stack is less deep than wide."""
    units: int = 2
    """Convolutions in each residual unit of the encoder."""
    decoder_units: int = 1
    """Convolutions in each residual unit of the decoder."""
    head_channels: int = 8
    """Feature maps at full resolution, beside the input image."""
    norm: str = "instance"
    """instance, batch or group (of 8 groups)."""
    activation: str = "leakyrelu"
    """leakyrelu, relu, prelu or swish."""
    dropout: float = 0.0
    """Share of the features set to zero in training, inside each residual unit."""

    @property
    def strides_ZYX(self) -> list[tuple[int, int, int]]:
        """The stride into each level, with what was left empty filled in."""
        lateral = list(self.strides) or [2] * len(self.channels)
        axial = list(self.strides_z) or [*lateral[:-1], 1]
        return [(z, yx, yx) for z, yx in zip(axial, lateral, strict=True)]

    @property
    def divisor(self) -> tuple[int, int, int]:
        """Every axis (z, y, x) must be a multiple of this: the product of the strides along it."""
        z, y, x = (math.prod(axis) for axis in zip(*self.strides_ZYX, strict=True))
        return z, y, x

    @property
    def minimum(self) -> tuple[int, int, int]:
        """At the coarsest level two voxels in y and x, and three in z.

        A single voxel cannot be normalised. On x86 CPUs with bfloat16 but without AMX, the weight gradient of a
        3x3x3 convolution over two slices is wrong or NaN (torch 2.13, oneDNN's ``jit_bf16``).
        """
        z, y, x = self.divisor
        return 3 * z, 2 * y, 2 * x

    def errors(self, patch_ZYX: tuple[int, int, int] | None = None) -> list[str]:
        """What is wrong with the options, and with a patch of this size; empty where all is well."""
        errors = self._list_errors() + self._scalar_errors()
        if patch_ZYX is not None and not errors:
            errors += [f"patch: {error}" for error in size_errors(patch_ZYX, self.divisor, self.minimum)]
        return errors

    def _list_errors(self) -> list[str]:
        errors = []
        if not self.channels or min(self.channels) < 1:
            errors.append(f"channels: {list(self.channels)}: expected at least one level, each of 1 or more")
        for name, strides in (("strides", self.strides), ("strides_z", self.strides_z)):
            if strides and (len(strides) != len(self.channels) or min(strides) < 1):
                errors.append(
                    f"{name}: {list(strides)}: expected {len(self.channels)} numbers of 1 or more, one for each of "
                    f"channels, or [] for the default"
                )
        return errors

    def _scalar_errors(self) -> list[str]:
        errors = []
        for name, least in (("units", 1), ("decoder_units", 1), ("head_channels", 1)):
            if getattr(self, name) < least:
                errors.append(f"{name}: {getattr(self, name)}: expected {least} or more")
        if self.norm not in NORMS:
            errors.append(f"norm: {self.norm!r}: expected one of {', '.join(NORMS)}")
        elif self.norm == "group" and any(width % 8 for width in self.channels):
            errors.append(f"channels: {list(self.channels)}: expected multiples of 8 with norm: group")
        if self.activation not in ACTIVATIONS:
            errors.append(f"activation: {self.activation!r}: expected one of {', '.join(ACTIVATIONS)}")
        if not 0 <= self.dropout < 1:
            errors.append(f"dropout: {self.dropout}: expected 0 or more and less than 1")
        return errors

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        """The network, freshly initialised.

        Raises
        ------
        InputError
            An option is out of range.
        """
        if errors := self.errors():
            raise InputError(f"residual_unet: {'; '.join(errors)}")
        return ResidualUNet(in_channels, out_channels, self)


class ResidualUNet(nn.Module):
    """(B, in_channels, Z, Y, X) to logits (B, out_channels, Z, Y, X).

    Parameters
    ----------
    in_channels, out_channels : int
        Images in, organelles out.
    config : ResidualUNetConfig
        Valid options.
    """

    #: Whether a CPU is faster in ``channels_last_3d`` in 16 bits.
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
        """Logits of the input's size.

        Raises
        ------
        InputError
            A size that the network cannot take; see ``ResidualUNetConfig.divisor`` and ``minimum``.
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
