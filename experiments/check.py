"""`--check`: what is wrong with the data, one table with what to do, and what the run would do. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datamodules.audit import Audit, audit
from datamodules.audit_findings import Finding
from experiments.config import Config, ConfigFaults
from experiments.preflight import preflight
from experiments.progress import Bars
from experiments.summary import print_check
from training.rundir import RunFolder


def check_run(config: Config, stages: Sequence[str], folder: RunFolder | None, dry_run: bool = False) -> Audit:
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
    Audit
        With warnings at most.

    Raises
    ------
    ConfigFaults
        Something would stop the run, or spoil it: what `preflight` refuses, and one line for all errors of the table.
    """
    faults: list[str] = []
    try:
        preflight(config, list(stages), folder, dry_run)
    except ConfigFaults as refused:
        faults = refused.faults
    with Bars() as bars:
        done = audit(config.data, config.seed, stages, config.predict.inputs, config.predict.spacing_um, bars)
    print_audit(done)
    told = {found.origin for found in done.findings}
    faults = [fault for fault in faults if fault not in told]  # a file that the table names is not told twice
    if count := len(done.errors):
        some = f"{count} error{'s' if count > 1 else ''}"
        faults.append(f"check: {some} in the data; the table says where and what to do")
    print_check(config, stages, done, valid=not faults)
    if faults:
        raise ConfigFaults(faults)
    return done


def print_audit(done: Audit) -> None:
    """The table, if there is anything to tell, and one line of numbers."""
    console = _console()
    if done.findings:
        console.print(_table(done.findings))
    if done.simulated:
        print("simulated volumes: there is no file to check, only the config's numbers")
    if done.volumes or not done.simulated:
        print(done.summary(), flush=True)


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(title="the data", show_lines=True)
    for name in ("severity", "kind"):
        table.add_column(name, no_wrap=True)
    for name in ("where", "found", "what to do"):
        table.add_column(name, overflow="fold", ratio=2)
    for found in findings:
        style = "red" if found.severity == "error" else "yellow"
        cells = (found.where, found.found, found.advice)
        table.add_row(f"[{style}]{found.severity}[/]", found.kind, *map(escape, cells))
    return table


def _console() -> Console:
    """The terminal; in a pipe wide enough for five columns, whose cells are wrapped and never cut."""
    console = Console()
    return console if console.is_terminal else Console(width=160)
