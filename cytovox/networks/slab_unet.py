"""A 2D U-Net whose channels are the slices of a volume, for 3D shapes at a fraction of the cost of a 3D network.

The condition is an image, so that all information lies in the plane. The z axis is short and its voxels are strongly
correlated: 32 or 64 slices are fewer values per pixel than the channels of a 3D network. Squares of pixels become
channels before the first convolution and pixels again after the last one (Shi et al. 2016), so that the network
computes on a coarser grid than that of its input and output.

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
from monai.networks.nets.diffusion_model_unet import zero_module
from torch import nn
from torch.nn import functional as F

from cytovox.options import option_errors, raise_errors

#: Groups of every normalisation.
GROUPS = 8
#: Side of the images in pixels.
SIDE = 64


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut; the time embedding scales and shifts the features between both."""

    def __init__(self, channels: int, out_channels: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(GROUPS, channels), nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, out_channels)
        self.conv2 = zero_module(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.modulation = nn.Linear(embedding, 2 * out_channels)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, h_BCYX: torch.Tensor, embedding_BE: torch.Tensor) -> torch.Tensor:
        """Return features (B, out_channels, Y, X)."""
        scale, shift = self.modulation(embedding_BE)[:, :, None, None].chunk(2, dim=1)
        y_BCYX = self.norm2(self.conv1(F.silu(self.norm1(h_BCYX)))) * (1 + scale) + shift
        return self.shortcut(h_BCYX) + self.conv2(self.dropout(F.silu(y_BCYX)))


class Attention(nn.Module):
    """Self-attention over the pixels of the coarsest level."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero_module(nn.Conv2d(channels, channels, 1))

    def forward(self, h_BCYX: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the same shape."""
        b, c, y, x = h_BCYX.shape
        qkv = self.qkv(self.norm(h_BCYX)).reshape(b, 3, self.heads, c // self.heads, y * x).transpose(-1, -2)
        mixed = F.scaled_dot_product_attention(*qkv.unbind(1))
        return h_BCYX + self.out(mixed.transpose(-1, -2).reshape(b, c, y, x))


class TimeEmbedding(nn.Module):
    """Sines and cosines of a time from 0 to 1000, followed by two layers (Vaswani et al. 2017)."""

    def __init__(self, width: int, frequencies: int = 32) -> None:
        super().__init__()
        rates = torch.exp(-math.log(10_000.0) * torch.arange(frequencies) / frequencies)
        self.register_buffer("rates", rates, persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, t_B: torch.Tensor) -> torch.Tensor:
        """Return the embedding, (B, width)."""
        angle = t_B[:, None].float() * self.get_buffer("rates")
        embedded: torch.Tensor = self.layers(torch.cat([angle.sin(), angle.cos()], dim=1))
        return embedded


class SlabUNet(nn.Module):
    """Predicts volumes from a noisy volume, a time and an image.

    Parameters
    ----------
    slices : int
        Depth of the volume.
    outputs : int
        Number of predicted volumes.
    channels : sequence of int
        Feature maps of each level, the finest first; y and x are halved from level to level.
    blocks : int
        Residual blocks per level in the encoder; the decoder has one more.
    patch : int
        Side of the squares of pixels that become channels.
    condition_channels, condition_scale : int
        Channels of the image, and number of its pixels along one voxel of the volume.
    dropout : float
        Dropout probability in every residual block.
    heads : int
        Heads of the attention at the coarsest level.
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
        for level, next_width in enumerate(channels):
            for _ in range(blocks):
                self.down.append(ResidualBlock(width, next_width, embedding, dropout))
                width = next_width
                skips.append(width)
            if level + 1 < len(channels):
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips.append(width)
        self.bottom = ResidualBlock(width, width, embedding, dropout)
        self.attention = Attention(width, heads)
        self.bottom2 = ResidualBlock(width, width, embedding, dropout)
        self.up = nn.ModuleList()
        for level, next_width in reversed(list(enumerate(channels))):
            for _ in range(blocks + 1):
                self.up.append(ResidualBlock(width + skips.pop(), next_width, embedding, dropout))
                width = next_width
            if level:
                self.up.append(nn.Upsample(scale_factor=2, mode="nearest"))
        self.norm = nn.GroupNorm(GROUPS, width)
        self.head = zero_module(nn.Conv2d(width, outputs * slices * patch**2, 3, padding=1))

    def forward(self, x_BCZYX: torch.Tensor, t_B: torch.Tensor, condition_BCYX: torch.Tensor) -> torch.Tensor:
        """Return the predicted volumes.

        Parameters
        ----------
        x_BCZYX : float tensor, (B, 1, slices, Y, X)
            Noisy volume; Y and X are multiples of patch x 2 ** (levels - 1).
        t_B : float tensor, (B,)
            Times, 0 to 1000.
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
            block = isinstance(layer, ResidualBlock)
            h = layer(torch.cat([h, skips.pop()], dim=1), embedding_BE) if block else layer(h)
        y_BZYX = F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.patch)
        return y_BZYX.unflatten(1, (self.outputs, self.slices))


@dataclass
class SlabUNetConfig:
    """2D U-Net whose channels are the z-slices of the shape."""

    channels: list[int] = field(default_factory=lambda: [64, 128, 256])
    """Feature maps of each level, the finest first, in multiples of 8; y and x are halved from level to level."""
    blocks: int = 1
    """Residual blocks per level in the encoder; the decoder has one more."""
    patch: int = 2
    """Side in pixels of the squares that become channels, so that the network computes on a coarser grid."""
    dropout: float = 0.1
    """Fraction of the values in every block that are dropped in training."""
    heads: int = 4
    """Heads of the attention at the coarsest level."""

    def errors(self, size: int = SIDE) -> list[str]:
        """Return what is wrong with the options, also for fields of this side length, one line per error."""
        valid = bool(self.channels) and all(c >= GROUPS and c % GROUPS == 0 for c in self.channels)
        last = self.channels[-1] if valid else 0
        divides = not valid or (self.heads >= 1 and last % self.heads == 0)
        errors = option_errors(
            self,
            ("channels", valid, f"multiples of {GROUPS}, one per level"),
            ("heads", divides, f"a divisor of the last of channels, {last}"),
            ("blocks", self.blocks >= 1, "1 or more"),
            ("patch", self.patch >= 1, "1 or more"),
            ("dropout", 0 <= self.dropout < 1, "a fraction from 0 to below 1"),
        )
        step = self.patch * 2 ** (len(self.channels) - 1)
        if not errors and (size % step or SIDE % size):
            errors.append(
                f"channels: {len(self.channels)} levels need field.size to be a multiple of {step}, not {size}"
            )
        return errors

    def build(self, size: int = SIDE, outputs: int = 1, extra_channels: int = 0) -> SlabUNet:
        """Return the network; raise `InputError` if an option is out of range.

        Parameters
        ----------
        size : int
            Side of the fields in voxels; the side of the image is 64 pixels.
        outputs : int
            Output channels.
        extra_channels : int
            Channels of the condition besides the mask and the image.
        """
        raise_errors("slab_unet", self.errors(size))
        return SlabUNet(
            size, outputs, self.channels, self.blocks, self.patch,
            condition_channels=2 + extra_channels, condition_scale=SIDE // size,
            dropout=self.dropout, heads=self.heads,
        )  # fmt: skip
