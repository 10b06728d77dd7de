"""Base class of the modules of all tasks: optimiser, validation metric, test scores and checkpoint metadata."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cytovox.models.metadata import KEY, CheckpointMetadata
from lightning_modules.optim import OptimizerConfig, configure
from lightning_modules.seen import resumed_from


class TaskModule(pl.LightningModule):
    """Module with a network, its checkpoint metadata, an optimiser and test scores.

    Parameters
    ----------
    network : Module
        Network; stored in checkpoints under this name.
    metadata : CheckpointMetadata
        Description of the model, stored in every checkpoint.
    optimizer : OptimizerConfig or None
        Optimiser; None without training.
    new_scores : callable
        Returns empty test scores.
    """

    monitor: str
    """Validation metric that selects the best checkpoint; larger is better."""
    scores: Any
    """Scores of the test cases, collected over cases, then over ranks."""

    def __init__(
        self,
        network: nn.Module,
        metadata: CheckpointMetadata,
        optimizer: OptimizerConfig | None,
        new_scores: Callable[[], Any],
    ) -> None:
        super().__init__()
        self.network, self.metadata, self.optimizer_config = network, metadata, optimizer
        self.new_scores, self.scores = new_scores, new_scores()
        # a rank without a case to test or a file to predict is no error
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def log_monitored(self, mean: torch.Tensor) -> None:
        """Log the validation metric, and step a plateau schedule with it."""
        self.log(self.monitor, mean, prog_bar=True)
        plateau = self.lr_schedulers() if self.trainer.state.fn == "fit" else None
        if isinstance(plateau, ReduceLROnPlateau) and not self.trainer.sanity_checking:
            plateau.step(float(mean))

    def on_test_epoch_start(self) -> None:
        """Reset the test scores."""
        self.scores = self.new_scores()

    def on_test_epoch_end(self) -> None:
        """Gather the scores of all ranks, and log their means."""
        self.scores.gather()
        for name, value in self.scores.means().items():
            self.log(f"test/{name}", value, rank_zero_only=True)

    def configure_optimizers(self) -> Any:
        """Return optimiser and schedule of the config."""
        return self.configured(self.network.parameters())

    def configured(self, parameters: Any) -> dict[str, Any]:
        """Return optimiser and schedule of the config for some parameters, or groups of them."""
        assert self.optimizer_config is not None
        return configure(
            self.optimizer_config, parameters, float(self.trainer.estimated_stepping_batches), self.monitor
        )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move batches of tensors to the device; leave raw cases, cells and paths on the host."""
        return super().transfer_batch_to_device(batch, device, dataloader_idx) if isinstance(batch, dict) else batch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the metadata in the checkpoint."""
        checkpoint[KEY] = dataclasses.asdict(self.metadata)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the training data recorded in the checkpoint to those of the metadata."""
        known = checkpoint.get(KEY, {})
        self.metadata = resumed_from(self.metadata, known.get("seen", ()), bool(known.get("seen_all", False)))


@contextlib.contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Disable the gradients of parameters; gradients still pass through the operations that use them."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
