"""SHAPR, which predicts a shape from an image and its mask, and the discriminator of its second training stage.

A 2D encoder of 10, 40 and 80 feature maps ends in one map at a quarter of the size. A 3D decoder expands this map to a
depth of 64 in six doublings, two of which also double y and x. Differences from the published network:

* the outputs of network and discriminator are logits, not probabilities;
* all kernels have size 3; some of the published ones have size 2 in z, for which "same" padding is asymmetric;
* there is no dropout, which was 0 in the published training.

References
----------
Waibel et al., SHAPR predicts 3D cell shapes from 2D microscopic images, iScience 25:105298, 2022.
"""

from dataclasses import dataclass

import torch
from monai.networks.blocks.convolutions import Convolution
from torch import nn

from cytovox.networks.convolutions import use_safe_convolutions
from cytovox.networks.sizes import check_size
from cytovox.options import option_errors, raise_errors

#: The decoder's doublings: feature maps in multiples of the base, and stride along (z, y, x).
DOUBLINGS = [
    (8, (2, 1, 1)),
    (4, (2, 1, 1)),
    (4, (2, 2, 2)),
    (2, (2, 1, 1)),
    (1, (2, 2, 2)),
    (1, (2, 1, 1)),
]


@dataclass
class SHAPRConfig:
    """Options of `SHAPR` and its discriminator."""

    base_channels: int = 10
    """Feature maps of the first level; later levels have 4 and 8 times as many, the discriminator up to 16 times."""
    bottleneck_channels: int = 1
    """Feature maps between encoder and decoder, at a quarter of the image's size; published: 1."""

    def errors(self) -> list[str]:
        """Return what is wrong with the options, one line per error."""
        names = ("base_channels", "bottleneck_channels")
        return option_errors(self, *((name, getattr(self, name) >= 1, "1 or more") for name in names))

    def build(self) -> "SHAPR":
        """Return the network; raise `InputError` if an option is out of range."""
        raise_errors("shapr", self.errors())
        return SHAPR(self)

    def build_discriminator(self) -> "SHAPRDiscriminator":
        """Return the discriminator of the second stage; raise `InputError` if an option is out of range."""
        raise_errors("shapr", self.errors())
        return SHAPRDiscriminator(self.base_channels)


def _convolution(
    dimensions: int, in_channels: int, out_channels: int, strides: tuple[int, ...] | int = 1, transposed: bool = False
) -> nn.Module:
    """Return convolution, ReLU and batch normalisation, in SHAPR's order."""
    return Convolution(
        dimensions, in_channels, out_channels, strides, adn_ordering="AN", act="relu", norm="batch",
        is_transposed=transposed,
    )  # fmt: skip


class SHAPR(nn.Module):
    """Predicts a shape; the generator of the second stage.

    Parameters
    ----------
    config : SHAPRConfig
        Valid options.
    """

    def __init__(self, config: SHAPRConfig) -> None:
        super().__init__()
        base, wide = config.base_channels, 8 * config.base_channels
        self.encoder = nn.Sequential(
            _convolution(2, 2, base),
            _convolution(2, base, base),
            nn.MaxPool2d(2),
            _convolution(2, base, 4 * base),
            _convolution(2, 4 * base, 4 * base),
            nn.MaxPool2d(2),
            _convolution(2, 4 * base, wide),
            _convolution(2, wide, wide),
            nn.Conv2d(wide, config.bottleneck_channels, 3, padding=1),
            nn.Sigmoid(),
        )
        self.widen = nn.Sequential(_convolution(2, config.bottleneck_channels, wide), _convolution(2, wide, wide))
        decoder, channels = [], wide
        for multiplier, strides in DOUBLINGS:
            width = multiplier * base
            decoder += [_convolution(3, channels, width, strides, transposed=True), _convolution(3, width, width)]
            channels = width
        self.decoder = nn.Sequential(*decoder)
        self.head = nn.Conv3d(channels, 1, 3, padding=1)
        use_safe_convolutions(self)

    def forward(self, condition_BCYX: torch.Tensor) -> torch.Tensor:
        """Return the predicted shape.

        Parameters
        ----------
        condition_BCYX : float tensor, (B, 2, Y, X)
            The mask and the masked image; y and x multiples of 4.

        Returns
        -------
        float tensor, (B, 1, 64, Y, X)
            Logits.
        """
        check_size("shapr", (1, *condition_BCYX.shape[2:]), (1, 4, 4), (1, 4, 4))
        flat = self.widen(self.encoder(condition_BCYX))
        # this layout halves the time of a training step on a CPU: there are few channels and many voxels
        deep = flat[:, :, None].contiguous(memory_format=torch.channels_last_3d)
        return self.head(self.decoder(deep))


class SHAPRDiscriminator(nn.Module):
    """Distinguishes true shapes from predicted ones.

    Parameters
    ----------
    base_channels : int
        Feature maps of the first of five levels; the number doubles from level to level.
    """

    def __init__(self, base_channels: int) -> None:
        super().__init__()
        levels: list[nn.Module] = [_convolution(3, 1, base_channels)]
        for level in range(4):
            width = base_channels * 2**level
            levels += [nn.AvgPool3d(2), _convolution(3, width, 2 * width)]
        self.features = nn.Sequential(*levels)
        self.verdict = nn.Sequential(nn.Linear(16 * base_channels, 256), nn.ReLU(), nn.Linear(256, 1))
        use_safe_convolutions(self)

    def forward(self, shape_BCZYX: torch.Tensor) -> torch.Tensor:
        """Return how likely shapes are true ones.

        Parameters
        ----------
        shape_BCZYX : float tensor, (B, 1, Z, Y, X)
            0 to 1; every axis at least 16.

        Returns
        -------
        float tensor, (B, 1)
            Logits.
        """
        return self.verdict(self.features(shape_BCZYX).mean((2, 3, 4)))
