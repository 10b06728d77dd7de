"""`--check` of a training task: what is wrong with the data, and what the run would do. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.markup import escape
from rich.table import Table

from experiments.errors import ConfigErrors
from experiments.preflight import preflight
from experiments.progress import Bars, wide_console
from experiments.session import RunRequest


@dataclass
class Audited:
    """What an audit of the data came to."""

    counts: dict[str, int] = field(default_factory=dict)
    """Cases of each split."""
    inputs: int = 0
    """Files to predict."""
    errors: int = 0
    """What would stop a run, or spoil it."""
    printed: set[str] = field(default_factory=set)
    """Messages that were printed already."""


def check_run(task: Any, request: RunRequest) -> Audited:
    """Audit what a run would read, and print what was found and what the run would do.

    Parameters
    ----------
    task : TrainedTask
        Of the request's config.
    request : RunRequest
        What would be run.

    Returns
    -------
    Audited
        With warnings at most.

    Raises
    ------
    ConfigErrors
        Something would stop the run, or spoil it: what `preflight` refuses, and one line for all errors of the table.
    """
    errors: list[str] = []
    config, stages = request.config, request.stages
    try:
        preflight(task, config, list(stages), request.folder, request.dry_run)
    except ConfigErrors as refused:
        errors = refused.errors
    with Bars() as bars:
        done: Audited = task.audit(config, stages, bars)
    errors = [
        error for error in errors if error not in done.printed
    ]  # a file that the table names is not reported twice
    if count := done.errors:
        some = f"{count} error{'s' if count > 1 else ''}"
        errors.append(f"check: {some} in the data; the table says where and what to do")
    _print_check(task, config, stages, done, valid=not errors)
    if errors:
        raise ConfigErrors(errors)
    return done


def _print_check(task: Any, config: Any, stages: Sequence[str], done: Audited, valid: bool) -> None:
    """Print what the run would do, and with how many volumes; nothing is simulated or written."""
    verdict = "the config is valid" if valid else "what the run would do"
    table = Table("what", "found", title=f"{escape(config.name)}: {verdict}")
    table.add_row("task", config.task)
    table.add_row("stages", ", ".join(stages) or "none is left to do")
    table.add_row("network", escape(str(task.resolved(config)["model"])))
    for split, count in done.counts.items():
        table.add_row(f"{split} {task.unit}s", str(count))
    if done.inputs:
        table.add_row("inputs to predict", str(done.inputs))
    wide_console().print(table)
