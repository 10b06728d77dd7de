"""The shape task: an image and its mask in, plausible 3D shapes out (DISPR, Waibel et al. 2022, arXiv 2208.14125).

One module for the published model and for every other choice of network, process, preconditioning, loss and sampler.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from lightning_modules.shape_base import ShapeBase, condition
from objectives.denoising import DenoisingLoss
from objectives.preconditioning import Denoiser, Preconditioning
from objectives.processes import Process
from objectives.samplers import Sampler


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a model is besides its network; each chosen apart (Karras et al. 2022, arXiv 2206.00364)."""

    process: Process
    preconditioning: Preconditioning
    loss: DenoisingLoss
    sampler: Sampler


class ShapeModule(ShapeBase):
    """Trains a denoiser of fields, and draws shapes with it.

    Parameters
    ----------
    parts : Parts
        What surrounds the network.
    **shared
        See `ShapeBase`.
    """

    def __init__(self, parts: Parts, **shared: Any) -> None:
        super().__init__(**shared)
        self.parts = parts
        self.denoiser = Denoiser(self._ask, parts.process, parts.preconditioning)

    def _ask(self, x_BCZYX: torch.Tensor, t_B: torch.Tensor, condition_BCYX: torch.Tensor) -> torch.Tensor:
        """The network of this moment: averaged weights are swapped in and out of it."""
        answer: torch.Tensor = self.network(x_BCZYX, t_B, condition_BCYX)
        return answer

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        """Error of the denoiser at random times."""
        field_BCZYX = self.field.encode(batch["distance"][:, 0])
        loss, parts = self.parts.loss(self.denoiser, field_BCZYX, condition(batch["image"], batch["mask"]))
        for name, value in parts.items():
            self.log(f"train/{name}", value, batch_size=len(field_BCZYX))
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(field_BCZYX))
        return loss

    def draw(self, condition_BCYX: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One sample for each condition; see `ShapeBase`."""
        size = self.field.size
        return self.parts.sampler(self.denoiser, (1, size, size, size), condition_BCYX, generator)
