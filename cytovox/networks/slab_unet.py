"""A U-Net in two dimensions that carries the slices of a volume as channels: a 3D shape at a fraction of the cost.

The condition is an image, so all that is known lies in the plane; z is short and strongly correlated, and 32 or 64
slices are fewer numbers a pixel than a 3D network's channels. Neighbouring pixels are folded into channels before the
first convolution and unfolded after the last (Shi et al. 2016), so that the network computes on a coarser grid than it
reads and writes.

References
----------
Ronneberger et al., U-Net, MICCAI 2015, arXiv 1505.04597.
Dhariwal & Nichol, Diffusion models beat GANs, NeurIPS 2021, arXiv 2105.05233 (residual blocks, adaptive normalisation).
Shi et al., Real-time single image and video super-resolution, CVPR 2016, arXiv 1609.05158 (sub-pixel convolution).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

from cytovox.errors import InputError

#: Channels that share a mean and a variance are this many groups.
GROUPS = 8
#: Pixels a side of the images.
SIDE = 64


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; the embedding of time scales and shifts between them."""

    def __init__(self, channels: int, out_channels: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(GROUPS, channels), nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(GROUPS, out_channels), nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * out_channels)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else nn.Identity()
        _zero(self.conv2)

    def forward(self, h_BCYX: torch.Tensor, embedding_BE: torch.Tensor) -> torch.Tensor:
        scale, shift = self.modulation(embedding_BE)[:, :, None, None].chunk(2, dim=1)
        y_BCYX = self.norm2(self.conv1(F.silu(self.norm1(h_BCYX)))) * (1 + scale) + shift
        return self.shortcut(h_BCYX) + self.conv2(self.dropout(F.silu(y_BCYX)))


class Attention(nn.Module):
    """Self-attention over the pixels of the coarsest level."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.GroupNorm(GROUPS, channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)
        _zero(self.out)

    def forward(self, h_BCYX: torch.Tensor) -> torch.Tensor:
        b, c, y, x = h_BCYX.shape
        qkv = self.qkv(self.norm(h_BCYX)).reshape(b, 3, self.heads, c // self.heads, y * x).transpose(-1, -2)
        found = F.scaled_dot_product_attention(*qkv.unbind(1))
        return h_BCYX + self.out(found.transpose(-1, -2).reshape(b, c, y, x))


class TimeEmbedding(nn.Module):
    """Sines and cosines of a time from 0 to 1000, and two layers (Vaswani et al. 2017)."""

    def __init__(self, width: int, frequencies: int = 32) -> None:
        super().__init__()
        rates = torch.exp(-math.log(10_000.0) * torch.arange(frequencies) / frequencies)
        self.register_buffer("rates", rates, persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, t_B: torch.Tensor) -> torch.Tensor:
        angle = t_B[:, None].float() * self.get_buffer("rates")
        embedded: torch.Tensor = self.layers(torch.cat([angle.sin(), angle.cos()], dim=1))
        return embedded


class SlabUNet(nn.Module):
    """The network.

    Parameters
    ----------
    slices : int
        Depth of the volume.
    outputs : int
        Volumes that come out.
    channels : sequence of int
        Width of each level, the finest first; each level halves y and x.
    blocks : int
        Residual blocks a level and way.
    patch : int
        Side of the square of pixels that is folded into channels.
    condition_channels, condition_scale : int
        Channels of the image, and how many of its pixels lie along one of the volume's.
    dropout : float
        In every residual block.
    heads : int
        Of the attention at the bottom.
    """

    def __init__(
        self,
        slices: int,
        outputs: int = 1,
        channels: Sequence[int] = (96, 192, 256),
        blocks: int = 1,
        patch: int = 2,
        condition_channels: int = 2,
        condition_scale: int = 2,
        dropout: float = 0.1,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.slices, self.outputs, self.patch, self.condition_scale = slices, outputs, patch, condition_scale
        embedding = 2 * channels[0]
        self.time = TimeEmbedding(embedding)
        folded = slices * patch**2 + condition_channels * (patch * condition_scale) ** 2
        self.stem = nn.Conv2d(folded, channels[0], 3, padding=1)
        width, skips = channels[0], [channels[0]]
        self.down = nn.ModuleList()
        for level, wanted in enumerate(channels):
            for _ in range(blocks):
                self.down.append(ResidualBlock(width, wanted, embedding, dropout))
                width = wanted
                skips.append(width)
            if level + 1 < len(channels):
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips.append(width)
        self.bottom = ResidualBlock(width, width, embedding, dropout)
        self.attention = Attention(width, heads)
        self.bottom2 = ResidualBlock(width, width, embedding, dropout)
        self.up = nn.ModuleList()
        for level, wanted in reversed(list(enumerate(channels))):
            for _ in range(blocks + 1):
                self.up.append(ResidualBlock(width + skips.pop(), wanted, embedding, dropout))
                width = wanted
            if level:
                self.up.append(nn.Upsample(scale_factor=2, mode="nearest"))
        self.norm = nn.GroupNorm(GROUPS, width)
        self.head = nn.Conv2d(width, outputs * slices * patch**2, 3, padding=1)
        _zero(self.head)

    def forward(self, x_BCZYX: torch.Tensor, t_B: torch.Tensor, condition_BCYX: torch.Tensor) -> torch.Tensor:
        """Volumes at a time of a process, beside the image they belong to.

        Parameters
        ----------
        x_BCZYX : float tensor, (B, 1, slices, Y, X)
            Y and X are multiples of patch x 2 ** (levels - 1).
        t_B : float tensor, (B,)
            0 to 1000.
        condition_BCYX : float tensor, (B, condition_channels, Y x condition_scale, X x condition_scale)
            The image.

        Returns
        -------
        float tensor, (B, outputs, slices, Y, X)
        """
        embedding_BE = self.time(t_B)
        x_BZYX = F.pixel_unshuffle(x_BCZYX[:, 0], self.patch)
        h = self.stem(torch.cat([x_BZYX, F.pixel_unshuffle(condition_BCYX, self.patch * self.condition_scale)], dim=1))
        skips = [h]
        for layer in self.down:
            h = layer(h, embedding_BE) if isinstance(layer, ResidualBlock) else layer(h)
            skips.append(h)
        h = self.bottom2(self.attention(self.bottom(h, embedding_BE)), embedding_BE)
        for layer in self.up:
            if isinstance(layer, ResidualBlock):
                h = layer(torch.cat([h, skips.pop()], dim=1), embedding_BE)
            else:
                h = layer(h)
        y_BZYX = F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.patch)
        return y_BZYX.unflatten(1, (self.outputs, self.slices))


def _zero(layer: nn.Conv2d) -> None:
    """A new branch adds nothing until it has learnt something."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


