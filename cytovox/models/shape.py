"""3D shapes of a cell from one 2D image and its mask (DISPR, Waibel et al. 2022, arXiv 2208.14125; SHAPR)."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from cytovox.diffusion.parts import PARTS
from cytovox.diffusion.preconditioning import Denoiser
from cytovox.diffusion.samplers import Sampler
from cytovox.diffusion.traits import TRAITS, TraitConditioning
from cytovox.errors import DeviceError, InputError
from cytovox.inference.device import choose_precision, resolve_device
from cytovox.inference.device_memory import DeviceLimits
from cytovox.inference.precision import autocast
from cytovox.models.domain import cell_statistics, outside
from cytovox.models.metadata import Weights, load_network
from cytovox.models.networks import config_of
from cytovox.networks.shape_registry import shape_network_config
from cytovox.networks.shapr import SHAPRConfig
from cytovox.preprocess.cell_images import cell_mask, grey_image, resized_image, resized_mask, sizes_of
from cytovox.preprocess.shape_fields import FIELDS, OccupancyConfig, ShapeField
from cytovox.preprocess.square_symmetries import unview, view

#: Samples that are computed in one batch.
BATCH = 8
#: The same on a CUDA device.
BATCH_ON_CUDA = 16
#: Samplers of models whose config is not known, by process: what the shipped configs use.
DEFAULT_SAMPLERS = {"direct": "one_step", "rectified_flow": "euler", "linear_betas": "ancestral"}


def condition(image_BCYX: torch.Tensor, mask_BCYX: torch.Tensor) -> torch.Tensor:
    """Return the mask and the masked image, (B, 2, Y, X): the input of DISPR's networks."""
    return torch.cat([mask_BCYX, image_BCYX * mask_BCYX], dim=1)


def samples_at_once(device: torch.device) -> int:
    """Return how many samples of a cell are computed in one batch on a device."""
    return BATCH_ON_CUDA if device.type == "cuda" else BATCH


@dataclasses.dataclass
class Shapes:
    """Predicted shapes of one cell."""

    samples_NZYX: torch.Tensor
    """bool, plausible shapes."""
    mean_ZYX: torch.Tensor
    """bool, the shape of the mean field of all samples."""

    @property
    def probability_ZYX(self) -> torch.Tensor:
        """float32, the fraction of the samples that contain a voxel."""
        return self.samples_NZYX.float().mean(0)


@dataclasses.dataclass
class Samples:
    """Fields of a batch, each (B, 1, size, size, size)."""

    samples_BCZYX: torch.Tensor
    """Plausible fields."""
    likely_BCZYX: torch.Tensor | None = None
    """The model's single best estimate; None where only the mean of the samples gives one."""


#: From a condition (B, C, Y, X) and a random generator to fields.
Draw = Callable[[torch.Tensor, torch.Generator], Samples]


def draw_samples(
    denoiser: Denoiser,
    sampler: Sampler,
    traits: TraitConditioning | None,
    size: int,
    condition_BCYX: torch.Tensor,
    generator: torch.Generator,
) -> Samples:
    """Return one field for each condition.

    Parameters
    ----------
    denoiser : Denoiser
        Network, process and preconditioning.
    sampler : Sampler
        From noise to a field.
    traits : TraitConditioning or None
        Traits that are drawn for each sample around those of the model's own estimate.
    size : int
        Voxels along each axis of a field.
    condition_BCYX : float tensor
        From `condition`.
    generator : torch.Generator
        Seeds the draws; the next batch continues with it.
    """
    shape = (1, size, size, size)
    if traits is None:
        return Samples(sampler(denoiser, shape, condition_BCYX, generator))
    # three times the same seeds: a sample depends on its own number only, however many are drawn at once
    start = generator.get_state()
    likely_BCZYX = sampler(denoiser, shape, traits.without_traits(condition_BCYX), generator)
    generator.set_state(start)
    conditioned_BCYX = traits.with_drawn_traits(likely_BCZYX, condition_BCYX, generator)
    generator.set_state(start)
    return Samples(sampler(denoiser, shape, conditioned_BCYX, generator), likely_BCZYX)


