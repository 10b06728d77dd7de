"""`--check` of a training task: print errors in the data and what the run would do. Nothing is written."""

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
    """Result of an audit of the data."""

    counts: dict[str, int] = field(default_factory=dict)
    """Number of cases of each split."""
    inputs: int = 0
    """Number of files to predict."""
    errors: int = 0
    """Number of errors that would stop a run or invalidate its results."""
    printed: set[str] = field(default_factory=set)
    """Messages that were printed already."""


def check_run(task: Any, request: RunRequest) -> Audited:
    """Audit the data of a run, and print the result and what the run would do.

    Parameters
    ----------
    task : TrainedTask
        Task of the run.
    request : RunRequest
        The run.

    Returns
    -------
    Audited
        Result without errors; it may have warnings.

    Raises
    ------
    ConfigErrors
        The errors of `preflight`, and one line for all errors in the data.
    """
    errors: list[str] = []
    config, stages = request.config, request.stages
    try:
        preflight(task, config, list(stages), request.folder, request.dry_run)
    except ConfigErrors as refused:
        errors = refused.errors
    with Bars() as bars:
        done: Audited = task.audit(config, stages, bars)
    errors = [error for error in errors if error not in done.printed]
    if count := done.errors:
        errors.append(f"check: {count} error{'s' * (count > 1)} in the data; the table shows where and what to do")
    _print_check(task, config, stages, done, valid=not errors)
    if errors:
        raise ConfigErrors(errors)
    return done


def _print_check(task: Any, config: Any, stages: Sequence[str], done: Audited, valid: bool) -> None:
    """Print what the run would do and the number of its cases."""
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
