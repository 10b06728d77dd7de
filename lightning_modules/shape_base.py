"""What every model of the shape task shares: from an image and its mask to shapes, and how they are scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanMetric

from cytovox.models.metadata import KEY, CheckpointMetadata
from cytovox.models.shape import Samples, Shapes, ShapeSampler
from cytovox.preprocess.shape_fields import ShapeField
from cytovox.preprocess.square_symmetries import VIEWS
from lightning_modules.optim import OptimizerConfig, configure
from lightning_modules.seen import resumed_from
from lightning_modules.shape_scoring import ShapeScores

#: Validation metric that picks the best checkpoint; larger is better.
MONITOR = "val/iou"


class ShapeBase(pl.LightningModule):
    """Validates, tests and predicts; how it trains and samples is its subclasses' matter.

    Parameters
    ----------
    network : Module
        Saved in checkpoints under this name.
    metadata : CheckpointMetadata
        What a checkpoint says of itself.
    field : ShapeField
        How shapes are represented.
    optimizer : OptimizerConfig, optional
        Not needed without training.
    samples : int
        Shapes predicted of each cell.
    views : bool
        Predict them from the turns and mirror images of the image in turn, and turn them back.
    seed : int
        Of the samples: this, a cell's number and their own name them.
    """

    def __init__(
        self,
        network: nn.Module,
        metadata: CheckpointMetadata,
        field: ShapeField,
        optimizer: OptimizerConfig | None = None,
        samples: int = 16,
        views: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network, self.metadata, self.field, self.optimizer_config = network, metadata, field, optimizer
        self.samples, self.views, self.seed = samples, views, seed
        self.val_iou = MeanMetric(nan_strategy="ignore")
        self.scores = ShapeScores()
        self.predict_cell: Callable[[Any], None] | None = None
        self.sampler = ShapeSampler(self.draw, field, views, seed)
        # a rank without a cell to predict is idle, not wrong
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def draw(self, condition_BCYX: torch.Tensor, generator: torch.Generator) -> Samples:
        """One field for each condition; the next batch goes on with the generator."""
        raise NotImplementedError

    def shapes(self, image_CYX: torch.Tensor, mask_CYX: torch.Tensor, number: int, count: int) -> Shapes:
        """Return the shapes of a cell; see `ShapeSampler`."""
        self.sampler.views, self.sampler.seed = self.views, self.seed
        return self.sampler(image_CYX, mask_CYX, number, count)

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """IoU of the mean shape, from as many samples as there are views."""
        for image, mask, truth, index in _cells(batch):
            pred = self.shapes(image, mask, index, VIEWS if self.views else 1).mean_ZYX
            self.val_iou.update(float((pred & truth).sum() / (pred | truth).sum()))

    def on_validation_epoch_end(self) -> None:
        """The mean over all ranks' cells."""
        mean = self.val_iou.compute()
        self.val_iou.reset()
        self.log(MONITOR, mean, prog_bar=True)
        plateau = self.lr_schedulers() if self.trainer.state.fn == "fit" else None
        if isinstance(plateau, ReduceLROnPlateau) and not self.trainer.sanity_checking:
            plateau.step(float(mean))

    def on_test_epoch_start(self) -> None:
        """Begin with an empty table."""
        self.scores = ShapeScores()

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The errors of every cell's shapes."""
        for image, mask, truth, index in _cells(batch):
            self.scores.add(index, self.shapes(image, mask, index, self.samples), truth)

    def on_test_epoch_end(self) -> None:
        """Bring the ranks' tables together."""
        self.scores.gather()
        for name, value in self.scores.means().items():
            self.log(f"test/{name}", value, rank_zero_only=True)

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        """One cell, written as it comes."""
        assert self.predict_cell is not None
        self.predict_cell(batch)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Cells to predict stay where they are."""
        return super().transfer_batch_to_device(batch, device, dataloader_idx) if isinstance(batch, dict) else batch

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule from the config."""
        assert self.optimizer_config is not None
        steps = float(self.trainer.estimated_stepping_batches)
        return configure(self.optimizer_config, self.network.parameters(), steps, MONITOR)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint says what it is."""
        checkpoint[KEY] = dataclasses.asdict(self.metadata)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What the checkpoint has seen was seen."""
        known = checkpoint.get(KEY, {})
        self.metadata = resumed_from(self.metadata, known.get("seen", ()), bool(known.get("seen_all", False)))


def _cells(batch: dict[str, Any]) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]]:
    """Image, mask, true object (bool, on the CPU) and number of each cell; without those that only fill the batch."""
    numbers, objects = torch.as_tensor(batch["index"]).tolist(), batch["obj"].cpu() > 0.5  # read back once a batch
    for image, mask, obj, index in zip(batch["image"], batch["mask"], objects, numbers, strict=True):
        if index >= 0:
            yield image, mask, obj[0], index
