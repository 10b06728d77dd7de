"""`--check` of tomograms and masks: print one table of errors and warnings with advice."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datamodules.audit.audit import audit
from datamodules.audit.findings import Finding
from experiments.check import Audited
from experiments.progress import Progress
from experiments.tasks.organelle.config import OrganelleConfig


def audit_data(config: OrganelleConfig, stages: Sequence[str], progress: Progress) -> Audited:
    """Audit every file that a run would read, print the findings, and return the result."""
    predict = config.predict
    done = audit(
        *(config.data, config.seed, stages, predict.inputs, predict.spacing_um, progress),
        *(predict.spacing_from, predict.series),
    )
    if done.findings:
        console = Console()
        # in a log file, wide enough for five columns; cells are wrapped and never cut
        console = console if console.is_terminal else Console(width=160)
        console.print(_table(done.findings))
    if done.simulated:
        print("simulated volumes: there is no file to check, only the config's numbers")
    if done.volumes or not done.simulated:
        print(done.summary(), flush=True)
    printed = {found.origin for found in done.findings if found.origin is not None}
    return Audited(done.counts, done.inputs, len(done.errors), printed)


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
