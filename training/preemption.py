"""A run that is asked to stop: all ranks agree on the batch, save once, and end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Checkpoint, WeightAveraging

from training.signals import Preempted, StopSignals


class Preemption(Checkpoint):
    """Stops a fit where it can go on from, and saves it now and then between its epochs' ends.

    Lightning's own handler saves from within the signal, where one rank may wait in a barrier while another is in
    backward (Lightning #21406). Here a signal is a note; at the end of a batch the ranks bring their notes together,
    and what they came to is read one batch later, so that no rank waits for the answer.

    Parameters
    ----------
    signals : StopSignals
        What came to this rank.
    path : Path
        The checkpoint that a resumed run goes on from.
    save_every_minutes : float, optional
        Save as often, too, so that a run that is killed without a word loses no more; None for never.
    """

    def __init__(self, signals: StopSignals, path: Path, save_every_minutes: float | None = None) -> None:
        self.signals, self.path, self.every = signals, path, save_every_minutes
        self._saved = time.monotonic()
        self._group: Any = None
        self._asked: tuple[Any, torch.Tensor] | None = None
        self._common = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes travel between CPUs: one over the GPUs' own wires would make each wait for its kernels."""
        if trainer.world_size > 1:
            self._group = dist.new_group(backend="gloo")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any) -> None:
        """Between two batches of an epoch, where no gradient is half gathered."""
        loop = trainer.fit_loop.epoch_loop
        if loop._should_accumulate() or loop._num_ready_batches_reached():
            return  # gradients are in no checkpoint; and after the last batch comes the validation or the epoch's end
        stop, due = self._agreed(trainer)
        if stop or due:
            self._save(trainer)
        if stop:
            raise Preempted(self.signals.came or "another rank's signal")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ranks may differ by a case: they can agree as long as all of them have one."""
        if self._fits(trainer):
            batches = torch.tensor(int(sum(trainer.num_val_batches)))
            if self._group is not None:
                dist.all_reduce(batches, dist.ReduceOp.MIN, group=self._group)
            self._common = int(batches)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """The validation is done again, whole: what it counted so far is in no checkpoint.

        But the last one of a run that steps limit: Lightning finds no step left to do, and would leave it out.
        """
        last = 0 < trainer.max_steps <= trainer.global_step
        if not self._fits(trainer) or last or batch_idx + 1 >= self._common or not self._agreed(trainer)[0]:
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging):
                callback.on_validation_epoch_end(trainer, pl_module)  # gives the weights back to training
        self._save(trainer)
        raise Preempted(self.signals.came or "another rank's signal")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Epochs of a step or two are over before the ranks have read what they said; their end is saved already."""
        if self._agreed(trainer, now=True)[0]:
            raise Preempted(self.signals.came or "another rank's signal")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """No rank goes on to the next stage alone."""
        if self._agreed(trainer, now=True)[0]:
            raise Preempted(self.signals.came or "another rank's signal")

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Any) -> None:
        """Say of a validation that was broken off what Lightning needs to hear to begin it anew.

        Its own count of the batches that were done would make it skip those, and with them their part of the score.
        """
        if trainer.validating and self._fits(trainer):
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress.update(total=begun, current=dict.fromkeys(begun, 0), is_last_batch=False)

    def _fits(self, trainer: pl.Trainer) -> bool:
        return trainer.state.fn == "fit" and not trainer.sanity_checking

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)
        for logger in trainer.loggers:
            logger.after_save_checkpoint(self)  # type: ignore[arg-type]
        self._saved = time.monotonic()

    def _agreed(self, trainer: pl.Trainer, now: bool = False) -> tuple[bool, bool]:
        """Whether to stop, and whether to save: what all ranks said at the batch before, or say now."""
        said = torch.zeros(2, dtype=torch.uint8)
        if self._asked is not None:
            work, said = self._asked
            work.wait()
            self._asked = None
        # not again while what was due is about to be done
        due = not said[1] and self.every is not None and time.monotonic() - self._saved >= 60 * self.every
        mine = torch.tensor([self.signals.came is not None, due], dtype=torch.uint8)
        if self._group is None:
            return bool(mine[0]), bool(mine[1])
        work = dist.all_reduce(mine, dist.ReduceOp.MAX, group=self._group, async_op=True)
        if now:
            work.wait()
            return bool(mine[0]), bool(mine[1])
        self._asked = (work, mine)
        return bool(said[0]), bool(said[1])


def take_signals_from(trainer: pl.Trainer) -> None:
    """Take the signals from Lightning, whose handler of SIGTERM runs a collective wherever its rank happens to be."""
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
