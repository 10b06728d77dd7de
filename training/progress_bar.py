"""Progress bars that seldom read metrics: to show a number, the host waits for the device."""

from __future__ import annotations

import sys
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar

#: Training batches between two updates of the numbers beside a bar.
REFRESH = 25


class SparseRichProgressBar(RichProgressBar):
    """Lightning's bar on a terminal; the numbers beside it change every `REFRESH` batches and at the end of an epoch.

    Lightning's own reads all of them after every batch, whatever its refresh rate.
    """

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
        if getattr(self, "_due", True):
            super()._update_metrics(trainer, pl_module)


def progress_bar() -> ProgressBar:
    """The bar for standard error: rich on a terminal, plain lines in a file."""
    if sys.stderr.isatty():
        return SparseRichProgressBar(console_kwargs={"stderr": True})
    return TQDMProgressBar(refresh_rate=REFRESH)
