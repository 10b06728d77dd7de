"""Stop a training on a signal: all ranks agree on a batch, save one checkpoint there, and end."""

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Checkpoint, WeightAveraging

from training.signals import Preempted, StopSignals


class Preemption(Checkpoint):
    """Stop a training after a signal at a batch from which it can resume, and save checkpoints within epochs.

    Lightning's handler saves within the signal, when one rank may wait at a barrier while another is in its backward
    pass (Lightning #21406). Here the signal is only recorded. At the end of each batch, the ranks start to exchange
    their records; the result is read one batch later, so that no rank waits for it.

    Parameters
    ----------
    signals : StopSignals
        Signals that this rank received.
    path : Path
        Checkpoint that a resumed run starts from.
    save_every_minutes : float, optional
        Interval of additional checkpoints, which limits the loss if the run is killed; None for none.
    """

    def __init__(self, signals: StopSignals, path: Path, save_every_minutes: float | None = None) -> None:
        self.signals, self.path, self.every = signals, path, save_every_minutes
        self._saved = time.monotonic()
        self._group: Any = None
        self._pending: tuple[Any, torch.Tensor] | None = None
        self._common = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Create a process group between CPUs: with one between GPUs, each exchange would wait for their kernels."""
        if trainer.world_size > 1:
            self._group = dist.new_group(backend="gloo")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any) -> None:
        """Save and stop between two batches of an epoch, unless gradients are accumulated."""
        loop = trainer.fit_loop.epoch_loop
        if loop._should_accumulate() or loop._num_ready_batches_reached():
            return  # checkpoints hold no gradients; and after the last batch follows a validation or the epoch's end
        stop, due = self._agreed(trainer)
        if stop or due:
            self._save(trainer)
        self._end(stop)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the number of validation batches that all ranks have: they can agree at these only."""
        if self._fits(trainer):
            batches = torch.tensor(int(sum(trainer.num_val_batches)))
            if self._group is not None:
                dist.all_reduce(batches, dist.ReduceOp.MIN, group=self._group)
            self._common = int(batches)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Save and stop within a validation, which the resumed run repeats as a whole.

        The last validation of a run that is limited by steps is not interrupted: Lightning would skip it in the resumed
        run, which has no step left.
        """
        last = 0 < trainer.max_steps <= trainer.global_step
        if not self._fits(trainer) or last or batch_idx + 1 >= self._common or not self._agreed(trainer)[0]:
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging):
                callback.on_validation_epoch_end(trainer, pl_module)  # restores the weights of the training
        self._save(trainer)
        self._end(True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at the end of an epoch, of which a checkpoint exists: short epochs end before an exchange is read."""
        self._end(self._agreed(trainer, now=True)[0])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop all ranks before the next stage if one of them received a signal."""
        self._end(self._agreed(trainer, now=True)[0])

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Any) -> None:
        """Reset the batch counter of an interrupted validation in its checkpoint.

        With Lightning's own count, the resumed run would skip the batches that were done, and their scores.
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

    def _end(self, stop: bool) -> None:
        if stop:
            raise Preempted(self.signals.received or "another rank's signal")

    def _agreed(self, trainer: pl.Trainer, now: bool = False) -> tuple[bool, bool]:
        """Return whether to stop and whether to save, as all ranks agreed at the last batch, or agree now."""
        agreed = torch.zeros(2, dtype=torch.uint8)
        if self._pending is not None:
            work, agreed = self._pending
            work.wait()
            self._pending = None
        # no second request while the ranks have agreed to save
        due = not agreed[1] and self.every is not None and time.monotonic() - self._saved >= 60 * self.every
        mine = torch.tensor([self.signals.received is not None, due], dtype=torch.uint8)
        if self._group is not None:
            work = dist.all_reduce(mine, dist.ReduceOp.MAX, group=self._group, async_op=True)
            if now:
                work.wait()
            else:
                self._pending, mine = (work, mine), agreed
        return bool(mine[0]), bool(mine[1])


def take_signals_from(trainer: pl.Trainer) -> None:
    """Disable Lightning's handler of SIGTERM, which runs a collective wherever its rank happens to be."""
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
