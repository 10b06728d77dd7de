"""Cells as samples: turned at random for training, as they are for everything else."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from torch.utils.data import Dataset

from cytovox.preprocess.signed_distance import signed_distance
from datamodules.shape.cases import ShapeCell
from transforms.shape_augment import DISTANCE

Sample = dict[Hashable, Any]

#: Distances are clipped to this number of voxels.
FAR = 16.0


def shape_sample(cell: ShapeCell, index: int) -> Sample:
    """A cell as tensors.

    Returns
    -------
    dict
        `image` (1, Y, X) float32 in 0..1, `mask` (1, Y, X) and, where the cell has one, `obj` (1, Z, Y, X) float32 of
        0 and 1; `index`, its place in its split.
    """
    sample: Sample = {
        "image": torch.from_numpy(cell.image_YX.astype(np.float32))[None],
        "mask": torch.from_numpy(cell.mask_YX.astype(np.float32))[None],
        "index": index,
    }
    if cell.obj_ZYX is not None:
        sample["obj"] = torch.from_numpy(cell.obj_ZYX.astype(np.float32))[None]
    return sample


def _distances(cell: ShapeCell) -> np.ndarray:
    assert cell.obj_ZYX is not None, "cells to learn from have an object"
    return signed_distance(cell.obj_ZYX).clip(-FAR, FAR).astype(np.float16)


class ShapeDataset(Dataset[Sample]):
    """Training samples: a pure function of (seed, epoch, index), whatever the number of workers and ranks.

    Parameters
    ----------
    cells : sequence of ShapeCell
        Each is drawn equally often, in an order that every epoch draws anew.
    augment : Compose or None
        Reseeded for every sample.
    seed : int
        The run's seed.
    distances : bool
        Give samples a `distance`, too: the object's signed distances (1, Z, Y, X) in voxels, to 16 on either side. They
        are computed once for each cell, half a megabyte in float16, and turned with it: anew, they take as long as a
        step.
    """

    def __init__(self, cells: Sequence[ShapeCell], augment: Compose | None, seed: int, distances: bool = True) -> None:
        self.cells, self.augment, self.seed = list(cells), augment, seed
        self.distances_ZYX = [_distances(cell) for cell in self.cells] if distances else []

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        turn, place = divmod(index, len(self.cells))
        order = np.random.default_rng((self.seed, epoch, turn, 0)).permutation(len(self.cells))
        chosen = int(order[place])
        sample = shape_sample(self.cells[chosen], chosen)
        if self.distances_ZYX:
            sample[DISTANCE] = torch.from_numpy(self.distances_ZYX[chosen].astype(np.float32))[None]
        if self.augment is None:
            return sample
        stream = np.random.SeedSequence((self.seed, epoch, index, 1))
        self.augment.set_random_state(seed=int(stream.generate_state(1)[0]))
        return self.augment(sample)


class WholeCells(Dataset[Sample]):
    """Cells as they are, for validation and test; past the end, one that counts for nothing: its index is -1."""

    def __init__(self, cells: Sequence[ShapeCell]) -> None:
        self.cells = list(cells)

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: int) -> Sample:
        count = len(self.cells)
        return shape_sample(self.cells[index % count], index if index < count else -1)
