"""Two halves of the training data side by side: weights learn from one, the architecture from the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset

from cytovox.errors import InputError
from datamodules.cache import PreparedCase
from datamodules.organelle import OrganelleDataModule
from datamodules.sampling import EpochSampler, EvaluationSampler, PatchDataset, PreparedVolumes


def split_in_half(cases: Sequence[PreparedCase]) -> tuple[list[PreparedCase], list[PreparedCase]]:
    """Every other case: of files in an order, both halves see all of it."""
    return list(cases[::2]), list(cases[1::2])


class PairedPatches(Dataset[dict[str, Any]]):
    """A patch of the first half, and one of the second as its ``architecture``; both by the same (epoch, index).

    Parameters
    ----------
    first, second : PatchDataset
        Of the two halves; with seeds of their own.
    """

    def __init__(self, first: PatchDataset, second: PatchDataset) -> None:
        self.first, self.second = first, second

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        return {**self.first[key], "architecture": self.second[key]}


class SearchDataModule(OrganelleDataModule):
    """The organelle task's data, its training patches in pairs; in a joint search they are as they were."""

    joint = False

    def require_both_halves(self) -> None:
        """Refuse to share what cannot be shared.

        Raises
        ------
        InputError
            One training volume alone has no halves.
        """
        volumes = len(self.find()["train"])
        if volumes < 2 and not self.joint:
            raise InputError(
                f"data: {volumes} training volume: expected two at least, since weights and architecture learn from "
                "separate halves; give more, or set search.joint=true"
            )

    def volumes(self) -> DataLoader:
        """All validation volumes, on every rank."""
        data = PreparedVolumes(self.prepared["val"])
        return self._loader(data, EvaluationSampler(len(data)), 1, workers=0)

    def train_dataloader(self) -> DataLoader:
        """Random pairs of patches, the same for the same (seed, epoch, index)."""
        if self.joint:
            return super().train_dataloader()
        config = self.config
        sampler = EpochSampler(config.patches_per_epoch, *self._place(), config.batch_size)
        first, second = (
            PatchDataset(half, self._augmentation(), seed)
            for half, seed in zip(split_in_half(self.prepared["train"]), (self.seed, self.seed + 2**32), strict=True)
        )
        return self._loader(PairedPatches(first, second), sampler, config.batch_size)
