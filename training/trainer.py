"""Lightning's trainer, built from the group `trainer:` of a config."""

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, LearningRateMonitor
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from cytovox.errors import InputError
from cytovox.inference.device import choose_precision, uses_cuda
from training.checkpoint_io import AtomicCheckpointIO, FolderCheckpoint
from training.compiled import CompiledNetwork
from training.divergence import DivergenceCheck
from training.ema import ema_callback
from training.fit_metrics import PeakMemory, StepTimer
from training.preemption import Preemption, take_signals_from
from training.progress_bar import progress_bar
from training.rundir import RunFolder
from training.slurm import step_size

#: Values of `trainer.precision`.
PRECISIONS = ("auto", "16-mixed", "bf16-mixed", "32-true", "32")


@dataclass
class EMA:
    """Exponential moving average of the weights, used in validation, test and export instead of the last weights."""

    decay: float = 0.999
    """Weight of the past at each update."""
    update_every_n_steps: int = 1
    """Steps between updates."""
    update_starting_at_step: int = 0
    """First step with an update."""
    warmup: bool = False
    """Start with a small decay that grows with the steps, so that untrained weights do not dominate a short run."""


@dataclass
class EarlyStop:
    """Stop when the validation metric has not improved."""

    patience: int = 60
    """Validations without improvement."""
    min_delta: float = 0.0
    """Smallest change that counts as an improvement."""


@dataclass
class TrainerConfig:
    """`trainer:` in a config. Names are Lightning's, except `precision: auto`, `ema` and `early_stopping`."""

    max_epochs: int | None = 300
    """Epochs; an epoch is `data.patches_per_epoch` patches."""
    min_epochs: int | None = None
    """Epochs before early stopping may end the training."""
    max_steps: int = -1
    """Optimiser steps; -1 for no limit."""
    max_time: str | None = None
    """Wall-clock limit DD:HH:MM:SS."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """Kind of device."""
    devices: int | str | None = "auto"
    """Number of devices per machine, or their indices ("0,2", or "1," for one). In a SLURM job step: its number of
    tasks per node."""
    num_nodes: int = 1
    """Number of machines. In a SLURM job step: its number of nodes."""
    strategy: str = "auto"
    """Lightning's strategy, such as ddp or ddp_find_unused_parameters_false."""
    precision: str = "auto"
    """auto: bf16-mixed if the device supports it, 16-mixed on older GPUs, else 32-true. Or one of Lightning's values:
    16-mixed, bf16-mixed, 32-true, 32."""
    accumulate_grad_batches: int = 1
    """Batches per optimiser step."""
    global_batch: int | None = None
    """Samples per optimiser step over all ranks; `accumulate_grad_batches` is computed from it."""
    gradient_clip_val: float | None = None
    """Largest gradient norm."""
    check_val_every_n_epoch: int = 1
    """Epochs between validations."""
    num_sanity_val_steps: int = 0
    """Validation batches before training."""
    log_every_n_steps: int = 10
    """Steps between rows of metrics.csv."""
    limit_train_batches: int | float | None = None
    """Number (integer) or fraction (float) of the training batches per epoch."""
    limit_val_batches: int | float | None = None
    """Number or fraction of the validation batches."""
    limit_test_batches: int | float | None = None
    """Number or fraction of the test batches."""
    deterministic: bool = False
    """Refuse operations that are not deterministic."""
    benchmark: bool | None = None
    """cuDNN autotuning."""
    compile: bool = False
    """torch.compile for the network in training steps (not in validation): takes a minute or more at the start, then
    runs fewer and larger kernels."""
    detect_anomaly: bool = False
    """Report the operation that produced a NaN. Slow."""
    sync_batchnorm: bool = False
    """Batch statistics over all ranks."""
    enable_progress_bar: bool = True
    """Progress bars."""
    save_every_minutes: float | None = None
    """Interval of additional saves of `last.ckpt` within an epoch. Null: it is saved at the end of each epoch, and when
    a signal stops the run."""
    ema: EMA | None = None
    """Average of the weights; null for none."""
    early_stopping: EarlyStop | None = None
    """Early stopping; null for none."""


#: Key, test of its value, and what is expected.
_RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    *((key, lambda value: value >= 1, "1 or more") for key in (
        "num_nodes", "accumulate_grad_batches", "check_val_every_n_epoch", "log_every_n_steps",
        "ema.update_every_n_steps", "early_stopping.patience",
    )),
    ("max_time", lambda value: value is None or parse_time(value) is not None, "DD:HH:MM:SS such as 00:01:30:00"),
    ("global_batch", lambda value: value is None or value >= 1, "1 or more, or null"),
    ("save_every_minutes", lambda value: value is None or value > 0, "a number above 0, or null"),
    ("gradient_clip_val", lambda value: value is None or value > 0, "a number above 0, or null"),
    ("precision", PRECISIONS.__contains__, f"one of {', '.join(PRECISIONS)}"),
    ("ema.decay", lambda value: 0 < value < 1, "a number between 0 and 1"),
)  # fmt: skip


def trainer_errors(config: TrainerConfig) -> list[str]:
    """Return the errors in the values of `trainer:`, one line each that starts with the key."""
    errors = []
    if config.max_epochs is None and config.max_steps == -1 and config.max_time is None:
        errors.append("max_epochs: no limit at all; set max_epochs, max_steps or max_time")
    if config.max_steps < -1 or (config.max_epochs is not None and config.max_epochs < -1):
        errors.append("max_steps, max_epochs: expected -1 (no limit), 0 or more")
    if config.global_batch is not None and config.accumulate_grad_batches != 1:
        errors.append("accumulate_grad_batches: follows from global_batch; leave one of them out")
    for path, is_valid, expected in _RULES:
        group, _, key = path.rpartition(".")
        values = getattr(config, group) if group else config
        if values is not None and not is_valid(value := getattr(values, key)):
            errors.append(f"{path}: expected {expected}, got {value!r}")
    return errors


