"""Traits of a shape: four numbers that an image does not determine, given to the network or drawn at random.

The image of a red blood cell hardly shows how thick the cell is, and does not show how it is tilted. A model that
minimises an error predicts the mean of all plausible shapes. Therefore the network is trained with the true traits for
some samples and without traits for the others. For sampling, it first predicts a shape without traits. Traits are then
drawn around those of this shape, and the network predicts a shape with them. The spread of the samples is thus set by
the measured errors of four numbers, and not by the uncertainty that remains in a network overfitted to a hundred cells.

The thickness is log(V / A^1.5) of the volume V and the area A of the imaged slice, minus the value of a sphere cut
through its centre. The other three traits describe the plane through the middles of the object's columns: its height
above the imaged slice at the centroid, and its two slopes, which are positive where z increases. The height is a
fraction of the field's depth. The other traits do not depend on the size of the cell.

References
----------
Ho & Salimans, Classifier-free diffusion guidance, 2022, arXiv 2207.12598 (conditions omitted at random in training).
Sohn et al., Learning structured output representation using deep conditional generative models, NeurIPS 2015 (random
draws of what the condition does not determine).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from cytovox.diffusion.noise import Draws
from cytovox.diffusion.transfer import upload
from cytovox.options import NoOptions, option_errors, raise_errors

#: V / A^1.5 of a sphere that is cut through its centre: (4/3 pi) / pi^1.5.
SPHERE = 0.7523
#: Slope of the sigmoid that turns a field in -1..1 into a shape.
SHARPNESS = 12.0
#: A height of an eighth of the depth is encoded as 1.
HEIGHTS = 8.0


class Traits(NamedTuple):
    """Traits of a batch of shapes; each float (B,)."""

    thickness: torch.Tensor
    """log(V / A^1.5) minus the value of a sphere."""
    height: torch.Tensor
    """Height of the plane above the imaged slice at the centroid, as a fraction of the depth."""
    slope_y: torch.Tensor
    """Slope of the plane along y, in voxels along z per voxel."""
    slope_x: torch.Tensor
    """Slope of the plane along x."""
    centre_y: torch.Tensor
    """y of the centroid, 0 to 1; taken from the predicted shape and never drawn."""
    centre_x: torch.Tensor
    """x of the centroid, 0 to 1."""


def measure_traits(field_BCZYX: torch.Tensor) -> Traits:
    """Return the traits of the shapes of fields.

    Parameters
    ----------
    field_BCZYX : float tensor, (B, 1, Z, Y, X)
        Fields in -1..1, above 0 inside the shape. The imaged slice is the one at Z / 2.

    Returns
    -------
    Traits
        float32 also under 16-bit autocast, because only elementwise products and sums are used.
    """
    inside_BZYX = torch.sigmoid(SHARPNESS * field_BCZYX[:, 0].float())
    depth, height, width = inside_BZYX.shape[1:]
    z, y, x = ((torch.arange(n, device=field_BCZYX.device) + 0.5) / n for n in (depth, height, width))
    weight_BYX = inside_BZYX.sum(1)
    volume_B = weight_BYX.sum((1, 2)).clamp(min=1.0)
    area_B = inside_BZYX[:, depth // 2].sum((1, 2)).clamp(min=1.0)
    # the middle of each column, relative to the imaged slice; a product and a sum, because the rounding of a matrix
    # product is larger and depends on the batch size
    middle_BYX = ((z - z[depth // 2])[:, None, None] * inside_BZYX).sum(1) / weight_BYX.clamp(min=1e-3)
    share_BYX = weight_BYX / volume_B[:, None, None]

    def mean(value_BYX: torch.Tensor) -> torch.Tensor:
        return (share_BYX * value_BYX).sum((1, 2))

    centre_y, centre_x, level = mean(y[:, None].expand_as(share_BYX)), mean(x.expand_as(share_BYX)), mean(middle_BYX)
    dy_BYX, dx_BYX = y[:, None] - centre_y[:, None, None], x - centre_x[:, None, None]
    rise_BYX = middle_BYX - level[:, None, None]
    # weighted least squares, with a small extra variance so that the plane of a needle is not vertical
    yy, xx = (mean(d * d) + (0.5 / height) ** 2 for d in (dy_BYX, dx_BYX))
    yx, yr, xr = mean(dy_BYX * dx_BYX), mean(dy_BYX * rise_BYX), mean(dx_BYX * rise_BYX)
    determinant = yy * xx - yx * yx
    slope_y, slope_x = (xx * yr - yx * xr) / determinant, (yy * xr - yx * yr) / determinant
    return Traits(torch.log(volume_B / area_B**1.5 / SPHERE), level, slope_y, slope_x, centre_y, centre_x)


def trait_maps(traits: Traits, known_B: torch.Tensor, shape_YX: tuple[int, int]) -> torch.Tensor:
    """Return the input channels of a network that contain traits, float (B, 3, Y, X).

    The channels are the thickness, the plane's height and whether both are known.

    Parameters
    ----------
    traits : Traits
        Traits of a batch.
    known_B : float tensor, (B,)
        1 where the traits of a shape are given; 0 where all three channels are 0.
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
    """Adds given or drawn traits to a condition.

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
        """Return the condition with the true traits of a random part of the batch, and without traits of the rest."""
        device = generator.device if generator else field_BCZYX.device
        chance_B = torch.rand(len(field_BCZYX), generator=generator, device=device)
        chance_B = upload(chance_B, field_BCZYX.device, field_BCZYX.dtype)
        known_B = (chance_B < self.config.given_fraction).float()
        return self.with_traits(condition_BCYX, measure_traits(field_BCZYX), known_B)

    def without_traits(self, condition_BCYX: torch.Tensor) -> torch.Tensor:
        """Return the condition without traits."""
        empty = condition_BCYX.new_zeros(len(condition_BCYX), self.channels, *condition_BCYX.shape[2:])
        return torch.cat([condition_BCYX, empty], dim=1)

    def with_drawn_traits(
        self, field_BCZYX: torch.Tensor, condition_BCYX: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the condition with traits drawn around those of a prediction.

        Parameters
        ----------
        field_BCZYX : float tensor, (B, 1, Z, Y, X)
            Prediction without traits.
        condition_BCYX : float tensor
            Condition of the prediction.
        generator : torch.Generator
            Generator of the draws' seeds, one number per shape.
        """
        own, config = measure_traits(field_BCZYX), self.config
        thickness, height, slope_y, slope_x = Draws(condition_BCYX, (4,), generator)().T
        drawn = own._replace(
            thickness=own.thickness + config.thickness * thickness,
            height=own.height + config.height * height,
            slope_y=own.slope_y + config.tilt * slope_y,
            slope_x=own.slope_x + config.tilt * slope_x,
        )
        return self.with_traits(condition_BCYX, drawn)

    def with_traits(
        self, condition_BCYX: torch.Tensor, traits: Traits, known_B: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the condition with these traits, for all shapes or where `known_B` is 1."""
        known_B = torch.ones_like(traits.height) if known_B is None else known_B
        maps_BCYX = trait_maps(traits, known_B, (condition_BCYX.shape[2], condition_BCYX.shape[3]))
        return torch.cat([condition_BCYX, maps_BCYX.to(condition_BCYX)], dim=1)


@dataclass
class NoTraitsConfig(NoOptions):
    """No traits: the image is the only condition, and samples differ by their noise only. No options."""

    channels = 0

    def build(self) -> None:
        """Return None."""


@dataclass
class TraitsConfig:
    """Thickness and tilt, given to the network in training and drawn for every sample."""

    channels = TraitConditioning.channels

    given_fraction: float = 0.5
    """Fraction of the training samples that the network gets traits of."""
    thickness: float = 0.2
    """Standard deviation of drawn log thicknesses around the predicted one: the relative error of predicted volumes."""
    tilt: float = 0.2
    """Standard deviation of each drawn slope."""
    height: float = 0.03
    """Standard deviation of drawn heights, as a fraction of the depth."""

    def errors(self) -> list[str]:
        """Return what is wrong with the options, one line per error."""
        return option_errors(
            self,
            ("given_fraction", 0 < self.given_fraction < 1, "a fraction between 0 and 1"),
            ("thickness", 0 <= self.thickness <= 2, "0 to 2"),
            ("tilt", 0 <= self.tilt <= 5, "0 to 5"),
            ("height", 0 <= self.height <= 0.5, "0 to 0.5"),
        )

    def build(self) -> TraitConditioning:
        """Return the conditioning; raise `InputError` if an option is out of range."""
        raise_errors("traits", self.errors())
        return TraitConditioning(self)


#: Conditions besides the image, by name.
TRAITS: dict[str, type[NoTraitsConfig | TraitsConfig]] = {"none": NoTraitsConfig, "thickness_and_tilt": TraitsConfig}
