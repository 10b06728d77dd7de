"""Data module of the architecture search: weights and architecture learn from separate halves of the volumes."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader, Dataset

from cytovox.errors import InputError
from datamodules.organelle import OrganelleDataModule
from datamodules.sampling import EpochSampler, PatchDataset, PreparedVolumes, evaluation_indices


class PairedPatches(Dataset[dict[str, Any]]):
    """A patch of the first half of the volumes, with a patch of the second half under the key `architecture`.

    Parameters
    ----------
    first, second : PatchDataset
        Patches of each half; the two have different seeds.
    """

    def __init__(self, first: PatchDataset, second: PatchDataset) -> None:
        self.first, self.second = first, second

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        return {**self.first[key], "architecture": self.second[key]}


class SearchDataModule(OrganelleDataModule):
    """Data of the organelle task, with training patches in pairs unless the search is joint."""

    joint = False

    def require_both_halves(self) -> None:
        """Check that the training volumes can be split in half.

        Raises
        ------
        InputError
            There is only one training volume, and the search is not joint.
        """
        volumes = len(self.find()["train"])
        if volumes < 2 and not self.joint:
            raise InputError(
                f"data: {volumes} training volume: expected two at least, since weights and architecture learn from "
                "separate halves; give more, or set search.joint=true"
            )

    def volumes(self) -> DataLoader:
        """Return all validation volumes, on every rank."""
        data = PreparedVolumes(self.prepared["val"])
        return self._loader(data, evaluation_indices(len(data)), 1, workers=0)

    def train_dataloader(self) -> DataLoader:
        """Return random pairs of patches that depend only on seed, epoch and index."""
        if self.joint:
            return super().train_dataloader()
        config = self.config
        sampler = EpochSampler(config.patches_per_epoch, *self._rank_and_world(), config.batch_size)
        cases = self.prepared["train"]  # every other case, so that both halves cover the whole order of the files
        first, second = (
            PatchDataset(half, self._augmentation(), seed)
            for half, seed in ((cases[::2], self.seed), (cases[1::2], self.seed + 2**32))
        )
        return self._loader(PairedPatches(first, second), sampler, config.batch_size)
