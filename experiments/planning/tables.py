"""What `--plan` prints of any task."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.planning.data import Share
from experiments.planning.machine import Machine
from experiments.planning.patch_sizes import USABLE
from experiments.planning.summary import FitPlan, Plan, StagePlan
from training.rundir import write_json


def print_plan(plan: Plan, more: Sequence[Table], advise: Callable[[FitPlan, Machine], str]) -> None:
    """Device, memory, time and what the task adds, a table each; the last line is how long the run takes.

    Parameters
    ----------
    plan : Plan
        What was found.
    more : sequence of Table
        The task's own.
    advise : callable
        What to do where a step does not fit.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(device_table(plan))
    fit = plan.fit
    if fit is not None:
        console.print(memory_table(fit, plan.machine))
    for table in more:
        console.print(table)
    console.print(time_table(plan))
    for line in warnings_of(plan, advise):
        console.print(f"[bold red]{escape(line)}[/bold red]")
    for note in plan.notes:
        console.print(escape(f"note: {note}"))
    at_most = "at most " if fit is not None and fit.run.at_most else ""
    console.print(f"the run would take {at_most}{duration(plan.seconds)}")


def write_plan(plan: Plan, path: str | None) -> None:
    """Write a plan's figures as JSON; nothing without a path."""
    if path is None:
        return
    machine, fit = plan.machine, plan.fit
    found: dict[str, object] = {
        "name": plan.name, "device": machine.device, "memory_bytes": machine.memory_bytes,
        "precision": machine.precision, "ranks": machine.ranks, "seconds": plan.seconds,
    }  # fmt: skip
    if fit is not None:
        found["fit"] = {
            "batch": fit.batch, "parameters": fit.work.parameters, "flop": fit.work.flop,
            "batch_seconds": fit.times.batch, "seconds": fit.run.seconds, "largest_batch": fit.largest_batch(machine),
            "gpu_bytes": fit.gpu_bytes, "gpu_reserved_bytes": fit.gpu_reserved_bytes, "host_bytes": fit.host_bytes,
        }  # fmt: skip
    write_json(Path(path), found)
    print(f"plan: {path}")


def device_table(plan: Plan) -> Table:
    """Where it would run, and what a step is."""
    machine, fit = plan.machine, plan.fit
    table = Table("what", "found", title=f"{escape(plan.name)}: the plan")
    table.add_row("device", f"{escape(machine.device)}: {machine.note}")
    table.add_row("memory", f"{gigabytes(machine.memory_bytes)}, {gigabytes(machine.free_bytes)} of it free now")
    table.add_row("precision", machine.precision)
    if machine.ranks > 1:
        table.add_row("ranks", f"{machine.ranks}, {machine.local_ranks} on each machine; one was measured, alone")
    if fit is None:
        return table
    flop = "" if fit.work.flop is None else f", {fit.accumulate * fit.work.flop / 1e9:.1f} GFLOP a step and rank"
    table.add_row("network", f"{fit.work.parameters / 1e6:.2f} M parameters{flop}")
    table.add_row(
        plan.sample, f"{size(fit.patch)} voxels, {fit.batch} a batch, {fit.epoch.global_batch} a step of all ranks"
    )
    for split in ("train", "val"):
        table.add_row(f"{split} {plan.unit}s", str(len(plan.cases[split])))
    table.add_row("epoch", f"{fit.epoch.steps} steps of each rank, {fit.epoch.batches} batches")
    return table


def memory_table(fit: FitPlan, machine: Machine) -> Table:
    """Peaks of the training."""
    table = Table("memory of a rank, at its peak", "GB", "share", title="memory")

    def row(what: str, found: float, of: float | None = None) -> None:
        table.add_row(what, f"{found / 1e9:.2f}", "" if of is None else f"{100 * found / of:.0f} %")

    if machine.kind == "cuda":
        row("GPU: tensors", fit.gpu_bytes, machine.memory_bytes)
        row("GPU: kept by torch", fit.gpu_reserved_bytes, machine.memory_bytes)
        row("GPU: kept by torch, without validation", fit.gpu_step_bytes, machine.memory_bytes)
    whole = None if machine.kind == "cuda" else machine.memory_bytes
    row("main memory: in all", fit.host_bytes, whole)
    row("  of it before the training", fit.start_bytes)
    row("  of it loader processes and their batches", fit.loaders_bytes)
    table.add_section()
    table.add_row("largest batch that fits", str(fit.largest_batch(machine)), "")
    return table


