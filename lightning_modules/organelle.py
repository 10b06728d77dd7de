"""Organelle task: from a tomogram to one probability per organelle and voxel (Choi et al. 2021)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchmetrics import MeanMetric

from cytovox.inference.compiled import Compile
from cytovox.inference.predictor import DenseInferer, probability_predictor
from cytovox.inference.tiling import SlidingWindow
from cytovox.metrics.overlap import dice_per_organelle
from cytovox.models.metadata import OrganelleMetadata
from cytovox.models.organelle import dense_inferer
from cytovox.networks.norms import channels_last_pays
from datamodules.cases import Case, RawCase
from lightning_modules.base import TaskModule
from lightning_modules.optim import OptimizerConfig, require_validation
from lightning_modules.scoring import TestScores

#: Validation metric that selects the best checkpoint; larger is better.
MONITOR = "val/dice_mean"


class OrganelleModule(TaskModule):
    """Training, test and prediction of a dense network.

    Parameters
    ----------
    network : Module
        Network that maps normalised tomograms (B, 1, Z, Y, X) to logits (B, K, Z, Y, X).
    metadata : OrganelleMetadata
        Task, network, organelles, common grid and normalisation; stored in every checkpoint.
    tiling : SlidingWindow
        Sliding window of validation, test and prediction.
    loss : Module, optional
        Per-organelle loss; not needed without training.
    optimizer : OptimizerConfig, optional
        Optimiser; not needed without training.
    threshold : float
        Probability from which a voxel belongs to an organelle.
    ensemble_members : sequence of Module
        Other networks of an ensemble; test and prediction average the probabilities of all networks.
    flips : sequence of str
        Axes out of z, y, x for flip augmentation in test and prediction.
    memory_gb : float
        Working memory for stitching windows, in GB.
    compile : str
        Compilation of the networks in test and prediction: none, default or cuda_graphs
        (`cytovox.inference.compiled`).
    """

    metadata: OrganelleMetadata
    monitor = MONITOR

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
        super().__init__(network, metadata, optimizer, functools.partial(TestScores, tuple(metadata.organelles)))
        self.ensemble_members = nn.ModuleList(ensemble_members)
        self.flips, self.memory_gb, self.compile_mode = tuple(flips), memory_gb, compile
        self.loss, self.tiling, self.threshold = loss, tiling, threshold
        self.organelles = tuple(metadata.organelles)
        self._val_dice = nn.ModuleList(MeanMetric(nan_strategy="ignore") for _ in self.organelles)
        self.write_masks: Callable[[Path, DenseInferer], None] | None = None
        self.notes: list[str] = []
        """Lines to report at the start of training."""
        self.validated = True
        """False for a short training without validation, run only to measure its speed and memory."""
        self.scratch: Path | None = None
        """Folder for temporary arrays of large volumes; None for the system's folder."""

    @property
    def val_dice(self) -> list[MeanMetric]:
        """Mean Dice of each organelle; the metrics are submodules, so that they move to the device."""
        return [metric for metric in self._val_dice if isinstance(metric, MeanMetric)]

    @property
    def channels_last(self) -> bool:
        """Whether the memory format of tensors is channels_last_3d."""
        return channels_last_pays(self._networks, str(self.trainer.precision), self.device.type)

    @property
    def _networks(self) -> list[nn.Module]:
        return [self.network, *self.ensemble_members]

    def on_fit_start(self) -> None:
        """Convert the weights to the memory format of the data."""
        if self.channels_last:
            self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def on_train_start(self) -> None:
        """Check that the validation metric will be computed if the schedule or early stopping needs it.

        Raises
        ------
        InputError
            The schedule or early stopping needs the metric, and there is no validation volume.
        """
        found = self.trainer.val_dataloaders is None or any(self.trainer.num_val_batches)  # None: not loaded yet
        if self.validated and not (self.trainer.enable_validation and found):
            schedule = self.optimizer_config.schedule if self.optimizer_config is not None else None
            require_validation(schedule, bool(self.trainer.early_stopping_callbacks))

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        """Return the sum of the losses of the labelled organelles (Choi et al. 2021)."""
        assert self.loss is not None
        logits_BKZYX = self.network(self._laid_out(batch["image"]))
        loss_K = self.loss(logits_BKZYX, batch["mask"], batch["labelled"])
        for organelle, value in zip(self.organelles, loss_K.detach(), strict=True):
            self.log(f"train/loss_{organelle}", value, batch_size=len(batch["image"]))
        total = loss_K.sum()
        self.log("train/loss", total.detach(), batch_size=len(batch["image"]))
        return total

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """Compute the Dice of each organelle in whole prepared volumes, by sliding window."""
        for values_K in self.volume_dice(batch):
            for metric, value in zip(self.val_dice, values_K, strict=True):
                metric.update(float(value))

    def volume_dice(self, batch: dict[str, Any]) -> list[np.ndarray]:
        """Return the Dice of each organelle in each volume; NaN if unlabelled, or absent from truth and prediction."""
        predict = probability_predictor(lambda windows: self.network(self._laid_out(windows)))
        probabilities_BKZYX = self.tiling(batch["image"], predict)
        return [
            dice_per_organelle((pred >= self.threshold).cpu().numpy(), truth.cpu().numpy(), known.cpu().numpy())
            for pred, truth, known in zip(probabilities_BKZYX, batch["mask"], batch["labelled"], strict=True)
        ]

    def on_validation_epoch_end(self) -> None:
        """Log means over the volumes of all ranks, without organelles that no volume has."""
        means = torch.stack([metric.compute() for metric in self.val_dice])
        for metric in self.val_dice:
            metric.reset()
        known = ~means.isnan()
        for organelle, value, has in zip(self.organelles, means, known, strict=True):
            if has:
                self.log(f"val/dice_{organelle}", value)
        self.log_monitored(means[known].mean() if known.any() else torch.zeros(()))

    def test_step(self, batch: tuple[int, Case, RawCase] | None, batch_idx: int) -> None:
        """Score a raw case on its own grid; the batch is None on a rank without a case."""
        if batch is not None:
            index, case, raw = batch
            self.scores.add(index, case, raw, self.inferer()(raw.ri_ZYX, raw.spacing_um) >= self.threshold)

    def predict_step(self, batch: Path, _: int) -> None:
        """Predict all frames of a file; each is written when it is finished."""
        assert self.write_masks is not None
        self.write_masks(batch, self.inferer())

    def inferer(self) -> DenseInferer:
        """Return the function from a raw frame to probabilities on the frame's own grid."""
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

    def _laid_out(self, image_BCZYX: torch.Tensor) -> torch.Tensor:
        layout = torch.channels_last_3d if self.channels_last else torch.contiguous_format
        return image_BCZYX.contiguous(memory_format=layout)
