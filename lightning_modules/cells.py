"""The cells task: a field with its nuclei in, one label per cell out (Choi et al. 2021, and centre offsets)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torchmetrics import MeanMetric

from cytovox.inference.device_memory import DeviceLimits
from cytovox.inference.tiling import SlidingWindow
from cytovox.metrics.cells import CellScores, score_cells
from cytovox.models.cells import cell_finder
from cytovox.models.metadata import KEY, CellsMetadata
from cytovox.segmentation.centre_offsets import UNIT_UM
from cytovox.segmentation.field import CellField, CellFinder, SeedRule
from cytovox.segmentation.networks import ConditionedCells
from datamodules.cases import Case, RawCase
from lightning_modules.cell_scoring import CellTestScores
from lightning_modules.optim import OptimizerConfig, configure
from lightning_modules.seen import resumed_from

#: Validation metric that picks the best checkpoint; larger is better.
MONITOR = "val/cells_dice"


class CellsModule(pl.LightningModule):
    """Trains, tests and applies one of the two networks that tell cells from each other.

    Parameters
    ----------
    network : Module
        `method: network`: logits (B, 1, Z, Y, X) of the chosen nucleus' cell from (B, 4, Z, Y, X); `offsets`: offsets
        (B, 3, Z, Y, X) in `UNIT_UM` from (B, 3, Z, Y, X).
    metadata : CellsMetadata
        Method, common grid and normalisation; stored in every checkpoint.
    tiling : SlidingWindow
        Windows of `offsets`.
    rule : SeedRule
        Separates the nuclei of a mask where they are not labelled.
    loss : Module, optional
        Of the method; not needed without training.
    optimizer : OptimizerConfig, optional
        Not needed without training.
    batch_size : int
        Nuclei that `network` sees at once.
    """

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
        super().__init__()
        self.network, self.loss, self.metadata, self.tiling = network, loss, metadata, tiling
        self.rule, self.optimizer_config = rule, optimizer
        # kept for all fields, so that a batch of nuclei that does not fit into memory is tried once
        self.limits = DeviceLimits(batch_size)
        self.val_dice = MeanMetric(nan_strategy="ignore")
        self.scores = CellTestScores()
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        """Loss of one nucleus' cell, or of the centre offsets."""
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
            # nan where no patch of the batch has a nucleus: to find out would make the host wait for the device
            self.log("train/right", torch.stack([right for _, right in results]).nanmean(), batch_size=size)
        self.log("train/loss", loss.detach(), batch_size=size)
        return loss

    def validation_step(self, batch: tuple[int, Case, RawCase] | None, _: int) -> None:
        """Dice of the cells of a whole field, from its true nuclei."""
        if batch is not None:
            field, truth, unassigned = field_of(batch[2])
            found = self.finder()(dataclasses.replace(field, seeds_ZYX=true_seeds(batch[2])))
            self.val_dice.update(score_cells(truth, found.cells_ZYX, unassigned).dice)

    def on_validation_epoch_end(self) -> None:
        """Mean over all ranks' fields."""
        mean = self.val_dice.compute()
        self.val_dice.reset()
        self.log(MONITOR, torch.nan_to_num(mean), prog_bar=True)

    def on_test_epoch_start(self) -> None:
        """Begin with an empty table."""
        self.scores = CellTestScores()

    def test_step(self, batch: tuple[int, Case, RawCase] | None, batch_idx: int) -> None:
        """Scores of a case, from its true nuclei and from those that the rule finds in its nucleus mask."""
        if batch is None:
            return
        index, case, raw = batch
        field, truth, unassigned = field_of(raw)
        finder = self.finder()
        for seeds in ("true", "rule"):
            seeded = dataclasses.replace(field, seeds_ZYX=true_seeds(raw)) if seeds == "true" else field
            found = finder(seeded)
            self.scores.add(index, case, seeds, score_cells(truth, found.cells_ZYX, unassigned))
        baseline = baseline_scores(self.rule, field, truth, unassigned)
        self.scores.add(index, case, "watershed", baseline)

    def on_test_epoch_end(self) -> None:
        """Bring the ranks' tables together."""
        self.scores.gather()
        for name, value in self.scores.metrics().items():
            self.log(f"test/{name}", value, rank_zero_only=True)

    def finder(self) -> CellFinder:
        """The way from a field to its cells."""
        metadata, precision = self.metadata, str(self.trainer.precision) if self._trainer is not None else "32-true"
        finder = cell_finder(
            self.network, metadata, self.tiling, self.rule, self.limits.batch, str(self.device),
            precision if "mixed" in precision else "32-true",
        )  # fmt: skip
        if isinstance(finder, ConditionedCells):
            finder.limits = self.limits
        return finder

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule from the config."""
        assert self.optimizer_config is not None
        steps = float(self.trainer.estimated_stepping_batches)
        return configure(self.optimizer_config, self.network.parameters(), steps, MONITOR)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Raw cases stay where they are."""
        return super().transfer_batch_to_device(batch, device, dataloader_idx) if isinstance(batch, dict) else batch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint says what it is."""
        checkpoint[KEY] = dataclasses.asdict(self.metadata)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What the checkpoint has seen was seen."""
        known = checkpoint.get(KEY, {})
        self.metadata = resumed_from(self.metadata, known.get("seen", ()), bool(known.get("seen_all", False)))


def field_of(raw: RawCase) -> tuple[CellField, np.ndarray, list[int]]:
    """A case as a field without seeds, its true cells, and those of them that have no nucleus to start from."""
    membrane, nucleus, cells = raw.masks_KZYX
    field = CellField(
        membrane != 0 if raw.labelled_K[0] else cells != 0, nucleus != 0, raw.spacing_um, raw.ri_ZYX.astype(np.float32)
    )
    seeded = np.unique(true_seeds(raw))
    return field, cells, sorted(set(np.unique(cells).tolist()) - {0} - set(seeded.tolist()))


def true_seeds(raw: RawCase) -> np.ndarray:
    """Nuclei by the cells they lie in, those below the volume that counts as a nucleus left out: int32 (Z, Y, X)."""
    nuclei = np.where(raw.masks_KZYX[1] != 0, raw.masks_KZYX[2], 0).astype(np.int32)
    sizes = np.bincount(nuclei.ravel()) * float(np.prod(raw.spacing_um))
    return np.where((sizes >= SeedRule().min_volume_um3)[nuclei], nuclei, 0)


def baseline_scores(rule: SeedRule, field: CellField, truth_ZYX: np.ndarray, unassigned: list[int]) -> CellScores:
    """What a plain seeded watershed from the rule's nuclei reaches."""
    from cytovox.segmentation.field import WatershedCells

    return score_cells(truth_ZYX, WatershedCells(rule)(field).cells_ZYX, unassigned)
