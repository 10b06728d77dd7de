"""How long batches and epochs of a training took."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl

from training.rundir import RunFolder


class Pace(pl.Callback):
    """Notes in `metrics.json`, when the fit has ended, what can be held against a plan.

    `fit/batch_seconds` is the mean from the end of a batch to the end of the next one of its epoch, everything between
    included; `fit/epoch_seconds` the mean over the epochs, with validation and checkpoints. Of this start of a run
    that was resumed.

    Parameters
    ----------
    folder : RunFolder
        Where the numbers go.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._begun: float | None = None
        self._last: float | None = None
        self._epochs = self._batches = 0
        self._between = 0.0

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
        """Note the means."""
        found = {}
        if self._batches:
            found["fit/batch_seconds"] = self._between / self._batches
        if self._begun is not None:
            found["fit/epoch_seconds"] = (time.perf_counter() - self._begun) / self._epochs
        if found and trainer.is_global_zero:
            self.folder.update_metrics(found)
