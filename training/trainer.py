"""Lightning's trainer out of a config: its own names, its own callbacks."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping, LearningRateMonitor
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from cytovox.errors import InputError
from cytovox.inference.device import choose_precision
from training.checkpoint_io import AtomicCheckpointIO, FolderCheckpoint
from training.compiled import CompiledNetwork
from training.device import cpu_mixed_precision
from training.divergence import DivergenceCheck
from training.ema import ema_callback
from training.memory import PeakMemory
from training.preemption import Preemption, take_signals_from
from training.progress_bar import progress_bar
from training.rundir import RunFolder
from training.slurm import step_size
from training.step_timer import StepTimer


@dataclass
class EMA:
    """Average of the weights over the steps; validated, tested and shipped instead of the last ones."""

    decay: float = 0.999
    """Weight of the past at each update."""
    update_every_n_steps: int = 1
    """Steps between updates."""
    update_starting_at_step: int = 0
    """First step that counts."""
    warmup: bool = False
    """Begin with a short memory that grows with the steps, so that a short run does not end with untrained weights."""


@dataclass
class EarlyStop:
    """Stop when the validation metric has not improved."""

    patience: int = 60
    """Validations without improvement."""
    min_delta: float = 0.0
    """What counts as one."""


@dataclass
class TrainerConfig:
    """`trainer:` in a config. Names are Lightning's, except `precision: auto`, `ema` and `early_stopping`."""

    max_epochs: int | None = 300
    """Epochs; an epoch is `data.patches_per_epoch` patches."""
    min_epochs: int | None = None
    """Epochs before early stopping may act."""
    max_steps: int = -1
    """Optimiser steps; -1 for no limit."""
    max_time: str | None = None
    """Wall-clock limit DD:HH:MM:SS."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """Which kind of device."""
    devices: int | str | None = "auto"
    """How many, or which ("0,2"). In a step of SLURM, its tasks."""
    num_nodes: int = 1
    """Machines. In a step of SLURM, its nodes."""
    strategy: str = "auto"
    """Such as ddp or ddp_find_unused_parameters_false."""
    precision: str = "auto"
    """bf16-mixed where the device has it, 16-mixed on older GPUs, else 32-true; or one of Lightning's words."""
    accumulate_grad_batches: int = 1
    """Batches a step."""
    global_batch: int | None = None
    """Samples a step over all ranks: `accumulate_grad_batches` follows from it, whatever the number of GPUs."""
    gradient_clip_val: float | None = None
    """Largest gradient norm."""
    check_val_every_n_epoch: int = 1
    """Epochs between validations."""
    num_sanity_val_steps: int = 0
    """Validation batches before training."""
    log_every_n_steps: int = 10
    """Steps between rows of metrics.csv."""
    limit_train_batches: int | float | None = None
    """Batches of an epoch (a whole number), or a part of them."""
    limit_val_batches: int | float | None = None
    """The same for validation."""
    limit_test_batches: int | float | None = None
    """The same for the test."""
    deterministic: bool = False
    """Refuse operations that are not deterministic."""
    benchmark: bool | None = None
    """cuDNN autotuning."""
    compile: bool = False
    """torch.compile the network while it trains (not while it validates): a minute or more at the start, then fewer and
    larger kernels."""
    detect_anomaly: bool = False
    """Name the operation that made a NaN. Slow."""
    sync_batchnorm: bool = False
    """Batch statistics over all ranks."""
    enable_progress_bar: bool = True
    """Bars on the terminal."""
    save_every_minutes: float | None = None
    """Save `last.ckpt` as often within an epoch, too; null: at the end of each, and when the run is asked to stop."""
    ema: EMA | None = None
    """Averaged weights; null for none."""
    early_stopping: EarlyStop | None = None
    """Null for none."""