class ShapeSampler:
    """Draws the shapes of one cell after another.

    Training, the test stage, the predict command and `ShapeModel` all draw shapes here.

    Parameters
    ----------
    draw : callable
        From a condition and a generator to `Samples`.
    field : ShapeField
        From a field to a shape.
    views : bool
        Predict from the rotations and mirror images of the image in turn, and transform the shapes back.
    seed : int
        Random seed, combined with the number of the cell.
    """

    def __init__(self, draw: Draw, field: ShapeField, views: bool = True, seed: int = 0) -> None:
        self.draw, self.field, self.views, self.seed = draw, field, views, seed
        self.limits: DeviceLimits | None = None
        """Samples in one batch; set by the first cell, whose tensors show the device."""

    @torch.no_grad()
    def __call__(self, image_CYX: torch.Tensor, mask_CYX: torch.Tensor, number: int, count: int) -> Shapes:
        """Return the shapes of a cell.

        Parameters
        ----------
        image_CYX, mask_CYX : float tensor, (1, Y, X)
            Image in 0..1 and mask of 0 and 1.
        number : int
            Number of the cell; with the seed, it determines the samples. Only rounding depends on how many are computed
            in one batch (`samples_at_once`, fewer where the device's memory is short).
        count : int
            Number of samples.

        Raises
        ------
        DeviceError
            The device has not even memory for one sample.
        """
        conditioned_CYX, mask_1YX = condition(image_CYX[None], mask_CYX[None])[0], mask_CYX > 0.5
        generator = torch.Generator().manual_seed(_seed(self.seed, number))
        self.limits = limits = self.limits or DeviceLimits(samples_at_once(conditioned_CYX.device))
        middles, objects, done = list[torch.Tensor](), list[torch.Tensor](), 0
        while done < count:
            turns = [sample if self.views else 0 for sample in range(done, min(done + limits.batch, count))]
            found = self._batch(conditioned_CYX, mask_1YX, turns, generator, limits)
            if found is not None:
                middles.append(found[0])
                objects.append(found[1])
                done += len(turns)
        mean_ZYX = self.field.decode(torch.cat(middles).mean(0, keepdim=True), mask_1YX)[0]
        return Shapes(torch.cat(objects).cpu(), mean_ZYX.cpu())

    def _batch(
        self,
        conditioned_CYX: torch.Tensor,
        mask_1YX: torch.Tensor,
        turns: list[int],
        generator: torch.Generator,
        limits: DeviceLimits,
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the fields whose mean is the mean shape, and the samples; None where they do not fit into memory.

        In that case the limit is halved, and the generator is set back.
        """
        start = generator.get_state()
        try:
            drawn = self.draw(torch.stack([view(conditioned_CYX, turn) for turn in turns]), generator)
            samples = _turned_back(drawn.samples_BCZYX, turns)
            middle = samples if drawn.likely_BCZYX is None else _turned_back(drawn.likely_BCZYX, turns)
            return middle, self.field.decode(samples, mask_1YX.expand(len(turns), -1, -1))
        except torch.OutOfMemoryError as error:
            generator.set_state(start)
            if not limits.halve_batch(len(turns), "shapes"):
                raise DeviceError(
                    "out of memory on the device with one shape at a time: choose precision 16-mixed or bf16-mixed, or "
                    "the CPU, or end other programs that use the device"
                ) from error
        return None


class ShapeModel:
    """Predicts 3D shapes of a cell from a 2D image and its mask.

    Parameters
    ----------
    weights : Weights
        Of the shape or the SHAPR task.
    device : str
        `auto`, `cpu`, `cuda` or `cuda:N`.
    precision : str
        `auto`, `32-true`, `16-mixed` or `bf16-mixed`.
    sampler : config of a sampler, optional
        One of `cytovox.diffusion.samplers.SAMPLERS`; by default the usual one of the model's process.
    views : bool
        Predict from the eight rotations and mirror images of the image in turn, and transform the shapes back.
    seed : int
        Random seed of the samples.
    key : str
        Argument or config key that named the weights, for messages.
    """

    def __init__(
        self,
        weights: Weights,
        device: str = "auto",
        precision: str = "auto",
        *,
        sampler: Any = None,
        views: bool = True,
        seed: int = 0,
        key: str = "load_model",
    ) -> None:
        self.metadata = weights.metadata
        self.trained_on = weights.metadata.trained_on
        self.device = resolve_device(device)
        kind = self.device.partition(":")[0]
        self.precision = choose_precision(precision, kind)
        draw, field = _shapr(weights, key) if weights.metadata.task == "shapr" else _diffusion(weights, sampler, key)
        self.network = draw.network.to(self.device).eval()
        self._sampler = ShapeSampler(draw, field, views, seed)

    def predict(self, image_YX: np.ndarray, mask_YX: np.ndarray, samples: int = 20, *, name: str = "cell") -> Shapes:
        """Return plausible shapes of the cell.

        Parameters
        ----------
        image_YX : array, (Y, X)
            Grey or colour image of one cell, square: 8 or 16 bits, or floats from 0 to 1.
        mask_YX : array, (Y, X)
            The cell in it.
        samples : int
            Number of shapes; 19 or more give a 90 % interval of the volume.
        name : str
            Name of the cell. With the seed it determines the samples, as for the predict command.

        Returns
        -------
        Shapes
            64 voxels along each axis; the image is slice 32.

        Raises
        ------
        InputError
            An image or a mask that cannot be used.
        """
        if samples < 1:
            raise InputError(f"samples: expected 1 or more, got {samples}")
        image, mask = cell_inputs(image_YX, mask_YX)
        tensors = [torch.from_numpy(values.astype(np.float32))[None].to(self.device) for values in (image, mask)]
        with autocast(self.device.partition(":")[0], self.precision):
            return self._sampler(tensors[0], tensors[1], zlib.crc32(name.encode()), samples)

    def outside_training(self, image_YX: np.ndarray, mask_YX: np.ndarray) -> str:
        """Return how a cell differs from those that the weights were trained on; empty if it does not."""
        return "; ".join(outside(self.trained_on, cell_statistics(*cell_inputs(image_YX, mask_YX))))


def cell_inputs(image_YX: np.ndarray, mask_YX: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return image (float32, 0 to 1) and mask (bool) at 64 x 64 pixels, by the rules of files.

    Raises
    ------
    InputError
        They are not square, not of one size, empty, or of no known scale.
    """
    for what, values in (("image", np.asarray(image_YX)), ("mask", np.asarray(mask_YX))):
        if values.dtype.kind not in "buif" or not values.size or not np.isfinite(values).all():
            raise InputError(f"{what}: expected finite numbers, got {values.dtype} with NaN or infinite values or none")
    image, mask = grey_image(np.asarray(image_YX), "image"), cell_mask(np.asarray(mask_YX), "mask")
    if image.shape != mask.shape:
        raise InputError(f"mask: {sizes_of(mask)}, but the image is {sizes_of(image)}: give the mask of this image")
    return resized_image(image), resized_mask(mask[None], "mask")[0]


class _Diffusion:
    """Draws fields with a network and the parts that it was trained with."""

    def __init__(self, network: Any, denoiser: Denoiser, sampler: Sampler, traits: Any, size: int) -> None:
        self.network, self.denoiser, self.sampler, self.traits, self.size = network, denoiser, sampler, traits, size

    def __call__(self, condition_BCYX: torch.Tensor, generator: torch.Generator) -> Samples:
        return draw_samples(self.denoiser, self.sampler, self.traits, self.size, condition_BCYX, generator)


class _Regression:
    """SHAPR's single answer."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def __call__(self, condition_BCYX: torch.Tensor, generator: torch.Generator) -> Samples:
        return Samples(2 * torch.sigmoid(self.network(condition_BCYX).float()) - 1)


def _diffusion(weights: Weights, sampler: Any, key: str) -> tuple[_Diffusion, ShapeField]:
    metadata = weights.metadata
    field = config_of(FIELDS[str(metadata.field["name"])], metadata.field)
    traits = config_of(TRAITS[str(metadata.traits["name"])], metadata.traits)
    process, preconditioning = (
        config_of(PARTS[part][str(getattr(metadata, part)["name"])], getattr(metadata, part))
        for part in ("process", "preconditioning")
    )
    usual = PARTS["sampler"][DEFAULT_SAMPLERS[str(metadata.process["name"])]]
    if sampler is None:
        sampler = usual()
    elif (metadata.process["name"] == "direct") != isinstance(sampler, PARTS["sampler"]["one_step"]):
        raise InputError(
            f"{key}: {weights.path}: a sampler {type(sampler).__name__} does not fit the process "
            f"{metadata.process['name']}; use {usual.__name__}"
        )
    model = config_of(shape_network_config(str(metadata.model["network"])), metadata.model)
    network = model.build(size=field.size, outputs=preconditioning.outputs, extra_channels=traits.channels)
    load_network(network, weights, key)
    denoiser = Denoiser(network, process.build(), preconditioning.build())
    return _Diffusion(network, denoiser, sampler.build(), traits.build(), field.size), field.build()


def _shapr(weights: Weights, key: str) -> tuple[_Regression, ShapeField]:
    network = config_of(SHAPRConfig, weights.metadata.model).build()
    load_network(network, weights, key)
    return _Regression(network), OccupancyConfig().build()


def _turned_back(fields_BCZYX: torch.Tensor, turns: list[int]) -> torch.Tensor:
    return torch.stack([unview(field, turn) for field, turn in zip(fields_BCZYX.float(), turns, strict=True)])


def _seed(seed: int, number: int) -> int:
    """Return one seed for both: the two halves of 64 bits, which no other pair shares."""
    return (seed % 2**31 << 32) + number % 2**32
