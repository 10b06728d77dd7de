"""Base class of the shape task: prediction of shapes from an image and its mask, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torchmetrics import MeanMetric

from cytovox.models.metadata import CheckpointMetadata
from cytovox.models.shape import Samples, Shapes, ShapeSampler
from cytovox.preprocess.shape_fields import ShapeField
from cytovox.preprocess.square_symmetries import VIEWS
from lightning_modules.base import TaskModule
from lightning_modules.optim import OptimizerConfig
from lightning_modules.shape_scoring import ShapeScores

#: Validation metric that selects the best checkpoint; larger is better.
MONITOR = "val/iou"


class ShapeBase(TaskModule):
    """Validation, test and prediction of shapes; subclasses define training and sampling.

    Parameters
    ----------
    network : Module
        Network; stored in checkpoints under this name.
    metadata : CheckpointMetadata
        Description of the model, stored in every checkpoint.
    field : ShapeField
        Representation of shapes.
    optimizer : OptimizerConfig, optional
        Optimiser; not needed without training.
    samples : int
        Shapes predicted per cell.
    views : bool
        Predict them from the rotations and mirror images of the image in turn, and transform the shapes back.
    seed : int
        Seed of the samples, combined with the number of the cell and that of the sample.
    """

    monitor = MONITOR

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
        super().__init__(network, metadata, optimizer, ShapeScores)
        self.field, self.samples, self.views, self.seed = field, samples, views, seed
        self.val_iou = MeanMetric(nan_strategy="ignore")
        self.predict_cell: Callable[[Any], None] | None = None
        self.sampler = ShapeSampler(self.draw, field, views, seed)

    def draw(self, condition_BCYX: torch.Tensor, generator: torch.Generator) -> Samples:
        """Return one field for each condition; the generator keeps its state for the next batch."""
        raise NotImplementedError

    def shapes(self, image_CYX: torch.Tensor, mask_CYX: torch.Tensor, number: int, count: int) -> Shapes:
        """Return the shapes of a cell; see `ShapeSampler`."""
        self.sampler.views, self.sampler.seed = self.views, self.seed
        return self.sampler(image_CYX, mask_CYX, number, count)

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """Compute the IoU of the mean shape, with as many samples as there are views."""
        for image, mask, truth, index in _cells(batch):
            pred = self.shapes(image, mask, index, VIEWS if self.views else 1).mean_ZYX
            self.val_iou.update(float((pred & truth).sum() / (pred | truth).sum()))

    def on_validation_epoch_end(self) -> None:
        """Log the mean over the cells of all ranks."""
        self.log_monitored(self.val_iou.compute())
        self.val_iou.reset()

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Score the shapes of each cell."""
        for image, mask, truth, index in _cells(batch):
            self.scores.add(index, self.shapes(image, mask, index, self.samples), truth)

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        """Predict one cell; its files are written when it is finished."""
        assert self.predict_cell is not None
        self.predict_cell(batch)


def _cells(batch: dict[str, Any]) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]]:
    """Yield image, mask, true object (bool, on the CPU) and number of each cell, without those that pad the batch."""
    # one copy to the host per batch
    numbers, objects = torch.as_tensor(batch["index"]).tolist(), batch["obj"].cpu() > 0.5
    for image, mask, obj, index in zip(batch["image"], batch["mask"], objects, numbers, strict=True):
        if index >= 0:
            yield image, mask, obj[0], index
