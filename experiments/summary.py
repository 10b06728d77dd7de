"""What a run says at its end, and `--check` instead of a run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datamodules.audit import Audit
from experiments.config import Config, resolved
from training.rundir import RunFolder


def print_check(config: Config, stages: Sequence[str], done: Audit, valid: bool) -> None:
    """What the run would do, and with how many volumes; nothing is simulated or written."""
    verdict = "the config is valid" if valid else "what the run would do"
    table = Table("what", "found", title=f"{escape(config.name)}: {verdict}")
    table.add_row("task", config.task)
    table.add_row("stages", ", ".join(stages) or "none is left to do")
    table.add_row("network", escape(str(resolved(config)["model"])))
    for split, count in done.counts.items():
        table.add_row(f"{split} volumes", str(count))
    if done.inputs:
        table.add_row("inputs to predict", str(done.inputs))
    _console().print(table)


def _console() -> Console:
    """The terminal; in a log file, wide enough for a column a cell line."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def print_summary(folder: RunFolder, organelles: Sequence[str]) -> None:
    """The numbers, and where everything lies; the last line is the run folder."""
    metrics = folder.metrics()
    per_line = (k.split("/") for k in metrics if k.startswith("test/") and k.endswith("/dice_mean"))
    lines = sorted(parts[1] for parts in per_line if len(parts) == 3)
    lines = lines if len(lines) > 1 else []
    scored = [name for name in (*organelles, "mean") if f"test/dice_{name}" in metrics]
    if scored:
        table = Table("Dice", "all", *map(escape, lines), "best single RI window", title="test")
        for name in scored:
            keys = [f"test/dice_{name}", *(f"test/{line}/dice_{name}" for line in lines)]
            keys.append(f"test/window_dice_{name}")
            table.add_row(name, *(f"{metrics[key]:.3f}" if key in metrics else "" for key in keys))
        _console().print(table)
    if "predict/files" in metrics:
        print(f"predictions: {folder.predictions} ({int(metrics['predict/files'])} files)")
    print(f"report: {folder.path / 'report.html'}")
    print(f"run: {folder.path}", flush=True)
