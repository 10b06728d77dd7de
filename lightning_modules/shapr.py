"""SHAPR: one shape per image, trained first with Dice and cross-entropy, then also against a discriminator.

Waibel et al., SHAPR predicts 3D cell shapes from 2D microscopic images, iScience 25:105298, 2022.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cytovox.losses.shapr import SHAPRLoss
from cytovox.models.shape import Samples, condition
from lightning_modules.base import frozen
from lightning_modules.shape_base import ShapeBase


class SHAPRModule(ShapeBase):
    """Training of the generator alone in the first stage, and against the discriminator in the second.

    One optimiser updates both networks; the gradient of one loss never reaches the other network.

    Parameters
    ----------
    discriminator : Module, optional
        Network that distinguishes predicted shapes from true ones; without one there is no second stage.
    loss : SHAPRLoss, optional
        Loss of both stages; not needed without training.
    supervised : float
        Fraction of the steps in the first stage.
    **shared
        See `ShapeBase`.
    """

    def __init__(
        self,
        discriminator: nn.Module | None = None,
        loss: SHAPRLoss | None = None,
        supervised: float = 0.5,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.discriminator, self.loss, self.supervised = discriminator, loss, supervised

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        """Return the loss of the shapes, plus that of the discriminator in the second stage."""
        assert self.loss is not None
        obj_BCZYX, size = batch["obj"], len(batch["obj"])
        logits_BCZYX = self.network(condition(batch["image"], batch["mask"]))
        if self.discriminator is None:
            total = self.loss.shape(logits_BCZYX, obj_BCZYX)
        elif not self.adversarial:
            # parameters without a gradient would make distributed training fail
            idle = sum(p.sum() * 0 for p in self.discriminator.parameters())
            total = self.loss.shape(logits_BCZYX, obj_BCZYX) + idle
        else:
            with frozen(self.discriminator.parameters()):
                verdict_B1 = self.discriminator(torch.sigmoid(logits_BCZYX))
            fooling, parts = self.loss.generator(logits_BCZYX, obj_BCZYX, verdict_B1)
            shapes_BCZYX = torch.sigmoid(logits_BCZYX.detach())
            judging = self.loss.discriminator(self.discriminator(obj_BCZYX), self.discriminator(shapes_BCZYX))
            for name, value in {**parts, "discriminator": judging.detach()}.items():
                self.log(f"train/{name}", value, batch_size=size)
            total = fooling + judging
        self.log("train/loss", total.detach(), batch_size=size)
        return total

    @property
    def adversarial(self) -> bool:
        """Whether the second stage has begun."""
        return self.trainer.global_step >= self.supervised * float(self.trainer.estimated_stepping_batches)

    def configure_optimizers(self) -> Any:
        """Return one optimiser for both networks."""
        return self.configured(self.parameters())

    def draw(self, condition_BCYX: torch.Tensor, generator: torch.Generator) -> Samples:
        """Return the single prediction, -1 to 1: SHAPR is deterministic."""
        return Samples(2 * torch.sigmoid(self.network(condition_BCYX).float()) - 1)
