"""The shape task: an image and its mask in, plausible 3D shapes out (DISPR, Waibel et al. 2022, arXiv 2208.14125).

One module for the published model and for every other choice of network, process, preconditioning, loss and sampler.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from cytovox.diffusion.denoising import DenoisingLoss
from cytovox.diffusion.preconditioning import Denoiser, Preconditioning
from cytovox.diffusion.processes import Process
from cytovox.diffusion.samplers import Sampler
from cytovox.diffusion.traits import TraitConditioning
from cytovox.models.shape import Samples, condition, draw_samples
from lightning_modules.shape_base import ShapeBase


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a model is besides its network; each chosen apart (Karras et al. 2022, arXiv 2206.00364)."""

    process: Process
    preconditioning: Preconditioning
    loss: DenoisingLoss
    sampler: Sampler
    validation_sampler: Sampler | None = None
    """Draws the samples that training is validated by; None for `sampler`."""


class ShapeModule(ShapeBase):
    """Trains a denoiser of fields, and draws shapes with it.

    Parameters
    ----------
    parts : Parts
        What surrounds the network.
    traits : TraitConditioning, optional
        What the network is given besides the image.
    **shared
        See `ShapeBase`.
    """

    def __init__(self, parts: Parts, traits: TraitConditioning | None = None, **shared: Any) -> None:
        super().__init__(**shared)
        self.parts, self.traits = parts, traits
        self.denoiser = Denoiser(self._ask, parts.process, parts.preconditioning)

    def _ask(self, x_BCZYX: torch.Tensor, t_B: torch.Tensor, condition_BCYX: torch.Tensor) -> torch.Tensor:
        """The network of this moment: averaged weights are swapped in and out of it."""
        answer: torch.Tensor = self.network(x_BCZYX, t_B, condition_BCYX)
        return answer

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        """Error of the denoiser at random times."""
        field_BCZYX = self.field.encode(batch["distance"][:, 0])
        conditioned_BCYX = condition(batch["image"], batch["mask"])
        if self.traits is not None:
            conditioned_BCYX = self.traits.training(field_BCZYX, conditioned_BCYX)
        loss, parts = self.parts.loss(self.denoiser, field_BCZYX, conditioned_BCYX)
        for name, value in parts.items():
            self.log(f"train/{name}", value, batch_size=len(field_BCZYX))
        self.log("train/loss", loss.detach(), batch_size=len(field_BCZYX))
        return loss

    def draw(self, condition_BCYX: torch.Tensor, generator: torch.Generator) -> Samples:
        """One sample for each condition; see `ShapeBase`."""
        sampler = self.parts.sampler
        if self.parts.validation_sampler is not None and self._validates:
            sampler = self.parts.validation_sampler
        return draw_samples(self.denoiser, sampler, self.traits, self.field.size, condition_BCYX, generator)

    @property
    def _validates(self) -> bool:
        """Whether a training is being validated now."""
        return self._trainer is not None and (self._trainer.validating or self._trainer.sanity_checking)
