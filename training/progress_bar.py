"""Progress bars that seldom read metrics: to show a number, the host waits for the device.

Lightning turns what is logged with ``prog_bar=True`` into Python numbers after every batch, whether or not a bar is
about to show them. So training steps log their loss without it, and the bars here look it up when they are drawn.
"""

from __future__ import annotations

import sys
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar

#: Training batches between two updates of the numbers beside a bar.
REFRESH = 25
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


class TQDMLossBar(LossBar, TQDMProgressBar):
    """Lightning's bar in a file; it is drawn, and its numbers read, every `REFRESH` batches."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=REFRESH)


def progress_bar() -> ProgressBar:
    """The bar for standard error: rich on a terminal, tqdm elsewhere."""
    return RichLossBar(console_kwargs={"stderr": True}) if sys.stderr.isatty() else TQDMLossBar()
