"""Data and models of a training config, for scripts and tests."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl

from cytovox.models.metadata import Weights
from experiments.progress import Progress
from experiments.schema import STAGES, Config
from experiments.tasks import task_of


def build_data(
    config: Config, progress: Progress | None = None, dry_run: bool = False, stages: Sequence[str] = STAGES[:2]
) -> Any:
    """Return the data module of the task for some stages; a dry run takes one case of each split."""
    return task_of(config).data_of(config, progress, dry_run, stages)


def build_for_training(config: Config, start: bool = True) -> pl.LightningModule:
    """Return a new module; with `start`, it has the weights of `init_from`, if that is set."""
    return task_of(config).module_for_training(config, start)


def build_from_weights(config: Config, ensemble: Sequence[Weights]) -> pl.LightningModule:
    """Return the module of trained weights; raise `InputError` if these do not belong together."""
    return task_of(config).module_from_weights(config, ensemble)
