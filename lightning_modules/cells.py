"""Cells task: from a field and its nuclei to one label per cell (Choi et al. 2021, and centre offsets)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import nn
from torchmetrics import MeanMetric

from cytovox.inference.device_memory import DeviceLimits
from cytovox.inference.tiling import SlidingWindow
from cytovox.metrics.cells import score_cells
from cytovox.models.cells import cell_finder
from cytovox.models.metadata import CellsMetadata
from cytovox.segmentation.centre_offsets import UNIT_UM
from cytovox.segmentation.field import CellField, CellFinder, SeedRule, WatershedCells
from cytovox.segmentation.networks import ConditionedCells
from datamodules.cases import Case, RawCase
from lightning_modules.base import TaskModule
from lightning_modules.cell_scoring import CellTestScores
from lightning_modules.optim import OptimizerConfig

#: Validation metric that selects the best checkpoint; larger is better.
MONITOR = "val/cells_dice"


class CellsModule(TaskModule):
    """Training, test and prediction of one of the two networks that separate cells.

    Parameters
    ----------
    network : Module
        With `method: network`, it maps (B, 4, Z, Y, X) to logits (B, 1, Z, Y, X) of the chosen nucleus' cell; with
        `offsets`, (B, 3, Z, Y, X) to offsets (B, 3, Z, Y, X) in `UNIT_UM`.
    metadata : CellsMetadata
        Method, common grid and normalisation; stored in every checkpoint.
    tiling : SlidingWindow
        Sliding window of `offsets`.
    rule : SeedRule
        Rule that separates the nuclei of a mask where they are not labelled.
    loss : Module, optional
        Loss of the method; not needed without training.
    optimizer : OptimizerConfig, optional
        Optimiser; not needed without training.
    batch_size : int
        Nuclei per forward pass of `network`.
    """

    metadata: CellsMetadata
    monitor = MONITOR

    def __init__(
        self,
        network: nn.Module,
        metadata: CellsMetadata,
        tiling: SlidingWindow,
        rule: SeedRule,
        loss: nn.Module | None = None,
        optimizer: OptimizerConfig | None = None,
        batch_size: int = 4,
    ) -> None:
        super().__init__(network, metadata, optimizer, CellTestScores)
        self.loss, self.tiling, self.rule = loss, tiling, rule
        # shared by all fields, so that a batch of nuclei that exceeds the memory is tried only once
        self.limits = DeviceLimits(batch_size)
        self.val_dice = MeanMetric(nan_strategy="ignore")

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        """Return the loss of the cell of one nucleus, or of the centre offsets."""
        assert self.loss is not None
        size = len(batch["image"])
        if self.metadata.method == "network":
            maps = [batch["image"], *(batch[key][:, None].float() for key in ("membrane", "positive", "negative"))]
            logits = self.network(torch.cat(maps, dim=1))
            known = torch.ones((size, 1), dtype=torch.bool, device=logits.device)
            loss = self.loss(logits, batch["target"][:, None], known).sum()
        else:
            maps = [batch["image"], *(batch[key][:, None].float() for key in ("membrane", "nucleus"))]
            offsets = UNIT_UM * self.network(torch.cat(maps, dim=1))
            results = [
                self.loss(offset, cells, nuclei, spacing)
                for offset, cells, nuclei, spacing in zip(
                    offsets, batch["cells"], batch["nuclei"], batch["spacing_um"], strict=True
                )
            ]
            loss = torch.stack([one for one, _ in results]).mean()
            # nan if no patch of the batch has a nucleus: checking for it would make the host wait for the device
            self.log("train/right", torch.stack([right for _, right in results]).nanmean(), batch_size=size)
        self.log("train/loss", loss.detach(), batch_size=size)
        return loss

    def validation_step(self, batch: tuple[int, Case, RawCase] | None, _: int) -> None:
        """Compute the Dice of the cells of a whole field, seeded by its true nuclei."""
        if batch is not None:
            field, truth, unassigned = field_of(batch[2])
            found = self.finder()(dataclasses.replace(field, seeds_ZYX=true_seeds(batch[2])))
            self.val_dice.update(score_cells(truth, found.cells_ZYX, unassigned).dice)

    def on_validation_epoch_end(self) -> None:
        """Log the mean over the fields of all ranks."""
        self.log(MONITOR, torch.nan_to_num(self.val_dice.compute()), prog_bar=True)
        self.val_dice.reset()

    def test_step(self, batch: tuple[int, Case, RawCase] | None, batch_idx: int) -> None:
        """Score the cells of a case for each seed source, and the watershed baseline."""
        if batch is None:
            return
        index, case, raw = batch
        field, truth, unassigned = field_of(raw)
        finder = self.finder()
        for source, found in (
            ("true", finder(dataclasses.replace(field, seeds_ZYX=true_seeds(raw)))),
            ("rule", finder(field)),
            ("watershed", WatershedCells(self.rule)(field)),
        ):
            self.scores.add(index, case, source, score_cells(truth, found.cells_ZYX, unassigned))

    def finder(self) -> CellFinder:
        """Return the function that finds the cells of a field."""
        precision = str(self.trainer.precision) if self._trainer is not None else "32-true"
        finder = cell_finder(
            self.network, self.metadata, self.tiling, self.rule, self.limits.batch, str(self.device),
            precision if "mixed" in precision else "32-true",
        )  # fmt: skip
        if isinstance(finder, ConditionedCells):
            finder.limits = self.limits
        return finder


def field_of(raw: RawCase) -> tuple[CellField, np.ndarray, list[int]]:
    """Return a case as a field without seeds, its true cells, and the labels of the cells without a nucleus."""
    membrane, nucleus, cells = raw.masks_KZYX
    field = CellField(
        membrane != 0 if raw.labelled_K[0] else cells != 0, nucleus != 0, raw.spacing_um, raw.ri_ZYX.astype(np.float32)
    )
    return field, cells, sorted(set(np.unique(cells).tolist()) - {0, *np.unique(true_seeds(raw)).tolist()})


def true_seeds(raw: RawCase) -> np.ndarray:
    """Return the nuclei with the labels of their cells, int32 (Z, Y, X), without those below the smallest volume."""
    nuclei = np.where(raw.masks_KZYX[1] != 0, raw.masks_KZYX[2], 0).astype(np.int32)
    sizes = np.bincount(nuclei.ravel()) * float(np.prod(raw.spacing_um))
    return np.where((sizes >= SeedRule().min_volume_um3)[nuclei], nuclei, 0)
