"""Lightning data module of the shape tasks: cells from folders or from the simulator."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai.transforms import Compose
from torch.utils.data import DataLoader

from cytovox.errors import InputError
from datamodules.loading import TaskDataModule
from datamodules.sampling import EpochSampler, evaluation_indices
from datamodules.shape.cases import ShapeCell
from datamodules.shape.config import ShapeData, ShapeFolderData, ShapeSimulatorData
from datamodules.shape.dataset import ShapeDataset, WholeCells
from datamodules.shape.folder import find_shapes, read_shapes, shape_notes
from datamodules.shape.folds import divide_shapes
from datamodules.shape.simulated import simulated_shapes
from datamodules.splits import SPLITS
from transforms.shape_augment import rand_shape


class ShapeDataModule(TaskDataModule):
    """Cells in memory: 280 kB each, so that 825 of them take 230 MB.

    Batches are dicts of `image` (B, 1, 64, 64) float32 in 0..1, `mask` (B, 1, 64, 64) and `obj` (B, 1, 64, 64, 64)
    float32 of 0 and 1, and `index` (B,), a cell's position in `find()[split]`. In validation and test, an index of -1
    marks a cell that was added so that all ranks have equally many; scores must leave it out.

    Parameters
    ----------
    config : ShapeData
        `ShapeFolderData` or `ShapeSimulatorData`.
    seed : int
        Seed of the run.
    cells : mapping, optional
        Cells of each split instead of those that the config names, for nested folds.
    distances : bool
        Whether training batches also have the object's signed distances: `distance` (B, 1, 64, 64, 64) in voxels.
    **options
        See `TaskDataModule`.
    """

    def __init__(
        self,
        config: ShapeData,
        seed: int,
        cells: Mapping[str, Sequence[ShapeCell]] | None = None,
        distances: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(config, seed, **options)
        self.distances = distances
        self.cells: dict[str, list[ShapeCell]] = (
            {} if cells is None else {split: list(cells.get(split, ()))[: self.limit] for split in SPLITS}
        )

    def find(self) -> dict[str, list[ShapeCell]]:
        """Return the checked cells of every split; simulated ones are made here if they are not in the cache."""
        if not self.cells:
            if isinstance(self.config, ShapeFolderData):
                self.cells = self._read(self.config)
            elif isinstance(self.config, ShapeSimulatorData):
                limits = {split: self.limit if split in self.splits else 0 for split in SPLITS}
                self.cells = {
                    split: simulated_shapes(self.config, split, limit, self._reported(f"simulating {split} cells"))
                    for split, limit in limits.items()
                }
            else:
                raise TypeError(f"no cells from a {type(self.config).__name__}")
        return self.cells

    def _read(self, config: ShapeFolderData) -> dict[str, list[ShapeCell]]:
        division = divide_shapes(find_shapes(config), config)
        wanted = {split: found[: self.limit] if split in self.splits else [] for split, found in division.items()}
        # all splits in one call, so that all errors are reported together
        files = [files for found in wanted.values() for files in found]
        cells = iter(read_shapes(files, self._reported("reading cells")))
        return {split: [next(cells) for _ in found] for split, found in wanted.items()}

    def digest(self) -> str:
        """Return a hash of the run's data: name, class, values and split of every cell."""
        text = hashlib.sha256()
        for split, cells in self.find().items():
            for cell in cells:
                text.update(f"{split} {cell.name} {cell.group}\n".encode())
                text.update(np.rint(cell.image_YX * 65535).astype("<u2").tobytes())
                for inside in (cell.mask_YX, cell.obj_ZYX):
                    text.update(b"" if inside is None else np.packbits(inside).tobytes())
        return text.hexdigest()

    def fingerprints(self, splits: Sequence[str]) -> list[str]:
        """Return the fingerprint of every cell of these splits."""
        return [cell.fingerprint for split in splits for cell in self.find()[split]]

    def prepare_data(self) -> None:
        """Fill the cache; Lightning calls it on one process of each node."""
        self.find()

    def setup(self, stage: str) -> None:
        """Load the cells on every process."""
        found = self.find()
        if stage == "fit" and not found["train"]:
            total = sum(map(len, found.values()))
            raise InputError(f"data: no cell to train on ({total} in all); give some, or leave out the fit stage")
        if stage == "test" and not found["test"]:
            raise InputError("data: no cell to test (data.folds 0 trains on all); choose folds, or leave out the test")

    def notes(self) -> list[str]:
        """Return notes about the files: what was accepted but should be reported."""
        return shape_notes(cell for cells in self.cells.values() for cell in cells)

    def augmentation(self) -> Compose:
        """Return the random transforms of training cells."""
        config = self.config
        return rand_shape(
            rotate=config.rotate,
            flip=config.flip,
            flip_z=config.flip_z,
            zoom=(config.zoom[0], config.zoom[1]),
            shift=config.shift,
            elastic=config.elastic,
            elastic_probability=config.elastic_probability,
            intensity_scale=config.intensity_scale,
            intensity_offset=config.intensity_offset,
            noise=config.noise,
            mirror_yz=config.mirror_yz,
        )

    def train_dataloader(self) -> DataLoader:
        """Return randomly transformed training cells that depend only on seed, epoch and index."""
        cells = self.find()["train"]
        length = self.config.cells_per_epoch or len(cells)
        batch_size = self.config.batch_size
        sampler = EpochSampler(length, *self._rank_and_world(), batch_size)
        return self._loader(ShapeDataset(cells, self.augmentation(), self.seed, self.distances), sampler, batch_size)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the validation cells without augmentation; no loader if there are none."""
        cells = self.find()["val"]
        return self._whole(cells) if cells else []

    def test_dataloader(self) -> DataLoader:
        """Return the test cells without augmentation."""
        return self._whole(self.find()["test"])

    def _whole(self, cells: Sequence[ShapeCell]) -> DataLoader:
        rank, world = self._rank_and_world()
        # equally many on each rank: a forward pass may communicate with other ranks (buffers of batch normalisation)
        padded = -(-len(cells) // world) * world
        return self._loader(WholeCells(cells), evaluation_indices(padded, rank, world), self.config.batch_size, 0)
