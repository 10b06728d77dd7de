"""Compute the length of a fit from the time of a batch: steps, epochs, and the limit that ends it."""

import math
from dataclasses import dataclass

from training.trainer import TrainerConfig, batches_per_step, parse_time


@dataclass(frozen=True)
class EpochPlan:
    """Batches, steps and validation volumes of one rank in an epoch."""

    batches: int
    """Training batches."""
    steps: int
    """Optimiser steps. Each takes `accumulate_grad_batches` batches; the last one of an epoch may take fewer."""
    global_batch: int
    """Samples per step, over all ranks."""
    volumes: int
    """Validation volumes (or cells) in an epoch with a validation."""


@dataclass(frozen=True)
class FitTimes:
    """Measured times in seconds."""

    batch: float
    """Training batch: loading, forward, backward, optimiser, weight averaging, clipping and logging."""
    startup: float = 0.0
    """Time before the first epoch is at full speed, and after the last epoch."""
    epoch_start: float = 0.0
    """Additional time of the first batch of a later epoch."""
    volume: float = 0.0
    """Validation volume."""
    checkpoint: float = 0.0
    """Both checkpoints of an epoch, the best and the last."""


@dataclass(frozen=True)
class RunPlan:
    """Length of the whole fit."""

    epochs: float
    """Epochs; a fraction if steps or time end the fit within one."""
    steps: int
    """Optimiser steps."""
    epoch_seconds: float
    """Time of one epoch with its share of the validations."""
    seconds: float
    """Time of the fit; inf if nothing ends it."""
    ends_by: str
    """Key of `trainer:` that ends it."""
    at_most: bool
    """Whether early stopping may end it before."""


def plan_epoch(samples: int, batch_size: int, trainer: TrainerConfig, ranks: int, volumes: int) -> EpochPlan:
    """Return the length of an epoch on each rank.

    Parameters
    ----------
    samples : int
        Patches or cells in an epoch, over all ranks.
    batch_size : int
        Samples in a batch of one rank.
    trainer : TrainerConfig
        Limits and gradient accumulation.
    ranks : int
        Devices over all machines.
    volumes : int
        Validation volumes over all ranks.
    """
    together = ranks * batch_size
    # the sampler drops the remainder, so that no rank waits for another
    batches = limited(max(1, samples // together), trainer.limit_train_batches)
    each = batches_per_step(trainer, batch_size, ranks)
    return EpochPlan(
        batches=batches,
        steps=math.ceil(batches / each),
        global_batch=together * each,
        volumes=limited(math.ceil(volumes / ranks), trainer.limit_val_batches),
    )


def limited(count: int, limit: int | float | None) -> int:
    """Return a number of batches under Lightning's `limit_*_batches`: an int is a count, a float a fraction."""
    if limit is None:
        return count
    return min(count, limit) if isinstance(limit, int) else int(count * limit)


def plan_run(epoch: EpochPlan, times: FitTimes, trainer: TrainerConfig) -> RunPlan:
    """Return the length of the fit, ended by epochs, steps or time, whichever comes first."""
    training = times.epoch_start + epoch.batches * times.batch + times.checkpoint
    validation = epoch.volumes * times.volume
    every = trainer.check_val_every_n_epoch
    per_epoch = training + validation / every

    limits = {"max_epochs": math.inf, "max_steps": math.inf}
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        limits["max_epochs"] = float(trainer.max_epochs)
    if trainer.max_steps >= 0 and epoch.steps:
        limits["max_steps"] = trainer.max_steps / epoch.steps
    ends_by, epochs = min(limits.items(), key=lambda limit: limit[1])

    def seconds_of(epochs: float) -> float:
        if math.isinf(epochs):
            return math.inf
        whole = math.floor(epochs)
        begun = (epochs - whole) * epoch.batches * times.batch
        return times.startup + whole * training + whole // every * validation + begun

    seconds = seconds_of(epochs)
    limit = parse_time(trainer.max_time) if trainer.max_time is not None else None
    if limit is not None and seconds - times.startup > limit.total_seconds():
        done = limit.total_seconds() / per_epoch if per_epoch else 0.0
        epochs, ends_by = min(epochs, max(done, float(trainer.min_epochs or 0))), "max_time"
        seconds = max(times.startup + limit.total_seconds(), seconds_of(epochs) if trainer.min_epochs else 0.0)
    return RunPlan(
        epochs=epochs,
        steps=round(epochs * epoch.steps) if math.isfinite(epochs) else 0,
        epoch_seconds=per_epoch,
        seconds=seconds,
        ends_by=ends_by if math.isfinite(seconds) else "nothing",
        at_most=trainer.early_stopping is not None,
    )
