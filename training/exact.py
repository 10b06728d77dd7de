"""Randomness that depends on where a run is, and not on how it came there."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


class ExactResume(pl.Callback):
    """Seeds torch, numpy and Python anew before every batch, from (seed, stage, epoch, batch, rank).

    Dropout, noise and sampling of a batch are then the same in a run that was stopped and resumed as in one that was
    not, and no state of a generator has to be kept, one for each rank. Patches have streams of their own
    (`datamodules.sampling`), and the loader resumes where it stopped.

    Parameters
    ----------
    seed : int
        The run's.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning forgets the loader's state where the number of steps was asked for before it was restored.

        And where steps limit a run, it takes a checkpoint of an epoch's end for one of the epoch's middle, and would
        count that epoch twice.
        """
        loop = trainer.fit_loop
        loop._load_combined_loader_states()
        if loop.restarted_on_epoch_end:
            loop.epoch_progress.increment_completed()
            for one in (loop, loop.epoch_loop):
                one._restarting = False
                one.reset_restart_stage()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Before a training step."""
        self._set(0, trainer, index)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int, loader: int = 0
    ) -> None:
        """Before a validation step."""
        self._set(1 + loader, trainer, index)

    def _set(self, stage: int, trainer: pl.Trainer, index: int) -> None:
        place = (self.seed, stage, trainer.current_epoch, index, trainer.global_rank)
        words = np.random.SeedSequence(place).generate_state(3)
        torch.manual_seed(int(words[0]))
        np.random.seed(int(words[1]))  # noqa: NPY002 - the one that libraries use
        random.seed(int(words[2]))
