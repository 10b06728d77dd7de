"""Random numbers that depend on seed, epoch and batch only, so that a resumed training equals an uninterrupted one."""

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


class ExactResume(pl.Callback):
    """Seed torch, numpy and Python before every batch from (seed, stage, epoch, batch, rank).

    Dropout, noise and sampling of a batch are then the same in a resumed run as in an uninterrupted one, and no
    generator state has to be saved. Patches have their own random streams (`datamodules.sampling`), and the data loader
    resumes at its last batch.

    Parameters
    ----------
    seed : int
        Random seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the state of the data loader, and count the epoch of a checkpoint at an epoch's end once.

        Lightning drops the loader's state if the number of steps was computed before the state was restored. In a run
        that is limited by steps, it takes a checkpoint of an epoch's end for one within the epoch, and would count that
        epoch twice.
        """
        loop = trainer.fit_loop
        loop._load_combined_loader_states()
        if loop.restarted_on_epoch_end:
            loop.epoch_progress.increment_completed()
            for one in (loop, loop.epoch_loop):
                one._restarting = False
                one.reset_restart_stage()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Seed a training step."""
        self._set(0, trainer, index)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int, loader: int = 0
    ) -> None:
        """Seed a validation step."""
        self._set(1 + loader, trainer, index)

    def _set(self, stage: int, trainer: pl.Trainer, index: int) -> None:
        entropy = (self.seed, stage, trainer.current_epoch, index, trainer.global_rank)
        words = np.random.SeedSequence(entropy).generate_state(3)
        torch.manual_seed(int(words[0]))
        np.random.seed(int(words[1]))  # noqa: NPY002 - the global generator that libraries use
        random.seed(int(words[2]))
