"""`--check` of tomograms and masks: print one table of errors and warnings with advice."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datamodules.audit.audit import audit
from datamodules.audit.findings import Finding
from datamodules.channel_labels import ChannelReport
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
    console = Console()
    # in a log file, wide enough for five columns; cells are wrapped and never cut
    console = console if console.is_terminal else Console(width=160)
    if done.findings:
        console.print(_table(done.findings))
    if done.channels:
        console.print(_channel_table(done.channels))
    if done.simulated:
        print("simulated volumes: there is no file to check, only the config's numbers")
    if done.volumes or not done.simulated:
        print(done.summary(), flush=True)
    printed = {found.origin for found in done.findings if found.origin is not None}
    return Audited(done.counts, done.inputs, len(done.errors), printed)


def _channel_table(channels: Sequence[tuple[str, ChannelReport]]) -> Table:
    table = Table(title="masks from fluorescence", show_lines=True)
    for name in ("volume", "mask", "offset z, y, x (um)", "correlation", "corrected", "cells not drawn"):
        table.add_column(name, overflow="fold")
    for volume, one in channels:
        offset = ", ".join(f"{value:.2f}" for value in one.offset_um)
        corrected = "yes" if one.corrected else f"no: {one.reason}"
        undrawn = f"{one.undrawn_cells} of {one.cells} ({100 * one.undrawn_share:.0f} %)"
        mask = f"{one.organelle} from {one.channel}"
        table.add_row(*map(escape, (volume, mask, offset, f"{one.reliability:.2f}", corrected, undrawn)))
    return table


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
