"""Fits on the fake device by Lightning's own loop, with the callbacks and loggers of a run, and what each batch cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from fake_device import NAME, Sync, Watch, device, fake_device
from pytorch_lightning.accelerators import Accelerator
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.strategies import SingleDeviceStrategy

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
    """What was recorded from the end of each batch to the end of the next; it must be the last callback."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self.batches = watch, list[list[Sync]]()
        self._from = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._from = len(self.watch.syncs)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.batches.append(self.watch.syncs[self._from :])
        self._from = len(self.watch.syncs)

    def steady(self) -> list[Sync]:
        """Of all batches but the first, which makes the optimiser's and the logs' tensors."""
        return [sync for batch in self.batches[1:] for sync in batch]


def trainer_on_device(
    folder: Path, watch: Watch, monitor: str, precision: str = "32-true", **options: Any
) -> tuple[pl.Trainer, PerBatch]:
    """The trainer of a run, on the device, with progress bar, CSV, checkpoints and seeds."""
    counting = PerBatch(watch)
    chosen = {"max_epochs": 1, "log_every_n_steps": 1000, **options}
    config = TrainerConfig(
        accelerator=FakeAccelerator(), devices=1, strategy=SingleDeviceStrategy(device()), precision="32-true", **chosen
    )  # type: ignore[arg-type]
    run = RunFolder(folder)
    loggers = [MetricsCSV(folder / "metrics.csv")]
    trainer = build_trainer(config, run, loggers, monitor, False, [ExactResume(0), counting])
    trainer.callbacks.append(trainer.callbacks.pop(trainer.callbacks.index(counting)))
    if precision != "32-true":
        scaler = torch.amp.GradScaler(NAME) if precision == "16-mixed" else None
        trainer.strategy._precision_plugin = MixedPrecision(precision, NAME, scaler)  # type: ignore[arg-type]
    return trainer, counting


@contextmanager
def fake_fit() -> Iterator[Watch]:
    """The device, with the seeds that every fit begins with."""
    torch.manual_seed(0)
    with fake_device() as watch:
        yield watch
