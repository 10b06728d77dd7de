"""Lightning's data module of the organelle task, over folders or the simulator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from cytovox.errors import InputError
from cytovox.io.processes import leave_signals_to_parent, signals_held
from cytovox.io.provenance import ContentDigests
from datamodules.cache import PreparedCase, cache_root
from datamodules.cases import Case, FolderCase, RawCase
from datamodules.config import FolderData, OrganelleData, SimulatorData
from datamodules.fingerprints import case_fingerprints
from datamodules.folder import find_cases
from datamodules.prepare import Preparer
from datamodules.sampling import EpochSampler, EvaluationSampler, PatchDataset, PreparedVolumes
from datamodules.simulated import cases_of, cores, make_volumes, requests_of
from datamodules.splits import SPLITS, split_cases
from transforms.intensity import rand_ri_jitter
from transforms.patches import rand_organelle_patch

#: Called with (what, done, all).
Progress = Callable[[str, int, int], None]


class OrganelleDataModule(pl.LightningDataModule):
    """Training patches, validation volumes on the common grid, test cases on their own grid.

    Parameters
    ----------
    config : OrganelleData
        `FolderData` or `SimulatorData`.
    seed : int
        The run's seed.
    progress : callable, optional
        Called with what is being prepared.
    limit : int, optional
        Take only so many volumes of each split.
    splits : sequence of str
        What will be asked for: volumes of the others are neither simulated nor prepared.
    """

    def __init__(
        self,
        config: OrganelleData,
        seed: int,
        progress: Progress | None = None,
        limit: int | None = None,
        splits: Sequence[str] = SPLITS,
    ) -> None:
        super().__init__()
        self.splits = tuple(splits)
        self.config, self.seed, self.progress, self.limit = config, seed, progress, limit
        self.cases: dict[str, Sequence[Case]] = {}
        self.prepared: dict[str, list[PreparedCase]] = {}

    def find(self) -> dict[str, Sequence[Case]]:
        """Cases of every split; simulated ones are made here if they are not in the cache."""
        if not self.cases:
            if isinstance(self.config, FolderData):
                division = split_cases(find_cases(self.config), self.config, self.seed)
                self.cases = {split: found[: self.limit] for split, found in division.items()}
            elif isinstance(self.config, SimulatorData):
                self.cases = self._simulate(self.config)
            else:
                raise TypeError(f"no cases from a {type(self.config).__name__}")
        return self.cases

    def _simulate(self, config: SimulatorData) -> dict[str, Sequence[Case]]:
        requests = requests_of(config, self.limit)
        report = self.progress
        progress = None if report is None else lambda done, all_: report("simulating cells", done, all_)
        make_volumes(config, [request for split in self.splits for request in requests[split]], progress)
        return dict(cases_of(config, requests))

    def digest(self) -> str:
        """Hash of the data of the run: every case's files and settings, and the split it is in."""
        digests = ContentDigests(cache_root(self.config.cache_dir))
        text = hashlib.sha256()
        for split, cases in self.find().items():
            for case in cases:
                contents = " ".join(digests.of(path) for path in case.files)
                text.update(f"{split} {case.name} {case.settings} {contents}\n".encode())
        return text.hexdigest()

    def fingerprints(self, splits: Sequence[str]) -> list[str]:
        """Return the fingerprint of the tomogram of every case of these splits, in their order."""
        found = self.find()
        return case_fingerprints((c for split in splits for c in found[split]), cache_root(self.config.cache_dir))

    def prepare_data(self) -> None:
        """Fill the cache; Lightning calls it on one process of each node, and for a test, too, which needs none."""
        if {"train", "val"} <= set(self.splits):
            self._prepare(("train", "val"))

    def setup(self, stage: str) -> None:
        """Find the cache entries on every process."""
        self.find()
        if stage in ("fit", "validate"):
            self._prepare(("train", "val"))

    def _prepare(self, splits: Sequence[str]) -> None:
        if not self.find()["train"]:
            total = sum(map(len, self.find().values()))
            raise InputError(f"data: no volume to train on ({total} in all); give some, or leave out the fit stage")
        preparer = self._preparer()
        report = self.progress
        for split in splits:
            if split not in self.prepared:
                progress = (
                    None if report is None else lambda done, all_, s=split: report(f"preparing {s} volumes", done, all_)
                )
                self.prepared[split] = preparer.prepare(self.find()[split], progress)

    def _preparer(self) -> Preparer:
        return Preparer(self.config)

    def notes(self) -> list[str]:
        """What was accepted in the files, but should be said."""
        cases = [c for found in self.cases.values() for c in found if isinstance(c, FolderCase)]
        return sorted({note for case in cases for note in case.notes})

    def train_dataloader(self) -> DataLoader:
        """Random patches, the same for the same (seed, epoch, index)."""
        config = self.config
        sampler = EpochSampler(config.patches_per_epoch, *self._place(), config.batch_size)
        data = PatchDataset(self.prepared["train"], self._augmentation(), self.seed)
        return self._loader(data, sampler, config.batch_size)

    def _augmentation(self) -> list[Any]:
        config = self.config
        patch = rand_organelle_patch(
            config.patch_size,
            p_foreground=config.foreground,
            p_scale=config.scale_probability,
            p_rotate=config.rotate_probability,
            p_flip=0.5 if config.flip else 0.0,
            scale_range=(config.scale[0], config.scale[1]),
        )
        low, high = config.ri_range
        return [patch, *rand_ri_jitter("image", config.ri_offset, config.ri_contrast, low, high)]

    def val_dataloader(self) -> DataLoader:
        """Whole prepared volumes, one at a time, each on one rank only."""
        data = PreparedVolumes(self.prepared["val"])
        return self._loader(data, EvaluationSampler(len(data), *self._place(), pad=True), 1, workers=0)

    def test_dataloader(self) -> DataLoader:
        """Raw cases on their own grid, one at a time, each on one rank only."""
        cases = self.find()["test"]
        sampler = EvaluationSampler(len(cases), *self._place(), pad=True)
        return DataLoader(RawCases(cases), batch_size=None, sampler=sampler, num_workers=0)

    def _place(self) -> tuple[int, int]:
        """This rank and the number of ranks."""
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
    """Sends its workers out when the first batch is asked for, and goes on within an epoch.

    Lightning makes the iterator before it tells the sampler the epoch of a resumed run; workers sent out then would
    read the patches of epoch 0. It asks for `state_dict` when it saves, and gives it back when a run is resumed.
    """

    _taken, _state = 0, (-1, 0)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        sampler: Any = self.sampler
        if isinstance(sampler, EpochSampler):
            epoch, batches = self._state
            self._taken = batches if epoch == sampler.epoch else 0
            sampler.begin_at(self._taken * (self.batch_size or 1))
        with signals_held():
            batches_of_epoch = super().__iter__()
        for batch in batches_of_epoch:
            self._taken += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Epoch, and how many of its batches were given out."""
        return {"epoch": int(getattr(self.sampler, "epoch", -1)), "batches": self._taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin where `state_dict` was asked for; of an epoch that is over, nothing is left out of the next."""
        self._state = (state["epoch"], state["batches"])


class RawCases(Dataset[tuple[int, Case, RawCase] | None]):
    """Cases as they lie in their files, with their place in the test set; past the end, None."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tuple[int, Case, RawCase] | None:
        return (index, self.cases[index], self.cases[index].load()) if index < len(self.cases) else None


def begin_worker(_: int) -> None:
    """Compute with one thread, as workers share the cores with the training; leave signals to the training."""
    torch.set_num_threads(1)
    leave_signals_to_parent()


def loader_workers(wanted: int | str) -> int:
    """Processes that `data.num_workers` asks for: `auto` leaves one core to the training, 8 at most."""
    return int(wanted) if wanted != "auto" else min(8, max(1, cores() - 1))
