"""Measure a training by training a little: the real trainer, the real data, a folder that is thrown away."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger

from cytovox.errors import InputError
from experiments.planning.duration import FitTimes
from experiments.planning.machine import one_device
from lightning_modules.optim import require_validation
from training.fit_metrics import PeakMemory
from training.metrics_log import MetricsCSV
from training.rundir import RunFolder
from training.trainer import TrainerConfig, build_trainer

#: Batches of the first look, which tells how many can be afforded.
PROBE = 3
#: Seconds that the measured batches may take, and the least number of them in each of two epochs.
AIM_S, LEAST = 10.0, 13
#: Seconds beyond which fewer than that are measured: a batch of half a minute needs no twenty repeats.
PATIENCE_S = 90.0
#: First batches of a fit that do not count: kernels are chosen and the loaders' queues filled.
SKIP = 3
#: A step counts at most so many medians: one hiccup of the machine is not a twentieth of the run.
HICCUP = 3.0


class Clock(pl.Callback):
    """When epochs, batches and validations began and ended."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self.batches: list[list[float]] = []
        self.validations: list[tuple[float, float]] = []
        self.ended = 0.0
        self._validation_begun = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """An epoch."""
        self.epochs.append(_now(pl_module))
        self.batches.append([])

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any) -> None:
        """A batch."""
        self.batches[-1].append(_now(pl_module))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A validation."""
        self._validation_begun = _now(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Its end, before checkpoints are written."""
        self.validations.append((self._validation_begun, _now(pl_module)))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After the last checkpoint."""
        self.ended = _now(pl_module)


def _now(module: pl.LightningModule) -> float:
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    return time.perf_counter()


@dataclass(frozen=True)
class Shortened:
    """A task's data, and how its training is cut short."""

    data: pl.LightningDataModule
    """With one case a split."""
    cut: Callable[[int], None]
    """Makes an epoch so many batches long."""
    monitor: str
    """Validation metric."""
    validation_seconds: Callable[[float], float] | None
    """A guess of how long a validation takes, by the seconds of a batch; None where there is nothing to validate."""


@dataclass(frozen=True)
class Measured:
    """What a short fit showed."""

    times: FitTimes
    steps: list[float]
    """Seconds of each batch that counted."""
    memory: PeakMemory
    gpu_step_bytes: int
    """What torch kept on the GPU for training steps alone, without a validation."""
    start_bytes: int
    """Main memory of the process before it trained at all."""


def short_config(trainer: TrainerConfig, epochs: int, validate_every: int | None) -> TrainerConfig:
    """The config of the run, cut to some epochs on one device; `validate_every` None leaves out the validation."""
    ema = None if trainer.ema is None else dataclasses.replace(trainer.ema, update_starting_at_step=0)
    return dataclasses.replace(
        trainer, max_epochs=epochs, min_epochs=None, max_steps=-1, max_time=None, devices=one_device(trainer),
        num_nodes=1, strategy="auto", check_val_every_n_epoch=validate_every or 1, num_sanity_val_steps=0,
        limit_train_batches=None, limit_val_batches=0 if validate_every is None else 1, limit_test_batches=1,
        enable_progress_bar=False, ema=ema, early_stopping=None, global_batch=None, save_every_minutes=None,
    )  # fmt: skip


def fit_shortly(
    module: pl.LightningModule,
    short: Shortened,
    trainer: TrainerConfig,
    folder: RunFolder,
    batches: int,
    epochs: int = 1,
    validate_every: int | None = None,
) -> tuple[Clock, PeakMemory, float, float]:
    """Train, and tell when what happened; the last two numbers are when the fit was called and when it came back."""
    short.cut(batches)
    module.validated = validate_every is not None  # type: ignore[assignment]
    clock = Clock()
    loggers: list[Logger] = [MetricsCSV(folder.path / "metrics.csv")]
    config = short_config(trainer, epochs, validate_every)
    lightning = build_trainer(config, folder, loggers, short.monitor, dry_run=False, extra=[clock])
    memory = next(callback for callback in lightning.callbacks if isinstance(callback, PeakMemory))  # type: ignore[attr-defined]
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
        lightning.fit(module, datamodule=short.data)
    if lightning.interrupted:
        raise KeyboardInterrupt
    return clock, memory, begun, time.perf_counter()


