"""Logger for `metrics.csv`: one row per step or epoch, written atomically and continued by a resumed run."""

import csv
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from training.rundir import write_csv


class MetricsCSV(Logger):
    """Lightning logger for the run folder.

    Lightning's `CSVLogger` deletes the file of an existing folder, and so the rows of a run that is resumed.

    Parameters
    ----------
    path : Path
        CSV file; its rows are kept.
    resume_step : int, optional
        Step of the checkpoint that the run resumes from. Rows from this step on are dropped: the run repeats them.
    """

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        super().__init__()
        self.path = path
        self._rows: dict[int, dict[str, Any]] = {}
        self._dirty, self._not_before = False, 0.0
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [{k: v for k, v in row.items() if v not in ("", None)} for row in csv.DictReader(file)]
            self._rows = {int(r["step"]): r for r in rows if resume_step is None or int(r["step"]) < resume_step}

    @property
    def name(self) -> str:
        """Empty: the run folder names the run."""
        return ""

    @property
    def version(self) -> str:
        """Empty: the run folder names the run."""
        return ""

    @property
    def save_dir(self) -> str:
        """Path of the run folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the config is in `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add numbers to the row of this step."""
        at = int(step) if step is not None else max(self._rows, default=-1) + 1
        self._rows.setdefault(at, {"step": at}).update(metrics)
        self._dirty = True

    @rank_zero_only
    def save(self) -> None:
        """Write all rows, but spend at most 5 % of the time on it: Lightning calls this after every new row."""
        if self._dirty and time.monotonic() >= self._not_before:
            began = time.monotonic()
            self.finalize("running")
            self._not_before = time.monotonic() + 20 * (time.monotonic() - began)

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Write the rows up to the checkpoint: a run that is killed can then resume without a gap."""
        self.finalize("running")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the rows that are not written yet."""
        if self._dirty:
            rows = [self._rows[step] for step in sorted(self._rows)]
            names = sorted({key for row in rows for key in row} - {"epoch", "step"})
            write_csv(self.path, ["epoch", "step", *names], rows)
            self._dirty = False
