"""Datasets of cells: randomly transformed for training, unchanged for validation, test and prediction."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from torch.utils.data import Dataset

from cytovox.preprocess.shape_fields import signed_distance
from datamodules.sampling import drawn_case
from datamodules.shape.cases import ShapeCell
from transforms.shape_augment import DISTANCE

Sample = dict[Hashable, Any]

#: Distances are clipped to this number of voxels.
FAR = 16.0


def shape_sample(cell: ShapeCell, index: int) -> Sample:
    """Return a cell as tensors.

    Returns
    -------
    dict
        `image` (1, Y, X) float32 in 0..1, `mask` (1, Y, X) and, if the cell has an object, `obj` (1, Z, Y, X) float32
        of 0 and 1; `index`, the cell's position in its split.
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
    assert cell.obj_ZYX is not None, "training cells have an object"
    return signed_distance(cell.obj_ZYX).clip(-FAR, FAR).astype(np.float16)


class ShapeDataset(Dataset[Sample]):
    """Training samples that depend only on seed, epoch and index, for any number of workers and ranks.

    Parameters
    ----------
    cells : sequence of ShapeCell
        Training cells; each is drawn equally often, in a new random order in every epoch.
    augment : Compose or None
        Random transforms, reseeded for every sample.
    seed : int
        Seed of the run.
    distances : bool
        Whether samples also have `distance`: the object's signed distances (1, Z, Y, X) in voxels, clipped to -16 to
        16. They are computed once per cell (half a megabyte in float16) and transformed with it, since computing them
        again takes as long as a training step.
    """

    def __init__(self, cells: Sequence[ShapeCell], augment: Compose | None, seed: int, distances: bool = True) -> None:
        self.cells, self.augment, self.seed = list(cells), augment, seed
        self.distances_ZYX = [_distances(cell) for cell in self.cells] if distances else []

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        chosen = drawn_case(self.seed, epoch, index, len(self.cells))
        sample = shape_sample(self.cells[chosen], chosen)
        if self.distances_ZYX:
            sample[DISTANCE] = torch.from_numpy(self.distances_ZYX[chosen].astype(np.float32))[None]
        if self.augment is None:
            return sample
        stream = np.random.SeedSequence((self.seed, epoch, index, 1))
        self.augment.set_random_state(seed=int(stream.generate_state(1)[0]))
        return self.augment(sample)


class WholeCells(Dataset[Sample]):
    """Unchanged cells, for validation and test; an index past the end gives a cell whose `index` is -1."""

    def __init__(self, cells: Sequence[ShapeCell]) -> None:
        self.cells = list(cells)

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: int) -> Sample:
        count = len(self.cells)
        return shape_sample(self.cells[index % count], index if index < count else -1)
