"""3D shapes of a cell from one 2D image and its mask (DISPR, Waibel et al. 2022, arXiv 2208.14125; SHAPR)."""

import dataclasses
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from cytovox.diffusion.parts import PARTS
from cytovox.diffusion.preconditioning import Denoiser
from cytovox.diffusion.samplers import Sampler
from cytovox.diffusion.traits import TRAITS, TraitConditioning
from cytovox.errors import DeviceError, InputError
from cytovox.inference.device import autocast, choose_precision, resolve_device
from cytovox.inference.device_memory import DeviceLimits
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
#: Default samplers by process, those of the shipped configs.
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
        """float32, fraction of the samples that contain each voxel."""
        return self.samples_NZYX.float().mean(0)


@dataclasses.dataclass
class Samples:
    """Fields of a batch, each (B, 1, size, size, size)."""

    samples_BCZYX: torch.Tensor
    """Plausible fields."""
    likely_BCZYX: torch.Tensor | None = None
    """The model's best single estimate; None if it is the mean of the samples."""


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
        Source of random numbers; the next batch continues with it.
    """
    shape = (1, size, size, size)
    if traits is None:
        return Samples(sampler(denoiser, shape, condition_BCYX, generator))
    # the same seeds three times: a sample depends only on its own number, not on the number drawn at once
    start = generator.get_state()
    likely_BCZYX = sampler(denoiser, shape, traits.without_traits(condition_BCYX), generator)
    generator.set_state(start)
    conditioned_BCYX = traits.with_drawn_traits(likely_BCZYX, condition_BCYX, generator)
    generator.set_state(start)
    return Samples(sampler(denoiser, shape, conditioned_BCYX, generator), likely_BCZYX)


class ShapeSampler:
    """Sampler of the shapes of one cell after another.

    Training, the test stage, the predict command and `ShapeModel` all use this class.

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
        """Limit of the samples in one batch; set by the first cell, whose tensors have the device."""

    @torch.no_grad()
    def __call__(self, image_CYX: torch.Tensor, mask_CYX: torch.Tensor, number: int, count: int) -> Shapes:
        """Return the shapes of a cell.

        Parameters
        ----------
        image_CYX, mask_CYX : float tensor, (1, Y, X)
            Image in 0..1 and mask of 0 and 1.
        number : int
            Number of the cell; with the seed, it determines the samples. Only rounding depends on how many are computed
            in one batch (`samples_at_once`, fewer if the device's memory is short).
        count : int
            Number of samples.

        Raises
        ------
        DeviceError
            The device has too little memory for one sample.
        """
        conditioned_CYX, mask_1YX = condition(image_CYX[None], mask_CYX[None])[0], mask_CYX > 0.5
        generator = torch.Generator().manual_seed(_seed(self.seed, number))
        self.limits = limits = self.limits or DeviceLimits(samples_at_once(conditioned_CYX.device))
        middles, objects, done = list[torch.Tensor](), list[torch.Tensor](), 0
        while done < count:
            symmetries = [sample if self.views else 0 for sample in range(done, min(done + limits.batch, count))]
            found = self._batch(conditioned_CYX, mask_1YX, symmetries, generator, limits)
            if found is not None:
                middles.append(found[0])
                objects.append(found[1])
                done += len(symmetries)
        mean_ZYX = self.field.decode(torch.cat(middles).mean(0, keepdim=True), mask_1YX)[0]
        return Shapes(torch.cat(objects).cpu(), mean_ZYX.cpu())

    def _batch(
        self,
        conditioned_CYX: torch.Tensor,
        mask_1YX: torch.Tensor,
        symmetries: list[int],
        generator: torch.Generator,
        limits: DeviceLimits,
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the fields whose mean is the mean shape, and the samples; None if they do not fit into memory.

        In that case the limit is halved, and the generator is reset.
        """
        start = generator.get_state()
        try:
            drawn = self.draw(torch.stack([view(conditioned_CYX, symmetry) for symmetry in symmetries]), generator)
            samples = _transformed_back(drawn.samples_BCZYX, symmetries)
            middle = samples if drawn.likely_BCZYX is None else _transformed_back(drawn.likely_BCZYX, symmetries)
            return middle, self.field.decode(samples, mask_1YX.expand(len(symmetries), -1, -1))
        except torch.OutOfMemoryError as error:
            generator.set_state(start)
            if not limits.halve_batch(len(symmetries), "shapes"):
                raise DeviceError(
                    "out of memory on the device with one shape at a time: choose precision 16-mixed or bf16-mixed, or "
                    "the CPU, or end other programs that use the device"
                ) from error
        return None


class ShapeModel:
    """Model that predicts 3D shapes of a cell from a 2D image and its mask.

    Parameters
    ----------
    weights : Weights
        Weights of the shape or the SHAPR task.
    device : str
        `auto`, `cpu`, `cuda` or `cuda:N`.
    precision : str
        `auto`, `32-true`, `16-mixed` or `bf16-mixed`.
    sampler : config of a sampler, optional
        One of `cytovox.diffusion.samplers.SAMPLERS`; the default of the model's process if not given.
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
        self.precision = choose_precision(precision, self.device)
        build = _shapr if weights.metadata.task == "shapr" else partial(_diffusion, sampler)
        network, draw, field = build(weights, key)
        self.network = network.to(self.device).eval()
        self._sampler = ShapeSampler(draw, field, views, seed)

    def predict(self, image_YX: np.ndarray, mask_YX: np.ndarray, samples: int = 20, *, name: str = "cell") -> Shapes:
        """Return plausible shapes of the cell.

        Parameters
        ----------
        image_YX : array, (Y, X)
            Grey or colour image of one cell, square: 8 or 16 bits, or floats from 0 to 1.
        mask_YX : array, (Y, X)
            Mask of the cell.
        samples : int
            Number of shapes; 19 or more give a 90 % interval of the volume.
        name : str
            Name of the cell. With the seed it determines the samples, as in the predict command.

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
    """Return image (float32, 0 to 1) and mask (bool) at 64 x 64 pixels, checked like those of files.

    Raises
    ------
    InputError
        Image and mask are not square, not of one size, empty, or of unknown scale.
    """
    for what, values in (("image", np.asarray(image_YX)), ("mask", np.asarray(mask_YX))):
        if values.dtype.kind not in "buif" or not values.size or not np.isfinite(values).all():
            raise InputError(f"{what}: expected finite numbers, got {values.dtype} with NaN or infinite values or none")
    image, mask = grey_image(np.asarray(image_YX), "image"), cell_mask(np.asarray(mask_YX), "mask")
    if image.shape != mask.shape:
        raise InputError(f"mask: {sizes_of(mask)}, but the image is {sizes_of(image)}: give the mask of this image")
    return resized_image(image), resized_mask(mask[None], "mask")[0]


def _diffusion(sampler: Any, weights: Weights, key: str) -> tuple[nn.Module, Draw, ShapeField]:
    """Return the network of weights of the shape task, its draws, and its representation of shapes."""
    metadata = weights.metadata
    field, traits, process, preconditioning = (
        config_of(known[str(options["name"])], options)
        for known, options in (
            (FIELDS, metadata.field),
            (TRAITS, metadata.traits),
            (PARTS["process"], metadata.process),
            (PARTS["preconditioning"], metadata.preconditioning),
        )
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
    denoiser = Denoiser(load_network(network, weights, key), process.build(), preconditioning.build())
    return network, partial(draw_samples, denoiser, sampler.build(), traits.build(), field.size), field.build()


def _shapr(weights: Weights, key: str) -> tuple[nn.Module, Draw, ShapeField]:
    """Return the same for weights of SHAPR, whose only sample is its answer."""
    network = load_network(config_of(SHAPRConfig, weights.metadata.model).build(), weights, key)

    def draw(condition_BCYX: torch.Tensor, generator: torch.Generator) -> Samples:
        return Samples(2 * torch.sigmoid(network(condition_BCYX).float()) - 1)

    return network, draw, OccupancyConfig().build()


def _transformed_back(fields_BCZYX: torch.Tensor, symmetries: list[int]) -> torch.Tensor:
    return torch.stack(
        [unview(field, symmetry) for field, symmetry in zip(fields_BCZYX.float(), symmetries, strict=True)]
    )


def _seed(seed: int, number: int) -> int:
    """Return a seed of 64 bits, one half from each number, so that no two pairs share a seed."""
    return (seed % 2**31 << 32) + number % 2**32
