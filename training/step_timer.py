"""How long batches and epochs of a training took."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl

from training.memory import PeakMemory


class StepTimer(pl.Callback):
    """What can be held against a plan, in `metrics` when the fit has ended.

    `fit/batch_seconds` is the mean from the end of a batch to the end of the next one of its epoch, everything between
    included; `fit/epoch_seconds` the mean over the epochs, with validation and checkpoints. Of this start of a run
    that was resumed.
    """

    def __init__(self) -> None:
        self._begun: float | None = None
        self._last: float | None = None
        self._epochs = self._batches = 0
        self._between = self._seconds = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The time from the batch before is not that of a batch."""
        self._begun = self._begun or time.perf_counter()
        self._last = None
        self._epochs += 1

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any) -> None:
        """A batch."""
        now = time.perf_counter()
        if self._last is not None:
            self._between += now - self._last
            self._batches += 1
        self._last = now

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After the last checkpoint."""
        if self._begun is not None:
            self._seconds = time.perf_counter() - self._begun

    def metrics(self) -> dict[str, float]:
        """Flat numbers for the run folder; of a fit without a second batch, fewer."""
        found = {}
        if self._batches:
            found["fit/batch_seconds"] = self._between / self._batches
        if self._seconds:
            found["fit/epoch_seconds"] = self._seconds / self._epochs
        return found


def fit_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """What the callbacks of the run's trainer noted of the fit: memory and pace."""
    watching = [c for c in trainer.callbacks if isinstance(c, StepTimer | PeakMemory)]  # type: ignore[attr-defined]
    return {key: value for callback in watching for key, value in callback.metrics().items()}