def trainer_errors(config: TrainerConfig) -> list[str]:
    """What cannot work in these numbers, one line each, beginning with the key."""
    errors = []
    if config.max_epochs is None and config.max_steps == -1 and config.max_time is None:
        errors.append("max_epochs: no limit at all; set max_epochs, max_steps or max_time")
    if config.max_time is not None and parse_time(config.max_time) is None:
        errors.append(f"max_time: expected DD:HH:MM:SS such as 00:01:30:00, got {config.max_time!r}")
    for key in ("num_nodes", "accumulate_grad_batches", "check_val_every_n_epoch", "log_every_n_steps"):
        if getattr(config, key) < 1:
            errors.append(f"{key}: expected 1 or more, got {getattr(config, key)}")
    if config.max_steps < -1 or (config.max_epochs is not None and config.max_epochs < -1):
        errors.append("max_steps, max_epochs: expected -1 (no limit), 0 or more")
    if config.global_batch is not None and config.global_batch < 1:
        errors.append(f"global_batch: expected 1 or more, or null, got {config.global_batch}")
    if config.global_batch is not None and config.accumulate_grad_batches != 1:
        errors.append("accumulate_grad_batches: follows from global_batch; leave one of them out")
    if config.save_every_minutes is not None and not config.save_every_minutes > 0:
        errors.append(f"save_every_minutes: expected a number above 0, or null, got {config.save_every_minutes}")
    if config.gradient_clip_val is not None and not config.gradient_clip_val > 0:
        errors.append(f"gradient_clip_val: expected a number above 0, or null, got {config.gradient_clip_val}")
    words = ("auto", "16-mixed", "bf16-mixed", "32-true", "32")
    if config.precision not in words:
        errors.append(f"precision: expected one of {', '.join(words)}, got {config.precision!r}")
    if config.ema is not None:
        if not 0 < config.ema.decay < 1:
            errors.append(f"ema.decay: expected a number between 0 and 1, got {config.ema.decay}")
        if config.ema.update_every_n_steps < 1:
            errors.append(f"ema.update_every_n_steps: expected 1 or more, got {config.ema.update_every_n_steps}")
    if config.early_stopping is not None and config.early_stopping.patience < 1:
        errors.append(f"early_stopping.patience: expected 1 or more, got {config.early_stopping.patience}")
    return errors


def parse_time(text: str) -> dt.timedelta | None:
    """DD:HH:MM:SS as a duration, or None where it is not one."""
    parts = text.split(":")
    if len(parts) != 4 or not all(p.isdigit() for p in parts):
        return None
    days, hours, minutes, seconds = map(int, parts)
    return dt.timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def build_trainer(
    config: TrainerConfig,
    folder: RunFolder,
    loggers: list[Logger],
    monitor: str,
    dry_run: bool,
    extra: list[Callback] | None = None,
    batch_size: int = 1,
) -> pl.Trainer:
    """The trainer of every stage of a run.

    Parameters
    ----------
    config : TrainerConfig
        From the YAML.
    folder : RunFolder
        Where checkpoints go.
    loggers : list of Logger
        Where metrics go.
    monitor : str
        Validation metric, larger is better, that picks `best.ckpt`.
    dry_run : bool
        One step of every stage.
    extra : list of Callback, optional
        Callbacks of the run.
    batch_size : int
        Samples a batch on each rank, for `global_batch`.

    Raises
    ------
    InputError
        What Lightning cannot do here: devices that are not there, an unknown strategy.
    """
    callbacks = [*_callbacks(config, folder, monitor), *(extra or [])]
    if loggers:
        callbacks.append(LearningRateMonitor(logging_interval="step"))
    try:
        trainer = _trainer(config, folder, loggers, callbacks, dry_run)
        if not dry_run:
            trainer.accumulate_grad_batches = batches_a_step(config, batch_size, trainer.world_size)
        if any(isinstance(callback, Preemption) for callback in callbacks):
            take_signals_from(trainer)
        return trainer
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise InputError(f"trainer: {' '.join(str(error).split())}") from error


