"""Which patch comes when: a pure function of (seed, epoch, index), on any number of workers and ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from monai.transforms import Randomizable
from torch.utils.data import Dataset, Sampler

from datamodules.cache import PreparedCase


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index), so that workers that live longer than an epoch still know which one it is.

    Each rank takes every `world`-th index: together they see the epoch once.

    Parameters
    ----------
    length : int
        Indices an epoch, over all ranks; cut to a multiple of `world * batch_size`, so that no rank waits for another.
    rank, world : int
        This process and their number.
    batch_size : int
        Patches a batch on each rank.
    """

    def __init__(self, length: int, rank: int = 0, world: int = 1, batch_size: int = 1) -> None:
        self.rank, self.world = rank, world
        step = world * batch_size
        self.length = max(step, length // step * step)
        self.epoch, self.skip = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def begin_at(self, skip: int) -> None:
        """Leave out so many of this rank's indices in the iterations to come."""
        self.skip = skip

    def __len__(self) -> int:
        return self.length // self.world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # those it began with, whoever sets the next while workers read ahead
        epoch, first = self.epoch, self.rank + self.skip * self.world
        yield from ((epoch, index) for index in range(first, self.length, self.world))


class EvaluationSampler(Sampler[int]):
    """Each case once over all ranks, none twice: ranks may differ by one in their number of cases.

    Parameters
    ----------
    length : int
        Cases.
    rank, world : int
        This process and their number.
    pad : bool
        Where there are fewer cases than ranks, the ranks without one get one index past the end. Lightning skips a
        rank that has nothing, and the others would wait for it for ever when they bring their scores together.
    """

    def __init__(self, length: int, rank: int = 0, world: int = 1, pad: bool = False) -> None:
        self.indices = range(rank, max(length, world) if pad and length else length, world)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        yield from self.indices


class PatchDataset(Dataset[dict[str, Any]]):
    """Random patches of prepared cases.

    Parameters
    ----------
    cases : sequence of PreparedCase
        Training cases; each is drawn equally often.
    transforms : sequence of callable
        MONAI transforms of the sample; the random ones are reseeded for every patch.
    seed : int
        The run's seed.
    keep : sequence of str
        Small arrays of the entries that the transforms read, beside image, mask, labelled and centres.
    """

    def __init__(
        self, cases: Sequence[PreparedCase], transforms: Sequence[Any], seed: int, keep: Sequence[str] = ()
    ) -> None:
        self.cases, self.transforms, self.seed, self.keep = list(cases), list(transforms), seed, tuple(keep)
        self._open: dict[int, dict[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # a file handle does not cross to a worker

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        turn, place = divmod(index, len(self.cases))
        order = np.random.default_rng((self.seed, epoch, turn, 0)).permutation(len(self.cases))
        sample = self._arrays(int(order[place]))
        stream = np.random.SeedSequence((self.seed, epoch, index, 1))
        for transform, child in zip(self.transforms, stream.spawn(len(self.transforms)), strict=True):
            if isinstance(transform, Randomizable):
                transform.set_random_state(seed=int(child.generate_state(1)[0]))
            sample = transform(sample)
        return sample

    def _arrays(self, case: int) -> dict[str, Any]:
        """Lazy arrays of a case; the file stays open in this process."""
        if case not in self._open:
            arrays = self.cases[case].arrays()
            arrays["centres"] = [arrays.pop(f"centres_{k}") for k in range(len(arrays["labelled"]))]
            arrays["labelled"] = arrays["labelled"].astype(bool)
            if "spacing_um" not in self.keep:
                arrays.pop("spacing_um")
            self._open[case] = arrays
        return dict(self._open[case])


class PreparedVolumes(Dataset[dict[str, Any]]):
    """Whole prepared cases, for validation on the common grid; past the end, one that nobody labelled."""

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
