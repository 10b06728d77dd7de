"""Progress bars that read metrics rarely, since the host waits for the device to read one.

Lightning converts metrics logged with ``prog_bar=True`` to Python numbers after every batch. Therefore training steps
log their loss without it, and the bars of this module read it when they are drawn.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar

#: Training batches between two updates of the numbers next to a bar.
REFRESH = 25
#: Seconds between two lines in a log file.
EVERY_S = 60.0
#: Metric that every training step logs and a bar shows.
LOSS = "train/loss"


class LossBar(ProgressBar):
    """Progress bar with the loss of the last batch."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return the numbers to show; each is read from the device."""
        loss = trainer.callback_metrics.get(LOSS)
        return {**({} if loss is None else {LOSS: float(loss)}), **super().get_metrics(trainer, pl_module)}


class RichLossBar(LossBar, RichProgressBar):
    """Progress bar of a terminal, whose numbers are read every `REFRESH` batches and at the end of an epoch.

    Lightning's own reads all of them after every batch, whatever its refresh rate.
    """

    _due = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the bar, and every `REFRESH` batches its numbers."""
        self._due = (batch_idx + 1) % REFRESH == 0
        try:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        finally:
            self._due = True

    def _update_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._due:
            super()._update_metrics(trainer, pl_module)


class LogLines(LossBar):
    """Progress in a log file: one line a minute, with file names.

    Parameters
    ----------
    clock : callable
        Returns a monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._printed, self._on = clock, clock(), True

    def disable(self) -> None:
        """Print nothing, as on ranks other than the first."""
        self._on = False

    def enable(self) -> None:
        """Print lines, as on the first rank."""
        self._on = True

    def print_line(self, text: str | Callable[[], str]) -> None:
        """Print a line if the last one is a minute old; a function is called for its text only then."""
        now = self._clock()
        if self._on and now - self._printed >= EVERY_S:
            self._printed = now
            print(text if isinstance(text, str) else text(), file=sys.stderr, flush=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report a training batch."""

        def text() -> str:
            last = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
            loss = trainer.callback_metrics.get(LOSS)
            about = "" if loss is None else f", {LOSS} {float(loss):.4g}"
            batches = f"batch {batch_idx + 1}/{trainer.num_training_batches}"
            return f"training: epoch {trainer.current_epoch + 1}{last}, {batches}, step {trainer.global_step}{about}"

        self.print_line(text)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *more: Any) -> None:
        """Report a validation case."""
        self.print_line(f"validating: {more[2] + 1}/{sum(trainer.num_val_batches):g}{_item(more[1])}")

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *more: Any) -> None:
        """Report a test case."""
        self.print_line(f"testing: {more[2] + 1}/{sum(trainer.num_test_batches):g}{_item(more[1])}")

    def on_predict_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *more: Any) -> None:
        """Report an input of a prediction."""
        self.print_line(f"predicting: {more[1] + 1}/{sum(trainer.num_predict_batches):g}{_item(more[0])}")


def _item(batch: Any) -> str:
    """Return the name of the file or case in a batch, in parentheses; empty if it has none."""
    names = (getattr(value, "name", None) for value in (batch if isinstance(batch, tuple | list) else (batch,)))
    return next((f" ({name})" for name in names if isinstance(name, str)), "")


def progress_bar() -> ProgressBar:
    """Return the progress bar for stderr: rich's on a terminal, else one line a minute."""
    return RichLossBar(console_kwargs={"stderr": True}) if sys.stderr.isatty() else LogLines()


def reporter(trainer: pl.Trainer) -> Callable[[str], None]:
    """Return the function that prints the progress within a batch to a log file; it does nothing on a terminal."""
    lines = (callback for callback in trainer.callbacks if isinstance(callback, LogLines))  # type: ignore[attr-defined]
    return next((line.print_line for line in lines), lambda _: None)
