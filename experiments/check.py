"""`--check`: what is wrong with the data, and what the run would do. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.errors import ConfigErrors
from experiments.preflight import preflight
from experiments.progress import Bars
from experiments.schema import Config
from experiments.summary import print_check
from experiments.tasks import task_of
from experiments.tasks.base import Audited
from training.rundir import RunFolder


def check_run(config: Config, stages: Sequence[str], folder: RunFolder | None, dry_run: bool = False) -> Audited:
    """Audit what a run would read, and print what was found and what the run would do.

    Parameters
    ----------
    config : Config
        The run's.
    stages : sequence of str
        Those that are still to be done.
    folder : RunFolder, optional
        Of a resumed run.
    dry_run : bool
        Whether W&B is left out.

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
    try:
        preflight(config, list(stages), folder, dry_run)
    except ConfigErrors as refused:
        errors = refused.errors
    with Bars() as bars:
        done = task_of(config).audit(config, stages, bars)
    errors = [error for error in errors if error not in done.told]  # a file that the table names is not told twice
    if count := done.errors:
        some = f"{count} error{'s' if count > 1 else ''}"
        errors.append(f"check: {some} in the data; the table says where and what to do")
    print_check(config, stages, done, valid=not errors)
    if errors:
        raise ConfigErrors(errors)
    return done