def parse_time(text: str) -> dt.timedelta | None:
    """Return DD:HH:MM:SS as a duration; None if the text has another form."""
    if not re.fullmatch(r"\d+(:\d+){3}", text):
        return None
    days, hours, minutes, seconds = map(int, text.split(":"))
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
    """Return the trainer for all stages of a run.

    Parameters
    ----------
    config : TrainerConfig
        Group `trainer:` of the config.
    folder : RunFolder
        Run folder, for the checkpoints.
    loggers : list of Logger
        Loggers of the metrics.
    monitor : str
        Validation metric, larger is better, by which `best.ckpt` is chosen.
    dry_run : bool
        Do one step of every stage.
    extra : list of Callback, optional
        Further callbacks.
    batch_size : int
        Samples per batch on each rank, for `global_batch`.

    Raises
    ------
    InputError
        Lightning refuses the config: devices that do not exist, an unknown strategy.
    """
    callbacks = [*_callbacks(config, folder, monitor), *(extra or [])]
    if loggers:
        callbacks.append(LearningRateMonitor(logging_interval="step"))
    try:
        trainer = _trainer(config, folder, loggers, callbacks, dry_run)
        if not dry_run:
            trainer.accumulate_grad_batches = batches_per_step(config, batch_size, trainer.world_size)
        if any(isinstance(callback, Preemption) for callback in callbacks):
            take_signals_from(trainer)
        return trainer
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise InputError(f"trainer: {' '.join(str(error).split())}") from error


def _trainer(
    config: TrainerConfig, folder: RunFolder, loggers: list[Logger], callbacks: list[Callback], dry_run: bool
) -> pl.Trainer:
    one = 1 if dry_run else None
    # a SLURM job step has a fixed number of ranks
    nodes, devices = step_size() or (config.num_nodes, "auto" if config.devices is None else config.devices)
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


def batches_per_step(config: TrainerConfig, batch_size: int, world: int) -> int:
    """Return the number of batches per optimiser step on each rank.

    Parameters
    ----------
    config : TrainerConfig
        Group `trainer:` of the config.
    batch_size : int
        Samples per batch on each rank.
    world : int
        Number of ranks.

    Raises
    ------
    InputError
        `global_batch` is not a multiple of the batches of all ranks.
    """
    if config.global_batch is None:
        return config.accumulate_grad_batches
    batches, rest = divmod(config.global_batch, batch_size * world)
    if rest or not batches:
        raise InputError(
            f"trainer.global_batch: expected a multiple of {batch_size * world} ({batch_size} samples per batch on "
            f"{world} ranks), got {config.global_batch}; change it, data.batch_size or the number of devices"
        )
    return batches


def require_divisible(config: TrainerConfig, batch_size: int) -> None:
    """Refuse a `global_batch` that cannot be divided among the ranks, before a trainer is built.

    The ranks are those of the SLURM job step, else `devices` times `num_nodes`.

    Parameters
    ----------
    config : TrainerConfig
        Group `trainer:` of the config. If `devices` is no positive integer, nothing is checked: only the trainer can
        count the ranks.
    batch_size : int
        Samples per batch on each rank.

    Raises
    ------
    InputError
        See `batches_per_step`.
    """
    if (step := step_size()) is not None:
        batches_per_step(config, batch_size, step[0] * step[1])
    elif isinstance(config.devices, int) and config.devices > 0:
        batches_per_step(config, batch_size, config.devices * config.num_nodes)


def cpu_mixed_precision(precision: str, accelerator: str) -> MixedPrecision | None:
    """Return the plugin for 16-mixed on a CPU, or None if Lightning's own choice for `precision` is right.

    Lightning replaces 16-mixed on a CPU by bf16-mixed with a warning. Torch can compute it there, slowly, and scales
    the gradients as on a GPU: a run that began on a V100 can be resumed or tested without a GPU.

    Parameters
    ----------
    precision : str
        Precision as returned by `choose_precision`.
    accelerator : str
        Value of `trainer.accelerator`.
    """
    other = uses_cuda(accelerator) or (accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available())
    if precision != "16-mixed" or other or accelerator not in ("auto", "cpu"):
        return None
    return MixedPrecision("16-mixed", "cpu")


def _callbacks(config: TrainerConfig, folder: RunFolder, monitor: str) -> list[Callback]:
    stop = config.early_stopping
    return [
        FolderCheckpoint(
            dirpath=folder.checkpoints, filename="best", monitor=monitor, mode="max", save_top_k=1,
            enable_version_counter=False, auto_insert_metric_name=False,
        ),
        # a callback of its own: Lightning's save_last saves only when the best checkpoint is saved
        FolderCheckpoint(
            dirpath=folder.checkpoints, filename="last", save_top_k=1, save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
        PeakMemory(),
        StepTimer(),
        *([progress_bar()] if config.enable_progress_bar else []),
        *([CompiledNetwork()] if config.compile else []),
        *([ema_callback(config.ema)] if config.ema is not None else []),
        DivergenceCheck(folder.last_checkpoint),  # after the average, which it checks, too
        # not strict: a run that is shorter than an epoch ends before its first validation
        *([EarlyStopping(monitor, min_delta=stop.min_delta, patience=stop.patience, mode="max", strict=False)]
          if stop is not None else []),
    ]  # fmt: skip


def checkpoint_path(folder: RunFolder) -> Path | None:
    """Return the checkpoint that a resumed training starts from, or None."""
    return folder.last_checkpoint if folder.last_checkpoint.is_file() else None