def measuring_notes(trainer: TrainerConfig) -> list[str]:
    """Return in what the planned training differs from the run's, one line each."""
    if not trainer.compile:
        return []
    return [
        "trainer.compile: the plan is of the network without torch.compile; compiling takes the run a minute or more "
        "at its start, and its steps may take other time and memory than planned"
    ]


def affordable(batch_seconds: float, accumulate: int = 1) -> int:
    """Batches of each of the two epochs that are measured: about 10 s of them, at least 13, fewer of very long ones."""
    wanted = min(100, max(LEAST, math.ceil(AIM_S / 2 / max(batch_seconds, 1e-6))))
    if 2 * wanted * batch_seconds > PATIENCE_S:
        wanted = max(2, int(PATIENCE_S / 2 / batch_seconds))
    return math.ceil(wanted / accumulate) * accumulate


def measure_fit(
    build: Callable[[], pl.LightningModule], short: Shortened, trainer: TrainerConfig, folder: RunFolder
) -> Measured:
    """Seconds and memory of the training, from two short epochs with a validation each.

    Parameters
    ----------
    build : callable
        Makes a new module.
    short : Shortened
        Its data module is changed.
    trainer : TrainerConfig
        The run's.
    folder : RunFolder
        For checkpoints and metrics, to be thrown away.
    """
    guess = short.validation_seconds
    validated = guess is not None and trainer.limit_val_batches != 0
    module = build()
    if not validated and hasattr(module, "validated"):  # as the run itself would refuse
        schedule = getattr(getattr(module, "optimizer_config", None), "schedule", None)
        require_validation(schedule, trainer.early_stopping is not None)
    probe, first, _, _ = fit_shortly(module, short, trainer, folder, PROBE)
    rough = probe.batches[0][-1] - probe.batches[0][-2]
    batches = affordable(rough, trainer.accumulate_grad_batches)
    # of a long validation one is enough: it has no first time worth leaving out
    twice = guess is not None and guess(rough) < AIM_S
    every = (1 if twice else 2) if validated else None
    clock, memory, begun, back = fit_shortly(build(), short, trainer, folder, batches, epochs=2, validate_every=every)
    return Measured(*_read(clock, begun, back), memory, first.gpu_reserved_bytes, first.watch.start_bytes)


def _read(clock: Clock, begun: float, back: float) -> tuple[FitTimes, list[float]]:
    first, second = clock.batches
    early = list(np.diff(first))[min(SKIP, len(first)) - 1 :]
    steps = [float(step) for step in early + list(np.diff(second))]
    steps = steps or [second[-1] - clock.epochs[1]]
    typical = statistics.median(steps)
    batch = statistics.mean(min(step, HICCUP * typical) for step in steps)
    volume = clock.validations[-1][1] - clock.validations[-1][0] if clock.validations else 0.0
    times = FitTimes(
        batch=batch,
        startup=max(0.0, first[0] - begun - batch) + back - clock.ended,
        epoch_start=max(0.0, second[0] - clock.epochs[1] - batch),
        volume=volume,
        checkpoint=max(0.0, clock.ended - second[-1] - volume),
    )
    return times, steps


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, Python or a loader process says that the memory is full."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = (
        "not enough memory",
        "can't allocate memory",
        "cannot allocate memory",
        "out of memory",
        "killed by signal",
    )
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


@contextmanager
def explain_memory_error(say: Callable[[], str]) -> Iterator[None]:
    """Answer a full memory in one line.

    Raises
    ------
    InputError
        What `say` says.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(say()) from error
