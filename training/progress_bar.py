"""Progress bars that seldom read metrics: to show a number, the host waits for the device.

Lightning turns what is logged with ``prog_bar=True`` into Python numbers after every batch, whether or not a bar is
about to show them. So training steps log their loss without it, and the bars here look it up when they are drawn.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar

#: Training batches between two updates of the numbers beside a bar.
REFRESH = 25
#: Seconds between two lines of a log file.
EVERY_S = 60.0
#: What every training step logs, and a bar shows.
LOSS = "train/loss"


class LossBar(ProgressBar):
    """Shows the loss of the last batch beside Lightning's own numbers."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Numbers to show; each is read back from the device."""
        shown: dict[str, Any] = dict(super().get_metrics(trainer, pl_module))
        loss = trainer.callback_metrics.get(LOSS)
        return shown if loss is None else {LOSS: float(loss), **shown}


class RichLossBar(LossBar, RichProgressBar):
    """Lightning's bar on a terminal; the numbers beside it change every `REFRESH` batches and at the end of an epoch.

    Lightning's own reads all of them after every batch, whatever its refresh rate.
    """

    _due = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar; read the numbers if it is their turn."""
        self._due = (batch_idx + 1) % REFRESH == 0
        try:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        finally:
            self._due = True

    def _update_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._due:
            super()._update_metrics(trainer, pl_module)


class LogLines(LossBar):
    """Progress in a log file: a line a minute, with the names of files.

    Parameters
    ----------
    clock : callable
        Seconds; rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._said, self._on = clock, clock(), True

    def disable(self) -> None:
        """Of every rank but the first."""
        self._on = False

    def enable(self) -> None:
        """Of the first rank."""
        self._on = True

    def say(self, text: str | Callable[[], str]) -> None:
        """Print a line if the last one is a minute old; a text that takes a read from the device is asked for then."""
        now = self._clock()
        if self._on and now - self._said >= EVERY_S:
            self._said = now
            print(text if isinstance(text, str) else text(), file=sys.stderr, flush=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A batch of the training."""

        def text() -> str:
            last = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
            loss = trainer.callback_metrics.get(LOSS)
            about = "" if loss is None else f", {LOSS} {float(loss):.4g}"
            batches = f"batch {batch_idx + 1}/{trainer.num_training_batches}"
            return f"training: epoch {trainer.current_epoch + 1}{last}, {batches}, step {trainer.global_step}{about}"

        self.say(text)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *more: Any) -> None:
        """A volume of the validation."""
        self.say(f"validating: {more[2] + 1}/{sum(trainer.num_val_batches):g}{_item(more[1])}")

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *more: Any) -> None:
        """A case of the test."""
        self.say(f"testing: {more[2] + 1}/{sum(trainer.num_test_batches):g}{_item(more[1])}")

    def on_predict_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *more: Any) -> None:
        """A file of the prediction."""
        self.say(f"predicting: {more[1] + 1}/{sum(trainer.num_predict_batches):g}{_item(more[0])}")


def _item(batch: Any) -> str:
    """The name of the file or case that a batch is, if it has one."""
    for value in batch if isinstance(batch, tuple | list) else (batch,):
        if isinstance(name := getattr(value, "name", None), str):
            return f" ({name})"
    return ""


def progress_bar() -> ProgressBar:
    """The bar for standard error: rich's on a terminal, a line a minute elsewhere."""
    return RichLossBar(console_kwargs={"stderr": True}) if sys.stderr.isatty() else LogLines()


def reporter(trainer: pl.Trainer) -> Callable[[str], None]:
    """What a stage tells of its own steps within a batch: printed in a log file, as often as other lines."""
    lines = [callback for callback in trainer.callbacks if isinstance(callback, LogLines)]  # type: ignore[attr-defined]
    return lines[0].say if lines else lambda _: None
