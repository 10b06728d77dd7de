"""Fits on the fake device by Lightning's own loop, with the callbacks and loggers of a run, counted batch by batch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import Accelerator
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.strategies import SingleDeviceStrategy

from tests.device.fake_device import NAME, Sync, Watch, device
from training.exact import ExactResume
from training.metrics_log import MetricsCSV
from training.rundir import RunFolder
from training.trainer import TrainerConfig, build_trainer


class FakeAccelerator(Accelerator):
    """Lightning's view of the device."""

    def setup_device(self, device: torch.device) -> None:
        """Nothing to prepare."""

    def teardown(self) -> None:
        """Nothing to give back."""

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [device()]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return NAME

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}


class PerBatch(pl.Callback):
    """What was recorded from the end of each batch to the end of the next; the last callback of all."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.batches: list[list[Sync]] = []
        self._from = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._from = len(self.watch.syncs)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.batches.append(self.watch.syncs[self._from :])
        self._from = len(self.watch.syncs)

    def steady(self) -> dict[str, int]:
        """Of all batches but the first, which makes the optimiser's tensors and those of the logs."""
        return dict(Counter(str(sync) for batch in self.batches[1:] for sync in batch))


def trainer_on_device(
    folder: Path, watch: Watch, monitor: str, precision: str = "32-true", **options: Any
) -> tuple[pl.Trainer, PerBatch]:
    """The trainer of a run, on the device: with progress bar, CSV, checkpoints and seeds; and what counts its batches.

    Parameters
    ----------
    folder : Path
        The run folder.
    watch : Watch
        Of the device that is open.
    monitor : str
        Validation metric of the best checkpoint.
    precision : str
        32-true, 16-mixed or bf16-mixed.
    **options
        Of `TrainerConfig`.
    """
    counting = PerBatch(watch)
    strategy: Any = SingleDeviceStrategy(device())
    chosen = {"max_epochs": 1, "log_every_n_steps": 1000, **options}
    config = TrainerConfig(
        accelerator=FakeAccelerator(), devices=1, strategy=strategy, precision="32-true", **chosen  # type: ignore[arg-type]
    )  # fmt: skip
    loggers = [MetricsCSV(folder / "metrics.csv")]
    trainer = build_trainer(config, RunFolder(folder), loggers, monitor, False, [ExactResume(0), counting])
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.append(callbacks.pop(callbacks.index(counting)))
    if precision != "32-true":
        # Lightning would ask for CUDA's
        scaler = torch.amp.GradScaler(NAME) if precision == "16-mixed" else None  # type: ignore[attr-defined]
        trainer.strategy._precision_plugin = MixedPrecision(precision, NAME, scaler)  # type: ignore[arg-type]
    return trainer, counting
