"""Lightning data module of the organelle task: data from folders or from the simulator."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset

from cytovox.errors import InputError
from cytovox.io.provenance import ContentDigests
from datamodules.cache import PreparedCase, cache_root
from datamodules.cases import Case, FolderCase, RawCase
from datamodules.config import FolderData, OrganelleData, SimulatorData
from datamodules.errors import NotAnnotatedError
from datamodules.fingerprints import case_fingerprints
from datamodules.folder import find_cases
from datamodules.loading import TaskDataModule
from datamodules.prepare import Preparer
from datamodules.sampling import EpochSampler, PatchDataset, PreparedVolumes, evaluation_indices
from datamodules.simulated import cases_of, make_volumes, requests_of
from datamodules.splits import split_cases
from transforms.intensity import rand_ri_jitter
from transforms.patches import rand_organelle_patch


class OrganelleDataModule(TaskDataModule):
    """Training patches, validation volumes on the common grid, test cases on their own grid.

    Parameters
    ----------
    config : OrganelleData
        `FolderData` or `SimulatorData`.
    seed : int
        Seed of the run.
    **options
        See `TaskDataModule`.
    """

    config: OrganelleData
    spacing = False
    """Whether training patches need the voxel size."""
    preparer: type[Preparer] = Preparer
    """Class that prepares the cases."""

    def __init__(self, config: OrganelleData, seed: int, **options: Any) -> None:
        super().__init__(config, seed, **options)
        self.cases: dict[str, Sequence[Case]] = {}
        self.prepared: dict[str, list[PreparedCase]] = {}

    def find(self) -> dict[str, Sequence[Case]]:
        """Return the cases of every split; simulated ones are made here if they are not in the cache."""
        if not self.cases:
            if isinstance(self.config, FolderData):
                division = split_cases(find_cases(self.config), self.config, self.seed)
                self.cases = {split: self._first(split, found) for split, found in division.items()}
            elif isinstance(self.config, SimulatorData):
                requests = requests_of(self.config, self.limit)
                wanted = [request for split in self.splits for request in requests[split]]
                make_volumes(self.config, wanted, self._reported("simulating cells"))
                self.cases = dict(cases_of(self.config, requests))
            else:
                raise TypeError(f"no cases from a {type(self.config).__name__}")
        return self.cases

    def _first(self, split: str, cases: Sequence[FolderCase]) -> Sequence[FolderCase]:
        """Return as many cases as `limit` allows; of the test, which leaves them out, none without annotation."""
        if self.limit is None or split != "test":
            return cases[: self.limit]
        return list(itertools.islice((c for c in cases if not c.may_be_partial or is_annotated(c)), self.limit))

    def digest(self) -> str:
        """Return a hash of the run's data: files, settings and split of every case."""
        digests = ContentDigests(cache_root(self.config.cache_dir))
        text = hashlib.sha256()
        for split, cases in self.find().items():
            for case in cases:
                contents = " ".join(digests.of(path) for path in case.files)
                text.update(f"{split} {case.name} {case.settings} {contents}\n".encode())
        return text.hexdigest()

    def fingerprints(self, splits: Sequence[str]) -> list[str]:
        """Return the fingerprint of the tomogram of every case of these splits, in order."""
        found = self.find()
        return case_fingerprints((c for split in splits for c in found[split]), cache_root(self.config.cache_dir))

    def prepare_data(self) -> None:
        """Fill the cache; Lightning calls it on one process of each node, even for a test, which needs no cache."""
        if {"train", "val"} <= set(self.splits):
            self._prepare(("train", "val"))

    def setup(self, stage: str) -> None:
        """Find the cases, and for training the cache entries, on every process."""
        self.find()
        if stage in ("fit", "validate"):
            self._prepare(("train", "val"))

    def _prepare(self, splits: Sequence[str]) -> None:
        if not self.find()["train"]:
            total = sum(map(len, self.find().values()))
            raise InputError(f"data: no volume to train on ({total} in all); give some, or leave out the fit stage")
        preparer = self.preparer(self.config)
        for split in [split for split in splits if split not in self.prepared]:
            progress = self._reported(f"preparing {split} volumes")
            self.prepared[split] = preparer.prepare(self.find()[split], progress)

    def notes(self) -> list[str]:
        """Return notes about the files: what was accepted but should be reported."""
        cases = [c for found in self.cases.values() for c in found if isinstance(c, FolderCase)]
        return sorted({note for case in cases for note in case.notes})

    def train_dataloader(self) -> DataLoader:
        """Return random patches that depend only on seed, epoch and index."""
        config = self.config
        sampler = EpochSampler(config.patches_per_epoch, *self._rank_and_world(), config.batch_size)
        data = PatchDataset(self.prepared["train"], self._augmentation(), self.seed, self.spacing)
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
        """Return whole prepared volumes, one at a time, each on one rank only."""
        data = PreparedVolumes(self.prepared["val"])
        return self._loader(data, evaluation_indices(len(data), *self._rank_and_world(), pad=True), 1, workers=0)

    def test_dataloader(self) -> DataLoader:
        """Return raw test cases on their own grid, one at a time, each on one rank only."""
        return self._raw("test")

    def _raw(self, split: str) -> DataLoader:
        cases = self.find()[split]
        sampler = evaluation_indices(len(cases), *self._rank_and_world(), pad=True)
        return DataLoader(RawCases(cases), batch_size=None, sampler=sampler, num_workers=0)


def is_annotated(case: FolderCase) -> bool:
    """Return whether any voxel of a case is annotated; if not, add to its notes that the test leaves it out."""
    try:
        case.load()
    except NotAnnotatedError as error:
        note = f"left out of the test: {error}"
        case.notes.extend([] if note in case.notes else [note])
        return False
    return True


class RawCases(Dataset[tuple[int, Case, RawCase] | None]):
    """Cases as stored in their files, with their position in the set; None past the end, and without annotation."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tuple[int, Case, RawCase] | None:
        if index >= len(self.cases):
            return None
        try:
            return index, self.cases[index], self.cases[index].load()
        except NotAnnotatedError:
            return None
