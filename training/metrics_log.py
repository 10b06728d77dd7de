"""`metrics.csv`: one row a step or epoch, whole at any moment, continued by a resumed run."""

from __future__ import annotations

import csv
import io
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from training.rundir import write_text


class MetricsCSV(Logger):
    """Lightning logger for the run folder.

    Lightning's own `CSVLogger` deletes the file when it meets an existing folder, which is what a resumed run does.

    Parameters
    ----------
    path : Path
        The CSV file; rows already there are kept.
    resume_step : int, optional
        Rows past this step are dropped: the resumed run makes them again.
    """

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        super().__init__()
        self.path = path
        self._rows: dict[int, dict[str, Any]] = {}
        self._dirty = False
        self._not_before = 0.0
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [{k: v for k, v in row.items() if v not in ("", None)} for row in csv.DictReader(file)]
            self._rows = {int(r["step"]): r for r in rows if resume_step is None or int(r["step"]) < resume_step}

    @property
    def name(self) -> str:
        """Of no use here: the run folder names the run."""
        return ""

    @property
    def version(self) -> str:
        """Of no use here: the run folder names the run."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The config is in `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add numbers to the row of this step, or begin one."""
        at = int(step) if step is not None else max(self._rows, default=-1) + 1
        self._rows.setdefault(at, {"step": at}).update(metrics)
        self._dirty = True

    @rank_zero_only
    def save(self) -> None:
        """Write all rows; Lightning asks for it at every new row, so it waits until that costs at most a twentieth."""
        if self._dirty and time.monotonic() >= self._not_before:
            began = time.monotonic()
            self._write()
            self._not_before = time.monotonic() + 20 * (time.monotonic() - began)

    def _write(self) -> None:
        rows = [self._rows[step] for step in sorted(self._rows)]
        names = sorted({key for row in rows for key in row} - {"epoch", "step"})
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=["epoch", "step", *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())
        self._dirty = False

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """The rows up to a checkpoint lie on the disk with it: a killed run goes on from there without a gap."""
        if self._dirty:
            self._write()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        if self._dirty:
            self._write()
