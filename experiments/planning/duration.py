"""How long a run takes, from what a step takes: steps, epochs, and which limit ends it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.trainer import TrainerConfig, batches_per_step, parse_time


@dataclass(frozen=True)
class EpochPlan:
    """What one rank does in an epoch."""

    batches: int
    """Batches that a rank trains on."""
    steps: int
    """Optimiser steps; each takes `accumulate_grad_batches` batches, the last one of an epoch what is left."""
    global_batch: int
    """Samples a step, over all ranks."""
    volumes: int
    """Validation volumes (or cells) of a rank, in an epoch that is validated."""


@dataclass(frozen=True)
class FitTimes:
    """What was measured, in seconds."""

    batch: float
    """A training batch with everything around it: waiting for data, optimiser, average, clipping, logging."""
    startup: float = 0.0
    """Until the first epoch goes at full speed, and after the last."""
    epoch_start: float = 0.0
    """What the first batch of a later epoch takes longer."""
    volume: float = 0.0
    """A validation volume."""
    checkpoint: float = 0.0
    """Both checkpoints of an epoch, the best and the last."""


@dataclass(frozen=True)
class RunPlan:
    """The whole fit."""

    epochs: float
    """Not whole where steps or time end it within one."""
    steps: int
    """Optimiser steps."""
    epoch_seconds: float
    """One epoch with its validation, its share where not every epoch has one."""
    seconds: float
    """inf where nothing ends it."""
    ends_by: str
    """Key of `trainer:` that ends it."""
    at_most: bool
    """Early stopping may end it before."""


def plan_epoch(samples: int, batch_size: int, trainer: TrainerConfig, ranks: int, volumes: int) -> EpochPlan:
    """Lengths of an epoch on each of so many ranks.

    Parameters
    ----------
    samples : int
        Patches or cells of an epoch, over all ranks.
    batch_size : int
        Of a rank.
    trainer : TrainerConfig
        Its limits and accumulation.
    ranks : int
        Devices over all machines.
    volumes : int
        Validation volumes over all ranks.
    """
    together = ranks * batch_size
    # as the sampler cuts it: no rank may wait for another
    batches = max(1, samples // together)
    batches = limited(batches, trainer.limit_train_batches)
    each = batches_per_step(trainer, batch_size, ranks)
    return EpochPlan(
        batches=batches,
        steps=math.ceil(batches / each),
        global_batch=together * each,
        volumes=limited(math.ceil(volumes / ranks), trainer.limit_val_batches),
    )


def limited(count: int, limit: int | float | None) -> int:
    """Lightning's `limit_*_batches`: a whole number is a count, a broken one a part."""
    if limit is None:
        return count
    return min(count, limit) if isinstance(limit, int) else int(count * limit)


def plan_run(epoch: EpochPlan, times: FitTimes, trainer: TrainerConfig) -> RunPlan:
    """The run's length: by epochs, steps or time, whichever ends first."""
    training = times.epoch_start + epoch.batches * times.batch + times.checkpoint
    validation = epoch.volumes * times.volume
    every = trainer.check_val_every_n_epoch
    per_epoch = training + validation / every

    limits = {"max_epochs": math.inf, "max_steps": math.inf}
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        limits["max_epochs"] = float(trainer.max_epochs)
    if trainer.max_steps >= 0 and epoch.steps:
        limits["max_steps"] = trainer.max_steps / epoch.steps
    ends_by = min(limits, key=lambda key: limits[key])
    epochs = limits[ends_by]

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
