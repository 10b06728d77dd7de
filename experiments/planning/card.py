"""`--plan` with `plan.device`: estimate a training step on a GPU that this machine does not have."""

import dataclasses
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table

from cytovox.errors import InputError
from experiments.planning.machine import device_count
from experiments.planning.measure import measuring_notes
from experiments.planning.memory_peak import StepMemory, step_flop, step_memory
from experiments.planning.patch_sizes import USABLE
from experiments.planning.tables import gigabytes
from experiments.progress import wide_console
from lightning_modules.optim import SGD
from training.rundir import write_json

#: Function that returns a training batch of so many samples, without their content.
FakeBatch = Callable[[int], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Card:
    """Data sheet of a GPU; rates are without sparsity, in 1e12 operations per second."""

    name: str
    memory_gib: int
    """Nominal memory; torch reports 1 to 3 % less."""
    short_tflops: float
    """Rate of the tensor cores with 16-bit operands and float32 sums."""
    float32_tflops: float
    """Rate of float32, without TF32."""
    bandwidth_gb_s: float
    """Bandwidth of the memory, 1e9 bytes per second."""
    bf16: bool
    """Whether it computes bfloat16 in hardware (compute capability 8.0 and above)."""
    source: str
    """Title of the data sheet."""

    @property
    def memory_bytes(self) -> int:
        """Memory in bytes."""
        return self.memory_gib * 2**30

    def precision(self, wanted: str) -> str:
        """Return the precision that `trainer.precision` selects on this card.

        Raises
        ------
        InputError
            bfloat16 on a card that does not compute it.
        """
        if wanted == "auto":
            return "bf16-mixed" if self.bf16 else "16-mixed"
        if wanted == "bf16-mixed" and not self.bf16:
            raise InputError(f"trainer.precision: {self.name} does not compute bfloat16; set it to 16-mixed or auto")
        return "32-true" if wanted == "32" else wanted

    def peak_tflops(self, precision: str) -> float:
        """Return the highest rate in a precision."""
        return self.float32_tflops if precision == "32-true" else self.short_tflops


_V100 = "NVIDIA V100 datasheet (Jan 2020), SXM2"
_A100 = "NVIDIA A100 datasheet (Jun 2021), SXM"

#: Known GPUs by the name that `plan.device` takes.
CARDS: dict[str, Card] = {
    card.name: card
    for card in (
        Card("V100-16GB", 16, 125.0, 15.7, 900, False, _V100),
        Card("V100-32GB", 32, 125.0, 15.7, 900, False, _V100),
        Card("T4-16GB", 16, 65.0, 8.1, 320, False, "NVIDIA T4 datasheet (2018)"),
        Card("A100-40GB", 40, 312.0, 19.5, 1555, True, _A100),
        Card("A100-80GB", 80, 312.0, 19.5, 2039, True, _A100),
        Card("H100-80GB", 80, 989.0, 67.0, 3350, True, "NVIDIA H100 datasheet (2023), SXM, without sparsity"),
        Card("H200-141GB", 141, 989.0, 67.0, 4800, True, "NVIDIA H200 datasheet (2024), SXM, without sparsity"),
        Card("L40S-48GB", 48, 362.0, 91.6, 864, True, "NVIDIA L40S datasheet (2023), without sparsity"),
        Card("RTX3090-24GB", 24, 71.0, 35.6, 936, True, "NVIDIA GA102 architecture whitepaper (2020), table 9"),
        Card("RTX4090-24GB", 24, 165.2, 82.6, 1008, True, "NVIDIA Ada architecture whitepaper (2022), appendix A"),
    )
}


def find_card(name: str) -> Card:
    """Return the card of this name; upper and lower case are the same.

    Raises
    ------
    InputError
        Unknown name; the message lists the nearest name and all others.
    """
    for known, card in CARDS.items():
        if known.lower() == name.lower():
            return card
    near = difflib.get_close_matches(name.upper(), CARDS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"plan.device: unknown card {name!r}{hint} (known: {', '.join(CARDS)})")


@dataclass(frozen=True)
class CardRow:
    """Estimate of a training step, with or without activation checkpointing; a row of `plan.json`."""

    checkpointing: bool | None
    """None for a network without this option."""
    batch: int
    """Samples in a batch."""
    predicted_peak_bytes: int
    """Peak GPU memory of tensors, as torch counts it, without cuDNN's workspace."""
    weights_bytes: int
    """Part of the peak that is kept between steps."""
    parameters: int
    flop: int
    """Operations of the forward and backward pass of a batch."""
    largest_batch: int
    """Largest batch that fits; 0 if not even one sample does."""
    least_batch_seconds: float
    """Seconds per batch at the card's peak rate; a real step takes several times as long."""


def plan_on_card(config: Any, for_training: Callable[[Any], Any], batch: FakeBatch, stages: list[str]) -> None:
    """Print the memory and time of a training step on the card `plan.device`, and write them to `plan.json`.

    Parameters
    ----------
    config : Config
        Config of the run.
    for_training : callable
        Function that builds a new module from a config.
    batch : callable
        Function that returns a batch of so many samples; it is called while tensors are fake.
    stages : list of str
        Stages of the run; they must include fit.

    Raises
    ------
    InputError
        Unknown card, a precision that the card does not have, or no fit stage.
    """
    card = find_card(config.plan.device)
    precision = card.precision(config.trainer.precision)
    if "fit" not in stages:
        raise InputError("plan.device: plans a training, but stages has no fit; add it, or leave plan.device out")
    variants: dict[bool | None, Any] = {None: config}
    if hasattr(config.model, "checkpointing"):
        models = {choice: dataclasses.replace(config.model, checkpointing=choice) for choice in (False, True)}
        variants = {choice: dataclasses.replace(config, model=model) for choice, model in models.items()}
    rows = [_row(variant, choice, for_training, batch, card, precision) for choice, variant in variants.items()]
    _print(config, card, precision, rows)
    if config.plan.json is not None:
        found = {"name": config.name, "device": card.name, "memory_bytes": card.memory_bytes, "precision": precision}
        write_json(Path(config.plan.json), {**found, "rows": [dataclasses.asdict(row) for row in rows]})
        print(f"plan: {config.plan.json}")


def _row(
    config: Any, checkpointing: bool | None, for_training: Callable[[Any], Any], batch: FakeBatch, card: Card,
    precision: str,
) -> CardRow:  # fmt: skip
    def step(count: int) -> StepMemory:
        return step_memory(
            build, lambda module: module.training_step(batch(count), 0), precision,  # type: ignore[operator]
            moments=1 if isinstance(config.optimizer, SGD) else 2,
            averaged=config.trainer.ema is not None, ranks=_ranks(config.trainer),
        )  # fmt: skip

    def build() -> Any:
        module = for_training(config)
        module.log = lambda *_, **__: None
        # the second of two steps, so that everything that starts later in a training is included
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


def _largest(peak: Callable[[int], int], one: int, two: int, limit: float) -> int:
    """Return the largest batch whose peak is within the limit, given the peaks of batches of 1 and 2."""
    if one > limit:
        return 0
    largest = 1 + int((limit - one) // max(1, two - one))
    while largest > 2 and (found := peak(largest)) > limit:  # a larger batch may peak at another operation
        largest = min(largest - 1, int(largest * limit / found))
    return largest


def _ranks(trainer: Any) -> int:
    """Return the number of ranks that the config names. Only whether it exceeds 1 matters to one card.

    The machine with the card is not known, so that "auto" and -1 count as one device per machine.
    """
    return max(1, device_count(trainer.devices) or 1) * int(trainer.num_nodes)


def _print(config: Any, card: Card, precision: str, rows: list[CardRow]) -> None:
    console = wide_console()
    about = Table("what", "found", title=f"{escape(config.name)} on {card.name}: the plan; nothing is measured")
    about.add_row("memory", f"{card.memory_gib} GiB, {100 * USABLE:.0f} % of it may be used")
    about.add_row("precision", f"{precision} ({'bf16' if card.bf16 else 'no bf16'} in hardware)")
    about.add_row("peak rate", f"{card.peak_tflops(precision):g} TFLOP/s ({escape(card.source)})")
    about.add_row("network", f"{rows[0].parameters / 1e6:.2f} M parameters")
    console.print(about)
    table = Table(
        "checkpointing", f"GB at batch {config.data.batch_size}", "share", "largest batch", "GFLOP per batch",
        "s per batch at the peak rate", caption="GB of tensors, without the memory of the driver and of cuDNN",
    )  # fmt: skip
    for row in rows:
        table.add_row(
            {None: "no option", True: "yes", False: "no"}[row.checkpointing], f"{row.predicted_peak_bytes / 1e9:.2f}",
            f"{100 * row.predicted_peak_bytes / card.memory_bytes:.0f} %", str(row.largest_batch),
            f"{row.flop / 1e9:.1f}", f"{row.least_batch_seconds:.2g}",
        )  # fmt: skip
    console.print(table)
    for note in measuring_notes(config.trainer):
        console.print(f"note: {note}")
    own = next(row for row in rows if row.checkpointing == getattr(config.model, "checkpointing", None))
    if own.largest_batch < own.batch:
        advice = f"data.batch_size={own.largest_batch}" if own.largest_batch else "a smaller data.patch_size"
        if any(row.checkpointing and row.largest_batch >= row.batch for row in rows):
            advice = "model.checkpointing=true"
        console.print(
            f"[bold red]will not fit: {gigabytes(own.predicted_peak_bytes)} of {card.memory_gib} GiB "
            f"({100 * USABLE:.0f} % may be used); try {advice}[/bold red]"
        )
