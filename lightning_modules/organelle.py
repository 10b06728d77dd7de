"""The organelle task: a tomogram in, one probability an organelle and voxel out (Choi et al. 2021)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanMetric

from cytovox.inference.compiled import Compile
from cytovox.inference.predictor import DenseInferer, probability_predictor
from cytovox.inference.tiling import SlidingWindow
from cytovox.metrics.overlap import dice_per_organelle
from cytovox.models.metadata import KEY, OrganelleMetadata
from cytovox.models.organelle import dense_inferer
from cytovox.networks.norms import channels_last_pays
from datamodules.cases import Case, RawCase
from lightning_modules.optim import OptimizerConfig, configure, require_validation
from lightning_modules.scoring import TestScores
from lightning_modules.seen import resumed_from

#: Validation metric that picks the best checkpoint; larger is better.
MONITOR = "val/dice_mean"


class OrganelleModule(pl.LightningModule):
    """Trains, tests and applies a dense network.

    Parameters
    ----------
    network : Module
        Logits (B, K, Z, Y, X) of normalised tomograms (B, 1, Z, Y, X).
    metadata : OrganelleMetadata
        Task, network, organelles, common grid and normalisation; stored in every checkpoint.
    tiling : SlidingWindow
        Windows of validation, test and prediction.
    loss : Module, optional
        Per-organelle loss; not needed without training.
    optimizer : OptimizerConfig, optional
        Not needed without training.
    threshold : float
        Probability from which a voxel belongs to an organelle.
    ensemble_members : sequence of Module
        Other networks of an ensemble: test and prediction average the probabilities of all.
    flips : sequence of str
        Axes out of z, y, x whose mirror images test and prediction average.
    memory_gb : float
        Working memory of the stitching.
    compile : str
        How test and prediction run the networks: none, default or cuda_graphs (`cytovox.inference.compiled`).
    """

    def __init__(
        self,
        network: nn.Module,
        metadata: OrganelleMetadata,
        tiling: SlidingWindow,
        loss: nn.Module | None = None,
        optimizer: OptimizerConfig | None = None,
        threshold: float = 0.5,
        ensemble_members: Sequence[nn.Module] = (),
        flips: Sequence[str] = (),
        memory_gb: float = 0.5,
        compile: Compile = "none",
    ) -> None:
        super().__init__()
        self.ensemble_members = nn.ModuleList(ensemble_members)
        self.flips, self.memory_gb, self.compile_mode = tuple(flips), memory_gb, compile
        self.network, self.loss = network, loss
        self.metadata, self.tiling, self.optimizer_config, self.threshold = metadata, tiling, optimizer, threshold
        self.organelles = tuple(metadata.organelles)
        self._val_dice = nn.ModuleList(MeanMetric(nan_strategy="ignore") for _ in self.organelles)
        self.scores = TestScores(self.organelles)
        self.write_masks: Callable[[Path, DenseInferer], None] | None = None
        self.notes: list[str] = []
        """What should be said when its training begins."""
        self.validated = True
        """False where a training is cut short without its validation, to be measured."""
        self.scratch: Path | None = None
        """Folder for what the stitching of a large volume does not keep in memory; the system's if not given."""
        # a rank without a file to predict is idle, not wrong
        self.allow_zero_length_dataloader_with_multiple_devices = True

    @property
    def val_dice(self) -> list[MeanMetric]:
        """One metric an organelle; registered as modules, so that they follow the device."""
        return [metric for metric in self._val_dice if isinstance(metric, MeanMetric)]

    @property
    def channels_last(self) -> bool:
        """Whether data are laid out as channels_last_3d."""
        return channels_last_pays(self._networks, str(self.trainer.precision), self.device.type)

    @property
    def _networks(self) -> list[nn.Module]:
        return [self.network, *self.ensemble_members]

    def on_fit_start(self) -> None:
        """Lay the weights out as the data."""
        if self.channels_last:
            self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def on_train_start(self) -> None:
        """Refuse to wait for a metric that nothing will compute.

        Raises
        ------
        InputError
            The schedule or the early stopping follows the validation, and there is none.
        """
        if not self.validated:
            return
        config = self.optimizer_config
        found = self.trainer.val_dataloaders is None or any(self.trainer.num_val_batches)  # None: not looked for yet
        if not (self.trainer.enable_validation and found):
            schedule = config.schedule if config is not None else None
            require_validation(schedule, bool(self.trainer.early_stopping_callbacks))

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        """Loss of each organelle that was drawn, summed (Choi et al. 2021)."""
        assert self.loss is not None
        logits_BKZYX = self.network(self._laid_out(batch["image"]))
        loss_K = self.loss(logits_BKZYX, batch["mask"], batch["labelled"])
        for organelle, value in zip(self.organelles, loss_K.detach(), strict=True):
            self.log(f"train/loss_{organelle}", value, batch_size=len(batch["image"]))
        total = loss_K.sum()
        self.log("train/loss", total.detach(), batch_size=len(batch["image"]))
        return total

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """Dice of a whole prepared volume, window by window."""
        for values_K in self.volume_dice(batch):
            for metric, value in zip(self.val_dice, values_K, strict=True):
                metric.update(float(value))

    def volume_dice(self, batch: dict[str, Any]) -> list[np.ndarray]:
        """Dice of each organelle in each volume of a batch; NaN where it is not labelled, or neither here nor there."""
        predict = probability_predictor(lambda windows: self.network(self._laid_out(windows)))
        probabilities_BKZYX = self.tiling(batch["image"], predict)
        return [
            dice_per_organelle((pred >= self.threshold).cpu().numpy(), truth.cpu().numpy(), known.cpu().numpy())
            for pred, truth, known in zip(probabilities_BKZYX, batch["mask"], batch["labelled"], strict=True)
        ]

    def on_validation_epoch_end(self) -> None:
        """Means over all ranks' volumes; an organelle that no volume has counts in no mean."""
        means = torch.stack([metric.compute() for metric in self.val_dice])
        for metric in self.val_dice:
            metric.reset()
        known = ~means.isnan()
        for organelle, value, has in zip(self.organelles, means, known, strict=True):
            if has:
                self.log(f"val/dice_{organelle}", value)
        mean = means[known].mean() if known.any() else torch.zeros(())
        self.log(MONITOR, mean, prog_bar=True)
        plateau = self.lr_schedulers() if self.trainer.state.fn == "fit" else None
        if isinstance(plateau, ReduceLROnPlateau) and not self.trainer.sanity_checking:
            plateau.step(float(mean))

    def on_test_epoch_start(self) -> None:
        """Begin with an empty table."""
        self.scores = TestScores(self.organelles)

    def test_step(self, batch: tuple[int, Case, RawCase] | None, batch_idx: int) -> None:
        """Dice of a raw case on its own grid; None comes to a rank that has no case."""
        if batch is None:
            return
        index, case, raw = batch
        self.scores.add(index, case, raw, self.inferer()(raw.ri_ZYX, raw.spacing_um) >= self.threshold)

    def on_test_epoch_end(self) -> None:
        """Bring the ranks' tables together."""
        self.scores.gather()
        for name, value in self.scores.means().items():
            self.log(f"test/{name}", value, rank_zero_only=True)

    def predict_step(self, batch: Path, _: int) -> None:
        """One file, its frames in turn, written as they come."""
        assert self.write_masks is not None
        self.write_masks(batch, self.inferer())

    def inferer(self) -> DenseInferer:
        """The whole way from a raw frame to probabilities on its own grid."""
        return dense_inferer(
            self._networks,
            self.metadata,
            self.tiling,
            device=str(self.device),
            precision=str(self.trainer.precision),
            channels_last=self.channels_last,
            flips=self.flips,
            memory_gb=self.memory_gb,
            scratch=self.scratch,
            compile=self.compile_mode,
        )

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule from the config."""
        assert self.optimizer_config is not None
        steps = float(self.trainer.estimated_stepping_batches)
        return configure(self.optimizer_config, self.network.parameters(), steps, MONITOR)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Raw cases and paths stay where they are: only windows travel to the device."""
        if isinstance(batch, dict):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        return batch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint says what it is."""
        checkpoint[KEY] = dataclasses.asdict(self.metadata)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What the checkpoint has seen was seen."""
        known = checkpoint.get(KEY, {})
        self.metadata = resumed_from(self.metadata, known.get("seen", ()), bool(known.get("seen_all", False)))

    def _laid_out(self, image_BCZYX: torch.Tensor) -> torch.Tensor:
        layout = torch.channels_last_3d if self.channels_last else torch.contiguous_format
        return image_BCZYX.contiguous(memory_format=layout)
