"""`--plan` with `plan.device`: what a training step would take on a card that need not be there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table

from cytovox.errors import InputError
from experiments.planning.gpus import Card, find_card
from experiments.planning.measure import measuring_notes
from experiments.planning.memory_peak import StepMemory, step_flop, step_memory
from experiments.planning.patch_sizes import USABLE
from experiments.planning.tables import gigabytes
from experiments.progress import wide_console
from lightning_modules.optim import SGD
from training.rundir import write_json

#: A batch of fake tensors of so many samples, as the task's loader makes it.
FakeBatch = Callable[[int], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class CardRow:
    """A training step with or without activation checkpointing."""

    checkpointing: bool | None
    """None where the network has no such option."""
    batch: int
    """Samples of the config's batch."""
    predicted_peak_bytes: int
    """Of GPU memory, as torch counts it, without cuDNN's workspace."""
    weights_bytes: int
    """Of it, what stays between steps."""
    parameters: int
    flop: int
    """Forward and backward of a batch."""
    largest_batch: int
    """That fits; 0 where not even one sample does."""
    least_batch_seconds: float
    """At the card's peak rate; a real step takes several times as long."""


def plan_on_card(config: Any, for_training: Callable[[Any], Any], batch: FakeBatch, stages: list[str]) -> None:
    """Print, and write to `plan.json`, what a training step of this config takes on the card `plan.device`.

    Parameters
    ----------
    config : Config
        The run's.
    for_training : callable
        A new module of a config.
    batch : callable
        Samples to a batch; called where tensors are fake.
    stages : list of str
        Of the run; the fit stage must be among them.

    Raises
    ------
    InputError
        An unknown card, a precision that it does not have, or no fit stage.
    """
    card = find_card(config.plan.device)
    precision = card.precision(config.trainer.precision)
    if "fit" not in stages:
        raise InputError("plan.device: plans a training, but stages has no fit; add it, or leave plan.device out")
    choices = (False, True) if hasattr(config.model, "checkpointing") else (None,)
    rows = [_row(_with(config, choice), choice, for_training, batch, card, precision) for choice in choices]
    _print(config, card, precision, rows)
    if config.plan.json is not None:
        found = {"name": config.name, "device": card.name, "memory_bytes": card.memory_bytes, "precision": precision}
        write_json(Path(config.plan.json), {**found, "rows": [dataclasses.asdict(row) for row in rows]})
        print(f"plan: {config.plan.json}")


def _with(config: Any, checkpointing: bool | None) -> Any:
    if checkpointing is None:
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, checkpointing=checkpointing))


def _row(
    config: Any, checkpointing: bool | None, for_training: Callable[[Any], Any], batch: FakeBatch, card: Card,
    precision: str,
) -> CardRow:  # fmt: skip
    def step(count: int) -> StepMemory:
        return step_memory(
            build, lambda module: module.training_step(batch(count), 0), precision,  # type: ignore[operator]
            moments=1 if isinstance(config.optimizer, SGD) else 2,
            averaged=config.trainer.ema is not None, ranks=_ranks(config),
        )  # fmt: skip

    def build() -> Any:
        module = for_training(config)
        module.log = lambda *_, **__: None
        # the second of two steps: whatever begins later in a training is there
        module._trainer = SimpleNamespace(precision=precision, global_step=1, estimated_stepping_batches=2)
        return module

    size = config.data.batch_size
    try:
        one, two = step(1), step(2)
        own = {1: one, 2: two}.get(size) or step(size)
        flop = step_flop(build, lambda module: module.training_step(batch(size), 0), precision)  # type: ignore[operator]
        largest = _largest(lambda count: step(count).peak, one.peak, two.peak, USABLE * card.memory_bytes)
    except ValueError as error:
        raise InputError(f"plan.device: {error}; plan it on such a card, without plan.device") from error
    seconds = flop / (1e12 * card.peak_tflops(precision))
    return CardRow(checkpointing, size, own.peak, own.weights, own.parameters, flop, largest, seconds)


def _largest(peak: Callable[[int], int], one: int, two: int, room: float) -> int:
    """The largest batch whose peak fits, from those of 1 and 2."""
    if one > room:
        return 0
    largest = 1 + int((room - one) // max(1, two - one))
    while largest > 2 and (found := peak(largest)) > room:  # the peak may move to another place of the step
        largest = min(largest - 1, int(largest * room / found))
    return largest


def _ranks(config: Any) -> int:
    """More than one as soon as the config says so; how many does not matter to one card."""
    devices = config.trainer.devices
    listed = len(devices.split(",")) if isinstance(devices, str) and "," in devices else 1
    number = int(devices) if str(devices).isdigit() else listed
    return max(1, number) * config.trainer.num_nodes


def _print(config: Any, card: Card, precision: str, rows: list[CardRow]) -> None:
    console = wide_console()
    about = Table("what", "found", title=f"{escape(config.name)} on {card.name}: the plan; nothing is measured")
    about.add_row("memory", f"{card.memory_gib} GiB, {100 * USABLE:.0f} % of it may be used")
    about.add_row("precision", f"{precision} ({'bf16' if card.bf16 else 'no bf16'} in hardware)")
    about.add_row("peak rate", f"{card.peak_tflops(precision):g} TFLOP/s ({escape(card.source)})")
    about.add_row("network", f"{rows[0].parameters / 1e6:.2f} M parameters")
    console.print(about)
    table = Table(
        "checkpointing", f"GB at batch {config.data.batch_size}", "share", "largest batch", "GFLOP a batch",
        "a batch at the peak rate, s", caption="GB of tensors; without the driver's own and cuDNN's workspace",
    )  # fmt: skip
    for row in rows:
        how = "no option" if row.checkpointing is None else "yes" if row.checkpointing else "no"
        share = f"{100 * row.predicted_peak_bytes / card.memory_bytes:.0f} %"
        table.add_row(
            how, f"{row.predicted_peak_bytes / 1e9:.2f}", share, str(row.largest_batch), f"{row.flop / 1e9:.1f}",
            f"{row.least_batch_seconds:.2g}",
        )  # fmt: skip
    console.print(table)
    for note in measuring_notes(config.trainer):
        console.print(f"note: {note}")
    own = next(
        (row for row in rows if row.checkpointing in (None, getattr(config.model, "checkpointing", None))), rows[0]
    )
    if own.largest_batch < own.batch:
        also = next((row for row in rows if row.checkpointing and row.largest_batch >= row.batch), None)
        do = f"data.batch_size={own.largest_batch}" if own.largest_batch else "a smaller data.patch_size"
        do = "model.checkpointing=true" if also is not None and also is not own else do
        console.print(
            f"[bold red]will not fit: {gigabytes(own.predicted_peak_bytes)} of {card.memory_gib} GiB "
            f"({100 * USABLE:.0f} % may be used); try {do}[/bold red]"
        )
