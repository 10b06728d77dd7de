"""What a run says at its end, and `--check` instead of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from experiments.config import resolved
from experiments.schema import Config
from experiments.tasks import task_of
from experiments.tasks.base import Audited, wide_console
from training.rundir import RunFolder


def print_check(config: Config, stages: Sequence[str], done: Audited, valid: bool) -> None:
    """What the run would do, and with how many volumes; nothing is simulated or written."""
    verdict = "the config is valid" if valid else "what the run would do"
    table = Table("what", "found", title=f"{escape(config.name)}: {verdict}")
    table.add_row("task", config.task)
    table.add_row("stages", ", ".join(stages) or "none is left to do")
    table.add_row("network", escape(str(resolved(config)["model"])))
    for split, count in done.counts.items():
        table.add_row(f"{split} {task_of(config).unit}s", str(count))
    if done.inputs:
        table.add_row("inputs to predict", str(done.inputs))
    wide_console().print(table)


def print_summary(folder: RunFolder, config: Config) -> None:
    """The numbers, and where everything lies; the last line is the run folder, or the folder of its predictions."""
    task_of(config).print_summary(folder, config)
    metrics = folder.metrics()
    print(f"report: {folder.path / 'report.html'}")
    print(f"run: {folder.path}", flush=True)
    if "predict" in config.stages and "predict/files" in metrics:  # what a prediction is for
        out = getattr(config.predict, "out", None)
        target = Path(out).absolute() if out is not None else folder.predictions
        print(f"predictions: {target} ({int(metrics['predict/files'])} files)", flush=True)
