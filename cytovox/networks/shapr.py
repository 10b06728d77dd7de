"""SHAPR: from one image and its mask to one shape, and the discriminator of its second stage.

A 2D encoder of 10, 40 and 80 feature maps ends in one map of a quarter the size; a 3D decoder gives that map a depth
of 64 in six doublings, two of which double y and x as well. As published, but for these choices:

* the output is a logit, not a probability, and so is the discriminator's verdict;
* all kernels are 3 wide: some of the published ones are 2 deep in z, where "same" padding is lopsided;
* no dropout, which the published training left at 0.

References
----------
Waibel et al., SHAPR predicts 3D cell shapes from 2D microscopic images, iScience 25:105298, 2022.
"""

from dataclasses import dataclass

import torch
from monai.networks.blocks.convolutions import Convolution
from torch import nn

from cytovox.errors import InputError
from cytovox.networks.convolutions import use_safe_convolutions
from cytovox.networks.sizes import check_size

#: The decoder's doublings: feature maps in multiples of the base, and the stride along (z, y, x).
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
    """Options of `SHAPR` and of its discriminator."""

    base_channels: int = 10
    """Feature maps of the first level; the others have 4 and 8 times as many, the discriminator's up to 16."""
    bottleneck_channels: int = 1
    """Maps between encoder and decoder: one, a quarter the image's size, as published."""

    def errors(self) -> list[str]:
        """What is wrong with the options; empty where all is well."""
        sizes = {"base_channels": self.base_channels, "bottleneck_channels": self.bottleneck_channels}
        return [f"{name}: {value}: expected 1 or more" for name, value in sizes.items() if value < 1]

    def build(self) -> "SHAPR":
        """The network; `InputError` if an option is out of range."""
        self._check()
        return SHAPR(self)

    def build_discriminator(self) -> "SHAPRDiscriminator":
        """The judge of the second stage; `InputError` if an option is out of range."""
        self._check()
        return SHAPRDiscriminator(self.base_channels)

    def _check(self) -> None:
        if errors := self.errors():
            raise InputError(f"shapr: {'; '.join(errors)}")


def _convolution(
    dimensions: int, in_channels: int, out_channels: int, strides: tuple[int, ...] | int = 1, transposed: bool = False
) -> nn.Module:
    """Convolution, ReLU, batch normalisation: SHAPR's order."""
    return Convolution(
        dimensions, in_channels, out_channels, strides, adn_ordering="AN", act="relu", norm="batch",
        is_transposed=transposed,
    )  # fmt: skip


class SHAPR(nn.Module):
    """The generator.

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
        """Predict the shape.

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
        # few channels and many voxels: the layout halves the time of a training step on a CPU
        deep = flat[:, :, None].contiguous(memory_format=torch.channels_last_3d)
        return self.head(self.decoder(deep))


class SHAPRDiscriminator(nn.Module):
    """Tells true shapes from predicted ones.

    Parameters
    ----------
    base_channels : int
        Feature maps of the first of five levels; each level has twice as many as the one before.
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
        """Judge shapes.

        Parameters
        ----------
        shape_BCZYX : float tensor, (B, 1, Z, Y, X)
            0 to 1; every axis at least 16.

        Returns
        -------
        float tensor, (B, 1)
            Logit of being true.
        """
        return self.verdict(self.features(shape_BCZYX).mean((2, 3, 4)))
