"""From a typed config to the objects of a run, by its task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from cytovox.models.metadata import CheckpointMetadata, Weights, read_checkpoint
from experiments.schema import Config
from experiments.tasks import task_of
from experiments.tasks.base import Progress
from experiments.weights import weights_path
from lightning_modules.seen import begun_from, seen_by_all
from training.rundir import RunFolder
from training.wandb_log import wandb_logger

#: The splits that each stage needs.
NEEDED = {"fit": ("train", "val"), "test": ("test",)}


def build_data(
    config: Config, progress: Progress | None = None, dry_run: bool = False, stages: Sequence[str] = ("fit", "test")
) -> Any:
    """The data module of the task, for these stages; a dry run takes one case of each split."""
    splits = [split for stage, found in NEEDED.items() if stage in stages for split in found]
    return task_of(config).data(config, progress, 1 if dry_run else None, splits)


def metadata_of(config: Config) -> CheckpointMetadata:
    """What the checkpoints of this run will say of themselves."""
    return task_of(config).metadata(config)


def build_for_training(config: Config, start: bool = True) -> pl.LightningModule:
    """A new network; with `start`, one that begins with the weights of `init_from` if there are any."""
    weights = None
    if start and config.init_from is not None:
        weights = read_checkpoint(weights_path(config.init_from, "init_from"), config.task, "init_from")
    module: Any = task_of(config).for_training(config, weights)
    module.metadata = begun_from(module.metadata, None if weights is None else weights.metadata)
    return module


def build_from_weights(config: Config, ensemble: Sequence[Weights]) -> pl.LightningModule:
    """The networks that checkpoints hold, with what surrounded them in training.

    Raises
    ------
    InputError
        A network cannot be built here, or the checkpoints do not belong together.
    """
    module: Any = task_of(config).from_weights(config, ensemble)
    module.metadata = seen_by_all(module.metadata, [weights.metadata for weights in ensemble])
    return module


def build_loggers(
    config: Config, folder: RunFolder, tree: dict[str, Any], csv: Logger | None, dry_run: bool
) -> list[Logger]:
    """`metrics.csv` where there is training to follow, and W&B unless it is disabled or this is a dry run."""
    wandb = None if dry_run else wandb_logger(config.logging, folder, config.name, tree)
    return [logger for logger in (csv, wandb) if logger is not None]