def time_table(plan: Plan) -> Table:
    """From preparing to predicting."""
    table = Table("time", "one", "all", "how many", title="time")
    if plan.preparation is not None:
        done = plan.preparation
        for what, share in (("simulating", done.simulate), ("preparing", done.prepare), ("checking", done.check)):
            _share_row(table, what, share, plan.unit)
    if plan.fit is not None:
        _fit_rows(table, plan.fit, plan.unit)
    for what, stage in (("test", plan.test), ("predict", plan.predict)):
        if stage is not None:
            _stage_row(table, what, stage, plan.unit)
    table.add_section()
    table.add_row("the run", "", duration(plan.seconds), "")
    return table


def _share_row(table: Table, what: str, share: Share, unit: str) -> None:
    if share.total:
        beside = f", {share.workers} at once" if share.workers > 1 else ""
        many = f"{share.missing} of {share.total} {unit}s{beside}"
        table.add_row(f"{what} {unit}s", duration(share.seconds), duration(share.all_seconds), many)


def _fit_rows(table: Table, fit: FitPlan, unit: str) -> None:
    times, epoch, run = fit.times, fit.epoch, fit.run
    typical, spread = statistics.median(fit.steps), (min(fit.steps), max(fit.steps))
    table.add_row(
        "fit: a batch", f"{times.batch:.3f} s", duration(epoch.batches * times.batch),
        f"{epoch.batches} an epoch; median of {len(fit.steps)}: {typical:.3f} s, {spread[0]:.3f} to {spread[1]:.3f}",
    )  # fmt: skip
    table.add_row(f"fit: a validation {unit}", duration(times.volume), duration(epoch.volumes * times.volume),
                  f"{epoch.volumes} of each rank")  # fmt: skip
    table.add_row("fit: checkpoints", duration(times.checkpoint), "", "an epoch")
    table.add_row("fit: an epoch", duration(run.epoch_seconds), "", f"{epoch.steps} steps")
    most = "at most " if run.at_most else ""
    epochs = "no end" if math.isinf(run.epochs) else f"{run.epochs:.4g} epochs, {run.steps} steps"
    table.add_row("fit", duration(times.startup) + " to start", most + duration(run.seconds),
                  f"{most}{epochs}, ended by trainer.{run.ends_by}")  # fmt: skip


def _stage_row(table: Table, what: str, stage: StagePlan, unit: str) -> None:
    each = "" if stage.piece == unit else f", {stage.windows:.0f} {stage.piece}s each"
    table.add_row(
        f"{what}: a {stage.piece}", f"{stage.window_seconds:.3f} s", duration(stage.seconds),
        f"{stage.volumes} {unit}s of each rank{each}",
    )  # fmt: skip


def warnings_of(plan: Plan, advise: Callable[[FitPlan, Machine], str]) -> list[str]:
    """What a user should change before the run."""
    lines: list[str] = []
    fit, machine = plan.fit, plan.machine
    if fit is None:
        return lines
    if not fit.fits(machine):
        batch = fit.largest_batch(machine)
        do = f"try data.batch_size={batch}" if 0 < batch < fit.batch else ""
        do = do or advise(fit, machine)
        lines.append(
            f"will not fit: {gigabytes(fit.peak_bytes(machine))} of {gigabytes(machine.memory_bytes)} "
            f"({100 * USABLE:.0f} % may be used); {do}"
        )
    elif machine.kind != "cuda" and fit.host_bytes * machine.local_ranks - fit.start_bytes > machine.free_bytes:
        lines.append(
            f"may not fit now: {gigabytes(fit.host_bytes * machine.local_ranks)} needed, other programs leave "
            f"{gigabytes(machine.free_bytes)}; end some of them"
        )
    if math.isinf(fit.run.seconds):
        lines.append("nothing ends this run: set trainer.max_epochs, max_steps or max_time")
    return lines


def size(shape: tuple[int, ...]) -> str:
    """Such as 64x128x128."""
    return "x".join(map(str, shape))


def gigabytes(count: float) -> str:
    """Such as 23.5 GB."""
    return f"{count / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    """Such as 0.25 s, 12 s, 3 min 20 s, 5 h 07 min or 2 d 4 h."""
    if math.isinf(seconds):
        return "no end"
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds else "0 s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"
