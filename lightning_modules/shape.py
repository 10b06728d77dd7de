"""Shape task: from an image and its mask to plausible 3D shapes (DISPR, Waibel et al. 2022, arXiv 2208.14125).

One module serves the published model and every other choice of network, process, preconditioning, loss and sampler.
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
    """Independent parts of a diffusion model besides its network (Karras et al. 2022, arXiv 2206.00364)."""

    process: Process
    preconditioning: Preconditioning
    loss: DenoisingLoss
    sampler: Sampler
    validation_sampler: Sampler | None = None
    """Sampler of the validation during training; None for `sampler`."""


class ShapeModule(ShapeBase):
    """Training of a denoiser of fields, and sampling of shapes with it.

    Parameters
    ----------
    parts : Parts
        Parts of the model besides the network.
    traits : TraitConditioning, optional
        Conditioning of the network in addition to the image.
    **shared
        See `ShapeBase`.
    """

    def __init__(self, parts: Parts, traits: TraitConditioning | None = None, **shared: Any) -> None:
        super().__init__(**shared)
        self.parts, self.traits = parts, traits
        self.denoiser = Denoiser(self._forward, parts.process, parts.preconditioning)

    def _forward(self, x_BCZYX: torch.Tensor, t_B: torch.Tensor, condition_BCYX: torch.Tensor) -> torch.Tensor:
        """Return the network's output; looked up at each call, since averaged weights are swapped in and out."""
        output: torch.Tensor = self.network(x_BCZYX, t_B, condition_BCYX)
        return output

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        """Return the loss of the denoiser at random times."""
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
        """Return one sample for each condition; see `ShapeBase`."""
        validates = self._trainer is not None and (self._trainer.validating or self._trainer.sanity_checking)
        sampler = (self.parts.validation_sampler if validates else None) or self.parts.sampler
        return draw_samples(self.denoiser, sampler, self.traits, self.field.size, condition_BCYX, generator)
