"""`metrics.csv`: one row a step or epoch, whole at any moment, continued by a resumed run."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
        self._rows: list[dict[str, Any]] = []
        self._dirty = False
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [{k: v for k, v in row.items() if v not in ("", None)} for row in csv.DictReader(file)]
            self._rows = [r for r in rows if resume_step is None or int(r["step"]) < resume_step]

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
        at = int(step) if step is not None else len(self._rows)
        if self._rows and int(self._rows[-1]["step"]) == at:
            self._rows[-1].update(metrics)
        else:
            self._rows.append({"step": at, **metrics})
        self._dirty = True

    @rank_zero_only
    def save(self) -> None:
        """Write all rows; called by Lightning at every flush and at the end of an epoch."""
        if not self._dirty:
            return
        names = sorted({key for row in self._rows for key in row} - {"epoch", "step"})
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=["epoch", "step", *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self.path, text.getvalue())
        self._dirty = False

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()
