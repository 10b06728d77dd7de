"""SHAPR: one shape for an image, first by Dice and cross-entropy, then against a discriminator, too.

Waibel et al., SHAPR predicts 3D cell shapes from 2D microscopic images, iScience 25:105298, 2022.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from cytovox.losses.shapr import SHAPRLoss
from cytovox.models.shape import Samples, condition
from lightning_modules.optim import configure
from lightning_modules.shape_base import MONITOR, ShapeBase


class SHAPRModule(ShapeBase):
    """Trains the generator alone for the first part of the run, and against the discriminator for the rest.

    One optimiser steps both at once; the gradient of one loss never reaches the other network.

    Parameters
    ----------
    discriminator : Module, optional
        Judges shapes; without one there is no second stage.
    loss : SHAPRLoss, optional
        Of both stages; not needed without training.
    supervised : float
        Part of the run's steps before the discriminator comes in.
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
        """Error of the shapes; in the second stage, of the discriminator as well."""
        assert self.loss is not None
        obj_BCZYX, size = batch["obj"], len(batch["obj"])
        logits_BCZYX = self.network(condition(batch["image"], batch["mask"]))
        if self.discriminator is None:
            total = self.loss.shape(logits_BCZYX, obj_BCZYX)
        elif not self.adversarial:
            # a part without a gradient would stop distributed training
            idle = sum(p.sum() * 0 for p in self.discriminator.parameters())
            total = self.loss.shape(logits_BCZYX, obj_BCZYX) + idle
        else:
            with frozen(self.discriminator):
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
        """One optimiser for both networks."""
        assert self.optimizer_config is not None
        steps = float(self.trainer.estimated_stepping_batches)
        return configure(self.optimizer_config, self.parameters(), steps, MONITOR)

    def draw(self, condition_BCYX: torch.Tensor, generator: torch.Generator) -> Samples:
        """Return its single answer, -1 to 1: SHAPR is deterministic."""
        return Samples(2 * torch.sigmoid(self.network(condition_BCYX).float()) - 1)


@contextlib.contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Gradients pass through the network, but do not reach its weights."""
    wanted = [p.requires_grad for p in network.parameters()]
    network.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, want in zip(network.parameters(), wanted, strict=True):
            parameter.requires_grad_(want)
