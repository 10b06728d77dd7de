"""Measure a short training with the run's own trainer and data, in a temporary folder."""

import dataclasses
import math
import re
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

from cytovox.errors import InputError
from experiments.planning.duration import FitTimes
from experiments.planning.machine import one_device
from lightning_modules.optim import require_validation
from training.fit_metrics import PeakMemory
from training.metrics_log import MetricsCSV
from training.rundir import RunFolder
from training.trainer import TrainerConfig, build_trainer

#: Batches of the first short fit. Their duration decides how many batches are measured.
PROBE = 3
#: Target duration of the measured batches in seconds, and the least number of batches in each of two epochs.
AIM_S, LEAST = 10.0, 13
#: Longest duration of the measured batches in seconds; of long batches fewer than `LEAST` are measured.
PATIENCE_S = 90.0
#: First batches of a fit that are not counted: kernels are selected and the queues of the loaders are filled.
SKIP = 3
#: Longest step that is counted, in medians: one interruption of the machine must not dominate the mean.
HICCUP = 3.0


class Clock(pl.Callback):
    """Record the times at which epochs, batches and validations start and end."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self.batches: list[list[float]] = []
        self.validations: list[tuple[float, float]] = []
        self.ended = 0.0
        self._validation_begun = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the start of an epoch."""
        self.epochs.append(_now(pl_module))
        self.batches.append([])

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any) -> None:
        """Record the end of a batch."""
        self.batches[-1].append(_now(pl_module))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the start of a validation."""
        self._validation_begun = _now(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the end of a validation, before checkpoints are written."""
        self.validations.append((self._validation_begun, _now(pl_module)))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the end of the fit, after the last checkpoint."""
        self.ended = _now(pl_module)


def _now(module: pl.LightningModule) -> float:
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    return time.perf_counter()


@dataclass(frozen=True)
class Shortened:
    """Data of a task, and the functions that shorten its training."""

    data: pl.LightningDataModule
    """Data module with one case per split."""
    cut: Callable[[int], None]
    """Function that sets the number of batches in an epoch."""
    monitor: str
    """Validation metric."""
    validation_seconds: Callable[[float], float] | None
    """Function that estimates the duration of a validation from that of a batch; None without validation data."""


@dataclass(frozen=True)
class Measured:
    """Result of a short fit."""

    times: FitTimes
    steps: list[float]
    """Seconds of each counted batch."""
    memory: PeakMemory
    gpu_step_bytes: int
    """GPU memory that torch reserved for training steps alone, without a validation."""
    start_bytes: int
    """Main memory of the process before the training."""


def short_config(trainer: TrainerConfig, epochs: int, validate_every: int | None) -> TrainerConfig:
    """Return the run's config for a few epochs on one device; with `validate_every` None, without validation."""
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
    """Train, and return the recorded times, the peak memory, and when the call of the fit started and ended."""
    short.cut(batches)
    module.validated = validate_every is not None  # type: ignore[assignment]
    clock, loggers = Clock(), [MetricsCSV(folder.path / "metrics.csv")]
    config = short_config(trainer, epochs, validate_every)
    lightning = build_trainer(config, folder, loggers, short.monitor, dry_run=False, extra=[clock])  # type: ignore[arg-type]
    memory = next(callback for callback in lightning.callbacks if isinstance(callback, PeakMemory))  # type: ignore[attr-defined]
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
        lightning.fit(module, datamodule=short.data)
    if lightning.interrupted:
        raise KeyboardInterrupt
    return clock, memory, begun, time.perf_counter()


def measuring_notes(trainer: TrainerConfig) -> list[str]:
    """Return the differences between the measured training and that of the run, one line each."""
    note = (
        "trainer.compile: the plan is of the network without torch.compile; compiling takes the run a minute or more "
        "at its start, and its steps may take other time and memory than planned"
    )
    return [note] if trainer.compile else []


def affordable(batch_seconds: float, accumulate: int = 1) -> int:
    """Return the batches to measure in each of two epochs: about 10 s in all, at least 13, fewer if they are long."""
    wanted = min(100, max(LEAST, math.ceil(AIM_S / 2 / max(batch_seconds, 1e-6))))
    if 2 * wanted * batch_seconds > PATIENCE_S:
        wanted = max(2, int(PATIENCE_S / 2 / batch_seconds))
    return math.ceil(wanted / accumulate) * accumulate


def measure_fit(
    build: Callable[[], pl.LightningModule], short: Shortened, trainer: TrainerConfig, folder: RunFolder
) -> Measured:
    """Measure time and memory of the training in two short epochs with a validation each.

    Parameters
    ----------
    build : callable
        Function that builds a new module.
    short : Shortened
        Data of the task; its data module is changed.
    trainer : TrainerConfig
        Config of the run's trainer.
    folder : RunFolder
        Temporary folder for checkpoints and metrics.
    """
    guess = short.validation_seconds
    validated = guess is not None and trainer.limit_val_batches != 0
    module = build()
    if not validated and hasattr(module, "validated"):  # the run itself makes the same check
        schedule = getattr(getattr(module, "optimizer_config", None), "schedule", None)
        require_validation(schedule, trainer.early_stopping is not None)
    probe, first, _, _ = fit_shortly(module, short, trainer, folder, PROBE)
    rough = probe.batches[0][-1] - probe.batches[0][-2]
    batches = affordable(rough, trainer.accumulate_grad_batches)
    # one long validation is enough: its warm-up is negligible
    twice = guess is not None and guess(rough) < AIM_S
    every = (1 if twice else 2) if validated else None
    clock, memory, begun, back = fit_shortly(build(), short, trainer, folder, batches, epochs=2, validate_every=every)
    return Measured(*_read(clock, begun, back), memory, first.gpu_reserved_bytes, first.watch.start_bytes)


def _read(clock: Clock, begun: float, back: float) -> tuple[FitTimes, list[float]]:
    first, second = clock.batches
    early = list(np.diff(first))[min(SKIP, len(first)) - 1 :]
    steps = [float(step) for step in early + list(np.diff(second))] or [second[-1] - clock.epochs[1]]
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
    """Return whether torch, Python or a loader process reports that the memory is full."""
    words = "not enough memory|can't allocate memory|cannot allocate memory|out of memory|killed by signal"
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and re.search(words, str(error).lower()) is not None
    )


@contextmanager
def explain_memory_error(message: Callable[[], str]) -> Iterator[None]:
    """Replace the error of a full memory by one line.

    Raises
    ------
    InputError
        The text that `message` returns.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(message()) from error
