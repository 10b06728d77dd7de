"""Order of training patches and of evaluated cases: the same for any number of workers and ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from monai.transforms import Randomizable
from torch.utils.data import Dataset, Sampler

from datamodules.cache import PreparedCase


class EpochSampler(Sampler[tuple[int, int]]):
    """Sampler of (epoch, index), so that persistent workers get the number of the epoch with each index.

    Each rank takes every `world`-th index, so that all ranks together cover the epoch once.

    Parameters
    ----------
    length : int
        Indices per epoch, over all ranks; rounded down to a multiple of `world * batch_size`, so that all ranks have
        equally many batches.
    rank, world : int
        Rank of this process, and the number of ranks.
    batch_size : int
        Patches per batch on each rank.
    """

    def __init__(self, length: int, rank: int = 0, world: int = 1, batch_size: int = 1) -> None:
        self.rank, self.world = rank, world
        step = world * batch_size
        self.length = max(step, length // step * step)
        self.epoch = 0
        self.skip = 0
        """Number of this rank's indices that later iterations leave out."""

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of later iterations; Lightning calls it at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # constant during an iteration: workers read ahead, and the next epoch may be set before they have finished
        epoch, first = self.epoch, self.rank + self.skip * self.world
        yield from ((epoch, index) for index in range(first, self.length, self.world))


def evaluation_indices(length: int, rank: int = 0, world: int = 1, pad: bool = False) -> range:
    """Return the cases of one rank; each case belongs to one rank, so that ranks may differ by one in their number.

    Parameters
    ----------
    length : int
        Number of cases.
    rank, world : int
        Rank of this process, and the number of ranks.
    pad : bool
        With fewer cases than ranks, give each rank without a case one index past the end. Lightning skips a rank
        without any batch, and the other ranks would wait for it forever when they gather their scores.
    """
    return range(rank, max(length, world) if pad and length else length, world)


def drawn_case(seed: int, epoch: int, index: int, count: int) -> int:
    """Return which of `count` cases a training sample is from.

    Each case is drawn equally often: the order of the cases is random, and a new one once all have been drawn.
    """
    turn, place = divmod(index, count)
    return int(np.random.default_rng((seed, epoch, turn, 0)).permutation(count)[place])


class PatchDataset(Dataset[dict[str, Any]]):
    """Random patches of prepared cases, indexed by (epoch, index).

    Parameters
    ----------
    cases : sequence of PreparedCase
        Training cases; each is drawn equally often.
    transforms : sequence of callable
        MONAI transforms of the sample; the random ones are reseeded for every patch.
    seed : int
        Seed of the run.
    spacing : bool
        Whether the transforms need `spacing_um`, the voxel size.
    """

    def __init__(
        self, cases: Sequence[PreparedCase], transforms: Sequence[Any], seed: int, spacing: bool = False
    ) -> None:
        self.cases, self.transforms, self.seed, self.spacing = list(cases), list(transforms), seed, spacing
        self._open: dict[int, dict[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # open files cannot be sent to a worker

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        sample = self._arrays(drawn_case(self.seed, epoch, index, len(self.cases)))
        stream = np.random.SeedSequence((self.seed, epoch, index, 1))
        for transform, child in zip(self.transforms, stream.spawn(len(self.transforms)), strict=True):
            if isinstance(transform, Randomizable):
                transform.set_random_state(seed=int(child.generate_state(1)[0]))
            sample = transform(sample)
        return sample

    def _arrays(self, case: int) -> dict[str, Any]:
        """Return the memory-mapped arrays of a case; the file stays open in this process."""
        if case not in self._open:
            arrays = self.cases[case].arrays()
            arrays["centres"] = [arrays.pop(f"centres_{k}") for k in range(len(arrays["labelled"]))]
            arrays["labelled"] = arrays["labelled"].astype(bool)
            if not self.spacing:
                del arrays["spacing_um"]
            self._open[case] = arrays
        return dict(self._open[case])


class PreparedVolumes(Dataset[dict[str, Any]]):
    """Whole prepared cases, for validation on the common grid; an index past the end gives a case without labels."""

    def __init__(self, cases: Sequence[PreparedCase]) -> None:
        self.cases = list(cases)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, Any]:
        arrays = self.cases[index % len(self.cases)].arrays()
        return {
            "image": np.array(arrays["image"]),
            "mask": np.array(arrays["mask"]),
            "labelled": arrays["labelled"].astype(bool) & (index < len(self.cases)),
        }