@dataclass
class SlabUNetConfig:
    """The z-slices of the shape are channels of a 2D U-Net."""

    channels: list[int] = field(default_factory=lambda: [64, 128, 256])
    """Width of each level, the finest first; multiples of 8. Each level halves y and x."""
    blocks: int = 1
    """Residual blocks a level and way."""
    patch: int = 2
    """Squares of so many pixels a side are folded into channels: the network computes on the coarser grid."""
    dropout: float = 0.1
    """Part of the channels' values dropped in every block while training."""
    heads: int = 4
    """Heads of the attention at the coarsest level."""

    def errors(self, size: int = SIDE) -> list[str]:
        """What is wrong with the options, and with fields of this many voxels a side; empty where all is well."""
        errors = []
        if not self.channels or any(c < GROUPS or c % GROUPS for c in self.channels):
            errors.append(f"channels: {list(self.channels)}: expected multiples of {GROUPS}, one per level")
        elif self.heads < 1 or self.channels[-1] % self.heads:
            errors.append(f"heads: {self.heads}: expected a divisor of the last of channels, {self.channels[-1]}")
        for key in ("blocks", "patch"):
            if getattr(self, key) < 1:
                errors.append(f"{key}: {getattr(self, key)}: expected 1 or more")
        if not 0 <= self.dropout < 1:
            errors.append(f"dropout: {self.dropout}: expected a part from 0 to below 1")
        step = self.patch * 2 ** (len(self.channels) - 1)
        if not errors and (size % step or SIDE % size):
            errors.append(
                f"channels: {len(self.channels)} levels need field.size to be a multiple of {step}, not {size}"
            )
        return errors

    def build(self, size: int = SIDE, outputs: int = 1, extra_channels: int = 0) -> SlabUNet:
        """The network; `InputError` if an option is out of range.

        Parameters
        ----------
        size : int
            Voxels a side of the fields; the image has 64 pixels a side.
        outputs : int
            Output channels.
        extra_channels : int
            Channels of the condition beside the mask and the image.
        """
        if errors := self.errors(size):
            raise InputError(f"slab_unet: {'; '.join(errors)}")
        scale = SIDE // size
        return SlabUNet(
            size, outputs, self.channels, self.blocks, self.patch, 2 + extra_channels, scale, self.dropout, self.heads
        )