def _trainer(
    config: TrainerConfig, folder: RunFolder, loggers: list[Logger], callbacks: list[Callback], dry_run: bool
) -> pl.Trainer:
    one = 1 if dry_run else None
    # in a job step the ranks are there already: no other number can work
    nodes, devices = step_size() or (config.num_nodes, _devices(config))
    precision = choose_precision(config.precision, config.accelerator)
    plugin = cpu_mixed_precision(precision, config.accelerator)
    return pl.Trainer(
        accelerator=config.accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=config.strategy,
        precision=precision if plugin is None else None,  # type: ignore[arg-type]
        max_epochs=1 if dry_run else config.max_epochs,
        min_epochs=None if dry_run else config.min_epochs,
        max_steps=1 if dry_run else config.max_steps,
        max_time=None if dry_run else config.max_time,
        accumulate_grad_batches=1 if dry_run else config.accumulate_grad_batches,
        gradient_clip_val=config.gradient_clip_val,
        check_val_every_n_epoch=1 if dry_run else config.check_val_every_n_epoch,
        num_sanity_val_steps=config.num_sanity_val_steps,
        log_every_n_steps=1 if dry_run else config.log_every_n_steps,
        limit_train_batches=one or config.limit_train_batches,
        limit_val_batches=one or config.limit_val_batches,
        limit_test_batches=one or config.limit_test_batches,
        limit_predict_batches=one,
        deterministic=config.deterministic,
        benchmark=config.benchmark,
        detect_anomaly=config.detect_anomaly,
        sync_batchnorm=config.sync_batchnorm,
        enable_progress_bar=config.enable_progress_bar,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder.path,
        logger=loggers or False,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(), *([plugin] if plugin is not None else [])],
    )


def batches_a_step(config: TrainerConfig, batch_size: int, world: int) -> int:
    """Batches that each rank takes before an optimiser step.

    Raises
    ------
    InputError
        `global_batch` is no multiple of what the ranks see at once.
    """
    if config.global_batch is None:
        return config.accumulate_grad_batches
    batches, rest = divmod(config.global_batch, batch_size * world)
    if rest or not batches:
        raise InputError(
            f"trainer.global_batch: expected a multiple of {batch_size * world} ({batch_size} samples a batch on "
            f"{world} ranks), got {config.global_batch}; change it, data.batch_size or the number of devices"
        )
    return batches


def require_divisible(config: TrainerConfig, batch_size: int) -> None:
    """Refuse a `global_batch` that the ranks cannot share, before there is a trainer.

    Parameters
    ----------
    config : TrainerConfig
        The run's. Where `devices` is no whole number of devices, only the trainer knows the ranks.
    batch_size : int
        Samples a batch on each rank.

    Raises
    ------
    InputError
        As `batches_a_step`; the ranks are those of the job step, else `devices` times `num_nodes`.
    """
    if (step := step_size()) is not None:
        batches_a_step(config, batch_size, step[0] * step[1])
    elif isinstance(config.devices, int) and config.devices > 0:
        batches_a_step(config, batch_size, config.devices * config.num_nodes)


def _devices(config: TrainerConfig) -> Any:
    """`auto` on a CPU is one process: Lightning's own reading."""
    return "auto" if config.devices is None else config.devices


def _callbacks(config: TrainerConfig, folder: RunFolder, monitor: str) -> list[Callback]:
    callbacks: list[Callback] = [
        FolderCheckpoint(
            dirpath=folder.checkpoints, filename="best", monitor=monitor, mode="max", save_top_k=1,
            enable_version_counter=False, auto_insert_metric_name=False,
        ),
        # after every epoch, whether or not it is the best: Lightning's save_last repeats the best one only
        FolderCheckpoint(
            dirpath=folder.checkpoints, filename="last", save_top_k=1, save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
        PeakMemory(),
        StepTimer(),
    ]  # fmt: skip
    if config.enable_progress_bar:
        callbacks.append(progress_bar())
    if config.compile:
        callbacks.append(CompiledNetwork())
    if config.ema is not None:
        callbacks.append(ema_callback(config.ema))
    callbacks.append(DivergenceCheck(folder.last_checkpoint))  # after the average, whose weights it checks, too
    if config.early_stopping is not None:
        stop = config.early_stopping
        # not strict: a run of fewer steps than an epoch ends before its first validation
        callbacks.append(
            EarlyStopping(monitor, mode="max", patience=stop.patience, min_delta=stop.min_delta, strict=False)
        )
    return callbacks


def checkpoint_path(folder: RunFolder) -> Path | None:
    """What a resumed fit goes on from."""
    return folder.last_checkpoint if folder.last_checkpoint.is_file() else None
