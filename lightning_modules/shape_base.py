"""What every model of the shape task shares: from an image and its mask to shapes, and how they are scored."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanMetric

from lightning_modules.optim import OptimizerConfig, configure
from transforms.shape_turns import unview, view

#: Validation metric that picks the best checkpoint; larger is better.
MONITOR = "val/iou"


class Field(Protocol):
    """How shapes are told to a network."""

    @property
    def size(self) -> int:
        """Voxels a side."""

    def encode(self, distance_BZYX: torch.Tensor) -> torch.Tensor:
        """Signed distances in voxels to a field (B, 1, size, size, size)."""

    def decode(self, field_BCZYX: torch.Tensor, mask_BYX: torch.Tensor) -> torch.Tensor:
        """A field to objects (B, Z, Y, X), bool, whose slice 32 is the mask."""


@dataclasses.dataclass
class Shapes:
    """What is predicted of one cell."""

    samples_NZYX: torch.Tensor
    """bool, plausible shapes; a single one of a model that is certain."""
    mean_ZYX: torch.Tensor
    """bool, the shape of the mean field of all samples."""

    @property
    def probability_ZYX(self) -> torch.Tensor:
        """float32, the share of the samples that a voxel is inside."""
        return self.samples_NZYX.float().mean(0)


def condition(image_BCYX: torch.Tensor, mask_BCYX: torch.Tensor) -> torch.Tensor:
    """The mask and the masked image, (B, 2, Y, X): what DISPR's networks are shown."""
    return torch.cat([mask_BCYX, image_BCYX * mask_BCYX], dim=1)


class ShapeBase(pl.LightningModule):
    """Validates, tests and predicts; how it trains and samples is its heirs' matter.

    Parameters
    ----------
    network : Module
        Saved in checkpoints under this name.
    field : Field
        How shapes are told to it.
    optimizer : OptimizerConfig, optional
        Not needed without training.
    samples : int
        Shapes predicted of each cell.
    views : bool
        Predict them from the turns and mirror images of the image in turn, and turn them back.
    seed : int
        Of the samples: a cell's number and this name them.
    """

    def __init__(
        self,
        network: nn.Module,
        field: Field,
        optimizer: OptimizerConfig | None = None,
        samples: int = 16,
        views: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network, self.field, self.optimizer_config = network, field, optimizer
        self.samples, self.views, self.seed = samples, views, seed
        self.val_iou = MeanMetric(nan_strategy="ignore")

    def draw(self, condition_BCYX: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One field (B, 1, size, size, size) for each condition."""
        raise NotImplementedError

    @torch.no_grad()
    def shapes(self, image_BCYX: torch.Tensor, mask_BCYX: torch.Tensor, number: int, count: int) -> list[Shapes]:
        """Predict cells.

        Parameters
        ----------
        image_BCYX, mask_BCYX : float tensor, (B, 1, Y, X)
            Image in 0..1 and mask of 0 and 1.
        number : int
            Of the batch: names the samples, together with the seed.
        count : int
            Samples of each cell.
        """
        told, mask_BYX = condition(image_BCYX, mask_BCYX), mask_BCYX[:, 0] > 0.5
        fields, samples = [], []
        for sample in range(count):
            turn = sample if self.views else 0
            generator = torch.Generator().manual_seed(_seed(self.seed, number, sample))
            fields.append(unview(self.draw(view(told, turn), generator), turn))
            samples.append(self.field.decode(fields[-1], mask_BYX))
        mean_BZYX = self.field.decode(torch.stack(fields).mean(0), mask_BYX)
        samples_BNZYX = torch.stack(samples, dim=1)
        return [Shapes(s.cpu(), m.cpu()) for s, m in zip(samples_BNZYX, mean_BZYX, strict=True)]

    def validation_step(self, batch: dict[str, Any], number: int) -> None:
        """IoU of the mean shape, from as many samples as there are views."""
        found = self.shapes(batch["image"], batch["mask"], number, 8 if self.views else 1)
        for shape, truth_ZYX, index in zip(found, batch["obj"][:, 0] > 0.5, batch["index"], strict=True):
            if index >= 0:
                truth = truth_ZYX.cpu()
                union = (shape.mean_ZYX | truth).sum()
                self.val_iou.update(float((shape.mean_ZYX & truth).sum() / union) if union else 1.0)

    def on_validation_epoch_end(self) -> None:
        """The mean over all ranks' cells."""
        mean = self.val_iou.compute()
        self.val_iou.reset()
        self.log(MONITOR, mean, prog_bar=True)
        plateau = self.lr_schedulers() if self.trainer.state.fn == "fit" else None
        if isinstance(plateau, ReduceLROnPlateau) and not self.trainer.sanity_checking:
            plateau.step(float(mean))

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule from the config."""
        assert self.optimizer_config is not None
        steps = float(self.trainer.estimated_stepping_batches)
        return configure(self.optimizer_config, self.network.parameters(), steps, MONITOR)


def _seed(*numbers: int) -> int:
    """One seed of several numbers, whatever their size."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 1) % (1 << 62)
    return mixed
