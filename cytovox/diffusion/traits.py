"""Traits of a shape: four numbers that an image does not determine, given to the network or drawn at random.

A red blood cell's image says little about how thick the cell is and nothing about which end of it points up: a model
that minimises an error answers with the middle of all that is plausible. So the network is trained with the true
traits in part of the batches and with none in the others. To sample, it is asked first without; then traits are drawn
around those of its answer, and it is asked again. The spread is that of four numbers whose errors can be measured, and
not what is left of a network's doubt after it has learnt a hundred cells by heart.

The traits: the thickness log(V / A^1.5) of volume V over the imaged slice's area A, 0 for a sphere cut in the middle;
and the plane through the middles of the object's columns: its height over the imaged slice at the centroid and its two
slopes, both positive towards larger z. None of the four changes with the size of the cell, save the height, which is
as a fraction of the field's depth.

References
----------
Ho & Salimans, Classifier-free diffusion guidance, 2022, arXiv 2207.12598 (a condition left out at random in training).
Sohn et al., Learning structured output representation using deep conditional generative models, NeurIPS 2015 (drawing
what the condition leaves open).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from cytovox.diffusion.noise import Draws
from cytovox.diffusion.transfer import upload
from cytovox.errors import InputError

#: Thickness of a sphere that is cut through its centre: (4/3 pi) / pi^1.5.
SPHERE = 0.7523
#: Slope of the sigmoid that makes a field in -1..1 a shape.
SHARPNESS = 12.0
#: A height of an eighth of the depth is encoded as 1.
HEIGHTS = 8.0


class Traits(NamedTuple):
    """Of a batch of shapes; each float (B,)."""

    thickness: torch.Tensor
    """log(V / A^1.5), less that of a sphere."""
    height: torch.Tensor
    """Of the plane over the imaged slice at the centroid, in parts of the depth."""
    slope_y: torch.Tensor
    """Rise along z of the plane in voxels along y."""
    slope_x: torch.Tensor
    """The same along x."""
    centre_y: torch.Tensor
    """Where the centroid is, 0 to 1; known of every answer, so never drawn."""
    centre_x: torch.Tensor
    """The same along x."""


def measure_traits(field_BCZYX: torch.Tensor) -> Traits:
    """Traits of the shapes of fields.

    Parameters
    ----------
    field_BCZYX : float tensor, (B, 1, Z, Y, X)
        Above 0 inside; in -1..1. The imaged slice is the one at Z / 2.

    Returns
    -------
    Traits
        float32 also where the caller computes in 16 bits (autocast): sums and products of elements only.
    """
    inside_BZYX = torch.sigmoid(SHARPNESS * field_BCZYX[:, 0].float())
    depth, height, width = inside_BZYX.shape[1:]
    z, y, x = ((torch.arange(n, device=field_BCZYX.device) + 0.5) / n for n in (depth, height, width))
    weight_BYX = inside_BZYX.sum(1)
    volume_B = weight_BYX.sum((1, 2)).clamp(min=1.0)
    area_B = inside_BZYX[:, depth // 2].sum((1, 2)).clamp(min=1.0)
    # the middle of each column, from the imaged slice's own
    # a product and a sum: a matrix product would round more, and more differently, by the size of the batch
    middle_BYX = ((z - z[depth // 2])[:, None, None] * inside_BZYX).sum(1) / weight_BYX.clamp(min=1e-3)
    share_BYX = weight_BYX / volume_B[:, None, None]

    def mean(value_BYX: torch.Tensor) -> torch.Tensor:
        return (share_BYX * value_BYX).sum((1, 2))

    centre_y, centre_x, level = mean(y[:, None].expand_as(share_BYX)), mean(x.expand_as(share_BYX)), mean(middle_BYX)
    dy_BYX, dx_BYX = y[:, None] - centre_y[:, None, None], x - centre_x[:, None, None]
    rise_BYX = middle_BYX - level[:, None, None]
    # weighted least squares; a little more variance keeps the plane of a needle from standing upright
    yy, xx = (mean(d * d) + (0.5 / height) ** 2 for d in (dy_BYX, dx_BYX))
    yx, yr, xr = mean(dy_BYX * dx_BYX), mean(dy_BYX * rise_BYX), mean(dx_BYX * rise_BYX)
    determinant = yy * xx - yx * yx
    slope_y, slope_x = (xx * yr - yx * xr) / determinant, (yy * xr - yx * yr) / determinant
    return Traits(torch.log(volume_B / area_B**1.5 / SPHERE), level, slope_y, slope_x, centre_y, centre_x)


def trait_maps(traits: Traits, known_B: torch.Tensor, shape_YX: tuple[int, int]) -> torch.Tensor:
    """Return the channels that give traits to a network, float (B, 3, Y, X).

    They hold the thickness, the plane's height and whether both are known.

    Parameters
    ----------
    traits : Traits
    known_B : float tensor, (B,)
        1 tells a shape's traits; 0 leaves all three maps empty.
    shape_YX : pair of int
        Size of the image.
    """
    y, x = ((torch.arange(n, device=known_B.device) + 0.5) / n for n in shape_YX)
    rise_y = traits.slope_y[:, None, None] * (y[:, None] - traits.centre_y[:, None, None])
    rise_x = traits.slope_x[:, None, None] * (x - traits.centre_x[:, None, None])
    plane_BYX = HEIGHTS * (traits.height[:, None, None] + rise_y + rise_x)
    thickness_BYX = traits.thickness[:, None, None].expand_as(plane_BYX)
    maps_BCYX = torch.stack([thickness_BYX, plane_BYX, torch.ones_like(plane_BYX)], dim=1)
    return maps_BCYX * known_B[:, None, None, None]


class TraitConditioning:
    """Traits as a condition, and how they are drawn.

    Parameters
    ----------
    config : TraitsConfig
        Valid options.
    """

    channels = 3

    def __init__(self, config: "TraitsConfig") -> None:
        self.config = config

    def training(
        self, field_BCZYX: torch.Tensor, condition_BCYX: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """The condition with the true traits of a part of the batch, and none of the rest."""
        device = generator.device if generator else field_BCZYX.device
        chance_B = torch.rand(len(field_BCZYX), generator=generator, device=device)
        chance_B = upload(chance_B, field_BCZYX.device, field_BCZYX.dtype)
        return self.knowing(
            condition_BCYX, measure_traits(field_BCZYX), (chance_B < self.config.given_fraction).float()
        )

    def nothing(self, condition_BCYX: torch.Tensor) -> torch.Tensor:
        """Return the condition without traits."""
        empty = condition_BCYX.new_zeros(len(condition_BCYX), self.channels, *condition_BCYX.shape[2:])
        return torch.cat([condition_BCYX, empty], dim=1)

    def drawn(
        self, field_BCZYX: torch.Tensor, condition_BCYX: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the condition with traits drawn around those of an answer without traits.

        Parameters
        ----------
        field_BCZYX : float tensor, (B, 1, Z, Y, X)
            The answer.
        condition_BCYX : float tensor
            What it answered to, without traits.
        generator : torch.Generator
            Seeds the draws, one number a shape.
        """
        own, config = measure_traits(field_BCZYX), self.config
        thickness, height, slope_y, slope_x = Draws(condition_BCYX, (4,), generator)().T
        moved = own._replace(
            thickness=own.thickness + config.thickness * thickness,
            height=own.height + config.height * height,
            slope_y=own.slope_y + config.tilt * slope_y,
            slope_x=own.slope_x + config.tilt * slope_x,
        )
        return self.knowing(condition_BCYX, moved)

    def knowing(
        self, condition_BCYX: torch.Tensor, traits: Traits, known_B: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The condition with these traits, of all or where `known_B` is 1."""
        known_B = torch.ones_like(traits.height) if known_B is None else known_B
        maps_BCYX = trait_maps(traits, known_B, (condition_BCYX.shape[2], condition_BCYX.shape[3]))
        return torch.cat([condition_BCYX, maps_BCYX.to(condition_BCYX)], dim=1)


@dataclass
class NoTraitsConfig:
    """All that is known is the image: the spread of shapes is the noise's. It has no options."""

    channels = 0

    def errors(self) -> list[str]:
        """Nothing can be wrong."""
        return []

    def build(self) -> None:
        """Nothing."""
        return


@dataclass
class TraitsConfig:
    """Thickness and tilt are given in training and drawn for every sample."""

    channels = TraitConditioning.channels

    given_fraction: float = 0.5
    """Fraction of the training samples that are given the traits."""
    thickness: float = 0.2
    """Standard deviation of the log thickness around the network's own: the relative error of its volumes."""
    tilt: float = 0.2
    """Standard deviation of each slope."""
    height: float = 0.03
    """Standard deviation of the height, in parts of the depth."""

    def errors(self) -> list[str]:
        """What is wrong with the options; empty where all is well."""
        errors = []
        if not 0 < self.given_fraction < 1:
            errors.append(f"given_fraction: {self.given_fraction}: expected a fraction between 0 and 1")
        limits = (("thickness", self.thickness, 2.0), ("tilt", self.tilt, 5.0), ("height", self.height, 0.5))
        return errors + [
            f"{name}: {value}: expected 0 to {most:g}" for name, value, most in limits if not 0 <= value <= most
        ]

    def build(self) -> TraitConditioning:
        """Traits as a condition; `InputError` if an option is out of range."""
        if errors := self.errors():
            raise InputError(f"traits: {'; '.join(errors)}")
        return TraitConditioning(self)


#: What is given besides the image, by name.
TRAITS: dict[str, type[NoTraitsConfig | TraitsConfig]] = {"none": NoTraitsConfig, "thickness_and_tilt": TraitsConfig}
