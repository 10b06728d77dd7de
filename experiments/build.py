"""Data and models of a training config, for scripts and tests; a run builds them itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl

from cytovox.models.metadata import CheckpointMetadata, Weights
from experiments.progress import Progress
from experiments.schema import STAGES, Config
from experiments.tasks import task_of


def build_data(
    config: Config, progress: Progress | None = None, dry_run: bool = False, stages: Sequence[str] = STAGES[:2]
) -> Any:
    """Return the data module of the task, for these stages; a dry run takes one case of each split."""
    return task_of(config).data_of(config, progress, dry_run, stages)


def metadata_of(config: Config) -> CheckpointMetadata:
    """Return what the checkpoints of this run will say of themselves."""
    metadata: CheckpointMetadata = task_of(config).metadata(config)
    return metadata


def build_for_training(config: Config, start: bool = True) -> pl.LightningModule:
    """Return a new module; with `start`, one that begins with the weights of `init_from` if there are any."""
    module: pl.LightningModule = task_of(config).module_for_training(config, start)
    return module


def build_from_weights(config: Config, ensemble: Sequence[Weights]) -> pl.LightningModule:
    """Return the networks that checkpoints hold, with what surrounded them in training; raises `InputError`."""
    module: pl.LightningModule = task_of(config).module_from_weights(config, ensemble)
    return module
