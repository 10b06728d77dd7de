"""Base class of the tasks' data modules, and the data loader whose position can be saved and restored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from cytovox.io.processes import leave_signals_to_parent, signals_held
from datamodules.sampling import EpochSampler
from datamodules.simulated import cores
from datamodules.splits import SPLITS

#: Called with (what, done, all).
Progress = Callable[[str, int, int], None]


class TaskDataModule(pl.LightningDataModule):
    """Data module with a config, a seed and progress reports.

    Parameters
    ----------
    config : OrganelleData or ShapeData
        Section `data:` of the run's config.
    seed : int
        Seed of the run.
    progress : callable, optional
        Called with (what, done, all) while data are read, simulated or prepared.
    limit : int, optional
        Largest number of cases of each split.
    splits : sequence of str
        Splits to load; the others are neither simulated nor prepared.
    """

    def __init__(
        self,
        config: Any,
        seed: int,
        progress: Progress | None = None,
        limit: int | None = None,
        splits: Sequence[str] = SPLITS,
    ) -> None:
        super().__init__()
        self.config, self.seed, self.progress, self.limit, self.splits = config, seed, progress, limit, tuple(splits)

    def _reported(self, what: str) -> Callable[[int, int], None] | None:
        """Return the progress callback of one activity, called with (done, all)."""
        report = self.progress
        return None if report is None else lambda done, total: report(what, done, total)

    def _rank_and_world(self) -> tuple[int, int]:
        """Return this rank and the number of ranks."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _loader(self, data: Dataset, sampler: Any, batch_size: int, workers: int | None = None) -> DataLoader:
        count = loader_workers(self.config.num_workers) if workers is None else workers
        more: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 4} if count else {}
        return ResumableDataLoader(
            data,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=count,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=begin_worker if count else None,
            **more,
        )


class ResumableDataLoader(DataLoader):
    """Data loader that starts its workers at the first batch and can resume within an epoch.

    Lightning creates the iterator before it sets the epoch of a resumed run on the sampler; workers started then would
    read the patches of epoch 0. Lightning calls `state_dict` when it saves, and `load_state_dict` when a run resumes.
    """

    _taken, _state = 0, (-1, 0)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        sampler: Any = self.sampler
        if isinstance(sampler, EpochSampler):
            epoch, batches = self._state
            self._taken = batches if epoch == sampler.epoch else 0
            sampler.skip = self._taken * (self.batch_size or 1)
        with signals_held():
            batches_of_epoch = super().__iter__()
        for batch in batches_of_epoch:
            self._taken += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its batches already loaded."""
        return {"epoch": int(getattr(self.sampler, "epoch", -1)), "batches": self._taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume where `state_dict` was called; a finished epoch does not shorten the next one."""
        self._state = (state["epoch"], state["batches"])


def begin_worker(_: int) -> None:
    """Limit a worker to one thread, since workers share the cores with the training; leave signals to the parent."""
    torch.set_num_threads(1)
    leave_signals_to_parent()


def loader_workers(wanted: int | str) -> int:
    """Return the number of processes for `data.num_workers`: `auto` leaves one core to the training, at most 8."""
    return int(wanted) if wanted != "auto" else min(8, max(1, cores() - 1))
