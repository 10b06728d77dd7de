"""Print a plan as tables, and write it as JSON."""

import math
import statistics
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from experiments.planning.machine import Machine
from experiments.planning.patch_sizes import USABLE, advice, axis_sizes, candidates
from experiments.planning.summary import FitPlan, Plan
from experiments.progress import wide_console
from training.rundir import write_json


def print_plan(plan: Plan) -> None:
    """Print one table each for device, memory, patch sizes and time, warnings, and in the last line the run's time."""
    console, fit = wide_console(), plan.fit
    console.print(device_table(plan))
    if fit is not None:
        console.print(memory_table(fit, plan.machine))
        if fit.network is not None:
            console.print(patch_table(fit, plan))
    console.print(time_table(plan))
    for line in warnings_of(plan):
        console.print(f"[bold red]{escape(line)}[/bold red]")
    for note in plan.notes:
        console.print(escape(f"note: {note}"))
    at_most = "at most " if fit is not None and fit.run.at_most else ""
    console.print(f"the run would take {at_most}{duration(plan.seconds)}")


def write_plan(plan: Plan, path: str | None) -> None:
    """Write the figures of a plan as JSON; without a path, do nothing."""
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
            "batch_seconds": fit.measured.times.batch, "seconds": fit.run.seconds,
            "largest_batch": fit.largest_batch(machine),
            "gpu_bytes": fit.measured.memory.gpu_bytes, "gpu_reserved_bytes": fit.measured.memory.gpu_reserved_bytes,
            "host_bytes": fit.host_bytes,
        }  # fmt: skip
    write_json(Path(path), found)
    print(f"plan: {path}")


def device_table(plan: Plan) -> Table:
    """Return the table of the device, the network and the training samples."""
    machine, fit = plan.machine, plan.fit
    table = Table("what", "found", title=f"{escape(plan.name)}: the plan")
    table.add_row("device", f"{escape(machine.device)}: {machine.note}")
    table.add_row("memory", f"{gigabytes(machine.memory_bytes)}, {gigabytes(machine.free_bytes)} of it free now")
    table.add_row("precision", machine.precision)
    if machine.ranks > 1:
        table.add_row("ranks", f"{machine.ranks}, {machine.local_ranks} on each machine; one was measured, alone")
    if fit is not None:
        flop = "" if fit.work.flop is None else f", {fit.accumulate * fit.work.flop / 1e9:.1f} GFLOP per step and rank"
        table.add_row("network", f"{fit.work.parameters / 1e6:.2f} M parameters{flop}")
        table.add_row(
            plan.sample, f"{size(fit.patch)} voxels, {fit.batch} a batch, {fit.epoch.global_batch} a step of all ranks"
        )
        for split in ("train", "val"):
            table.add_row(f"{split} {plan.unit}s", str(len(plan.cases[split])))
        table.add_row("epoch", f"{fit.epoch.steps} steps of each rank, {fit.epoch.batches} batches")
    return table


def memory_table(fit: FitPlan, machine: Machine) -> Table:
    """Return the table of the memory peaks of the training."""
    table = Table("memory of a rank, at its peak", "GB", "share", title="memory")

    def row(what: str, found: float, of: float | None = None) -> None:
        table.add_row(what, f"{found / 1e9:.2f}", "" if of is None else f"{100 * found / of:.0f} %")

    if machine.kind == "cuda":
        row("GPU: tensors", fit.measured.memory.gpu_bytes, machine.memory_bytes)
        row("GPU: reserved by torch", fit.measured.memory.gpu_reserved_bytes, machine.memory_bytes)
        row("GPU: reserved by torch, without validation", fit.measured.gpu_step_bytes, machine.memory_bytes)
    row("main memory: in all", fit.host_bytes, None if machine.kind == "cuda" else machine.memory_bytes)
    row("  of it before the training", fit.measured.start_bytes)
    row("  of it loader processes and their batches", fit.loaders_bytes)
    table.add_section()
    table.add_row("largest batch that fits", str(fit.largest_batch(machine)), "")
    return table


def patch_table(fit: FitPlan, plan: Plan) -> Table:
    """Return the table of valid patch sizes around the config's, with memory and time scaled by voxels.

    A volume that is smaller than the patch is padded with its edge.
    """
    assert fit.network is not None
    rules = zip("zyx", fit.patch, fit.network.divisor, fit.network.minimum, strict=True)
    texts = [
        f"{axis}: multiples of {divisor} from {-(-minimum // divisor) * divisor} "
        f"({', '.join(map(str, axis_sizes(length, divisor, minimum)))}, ...)"
        for axis, length, divisor, minimum in rules
    ]
    table = Table(
        "patch", f"GB at batch {fit.batch}", "largest batch", "batch, s", f"of {len(plan.shapes)} volumes large enough",
        title="patches; those not measured are estimated by voxels", caption="\n".join(texts),
    )  # fmt: skip
    for patch in candidates(fit.patch, fit.network):
        seconds = fit.measured.times.batch * (math.prod(patch) / math.prod(fit.patch))
        large = sum(all(n >= p for n, p in zip(shape, patch, strict=True)) for shape in plan.shapes)
        table.add_row(
            f"[bold]{size(patch)}, measured[/bold]" if patch == fit.patch else size(patch),
            f"{fit.model.peak(patch, fit.batch) / 1e9:.2f}", str(fit.largest_batch(plan.machine, patch)),
            f"{seconds:.3g}", str(large),
        )  # fmt: skip
    return table


def time_table(plan: Plan) -> Table:
    """Return the table of the times of preparation, fit, test and prediction."""
    table, unit = Table("time", "one", "all", "how many", title="time"), plan.unit
    for what, share in plan.preparation.items():
        if share.total:
            parallel = f", {share.workers} at once" if share.workers > 1 else ""
            many = f"{share.missing} of {share.total} {unit}s{parallel}"
            table.add_row(f"{what} {unit}s", duration(share.seconds), duration(share.all_seconds), many)
    if plan.fit is not None:
        _fit_rows(table, plan.fit, unit)
    for what, stage in (("test", plan.test), ("predict", plan.predict)):
        if stage is not None:
            each = "" if stage.piece == unit else f", {stage.windows:.0f} {stage.piece}s each"
            table.add_row(
                f"{what}: a {stage.piece}", f"{stage.window_seconds:.3f} s", duration(stage.seconds),
                f"{stage.volumes} {unit}s of each rank{each}",
            )  # fmt: skip
    table.add_section()
    table.add_row("the run", "", duration(plan.seconds), "")
    return table


def _fit_rows(table: Table, fit: FitPlan, unit: str) -> None:
    times, epoch, run, steps = fit.measured.times, fit.epoch, fit.run, fit.measured.steps
    table.add_row(
        "fit: a batch", f"{times.batch:.3f} s", duration(epoch.batches * times.batch),
        f"{epoch.batches} per epoch; median of {len(steps)}: {statistics.median(steps):.3f} s, "
        f"{min(steps):.3f} to {max(steps):.3f}",
    )  # fmt: skip
    table.add_row(f"fit: a validation {unit}", duration(times.volume), duration(epoch.volumes * times.volume),
                  f"{epoch.volumes} of each rank")  # fmt: skip
    table.add_row("fit: checkpoints", duration(times.checkpoint), "", "an epoch")
    table.add_row("fit: an epoch", duration(run.epoch_seconds), "", f"{epoch.steps} steps")
    most = "at most " if run.at_most else ""
    epochs = "no end" if math.isinf(run.epochs) else f"{run.epochs:.4g} epochs, {run.steps} steps"
    table.add_row("fit", duration(times.startup) + " to start", most + duration(run.seconds),
                  f"{most}{epochs}, ended by trainer.{run.ends_by}")  # fmt: skip


def warnings_of(plan: Plan) -> list[str]:
    """Return what a user should change before the run, one line each."""
    lines: list[str] = []
    fit, machine = plan.fit, plan.machine
    if fit is None:
        return lines
    if not fit.fits(machine):
        batch = fit.largest_batch(machine)
        if 0 < batch < fit.batch:
            suggestion = f"try data.batch_size={batch}"
        elif fit.network is None:
            suggestion = f"choose a smaller network: not even one {plan.sample} fits"
        else:
            suggestion = advice(fit.network, fit.patch, 1, machine.memory_bytes)
        lines.append(
            f"will not fit: {gigabytes(fit.peak_bytes(machine))} of {gigabytes(machine.memory_bytes)} "
            f"({100 * USABLE:.0f} % may be used); {suggestion}"
        )
    elif machine.kind != "cuda" and fit.peak_bytes(machine) - fit.measured.start_bytes > machine.free_bytes:
        lines.append(
            f"may not fit now: {gigabytes(fit.peak_bytes(machine))} needed, other programs leave "
            f"{gigabytes(machine.free_bytes)}; end some of them"
        )
    if math.isinf(fit.run.seconds):
        lines.append("nothing ends this run: set trainer.max_epochs, max_steps or max_time")
    return lines


def size(shape: tuple[int, ...]) -> str:
    """Return a size such as 64x128x128."""
    return "x".join(map(str, shape))


def gigabytes(count: float) -> str:
    """Return a number of bytes as text, such as 23.5 GB."""
    return f"{count / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    """Return a duration such as 0.25 s, 12 s, 3 min 20 s, 5 h 07 min or 2 d 4 h."""
    if math.isinf(seconds):
        return "no end"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s" if seconds else "0 s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
