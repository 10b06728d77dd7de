"""Lightning's data module of the shape tasks, over folders or the simulator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from monai.transforms import Compose
from torch.utils.data import DataLoader, Dataset

from cytovox.errors import InputError
from datamodules.organelle import ResumableDataLoader, begin_worker, loader_workers
from datamodules.sampling import EpochSampler, EvaluationSampler
from datamodules.shape.cases import ShapeCell
from datamodules.shape.config import ShapeData, ShapeFolderData, ShapeSimulatorData
from datamodules.shape.dataset import ShapeDataset, WholeCells
from datamodules.shape.folder import find_shapes, read_shapes, shape_notes
from datamodules.shape.folds import divide_shapes
from datamodules.shape.simulated import simulated_shapes
from datamodules.splits import SPLITS
from transforms.shape_augment import rand_shape

#: Called with (what, done, all).
Progress = Callable[[str, int, int], None]


class ShapeDataModule(pl.LightningDataModule):
    """Cells held in memory: 280 kB each, so that 825 of them take 230 MB.

    Batches are dicts of `image` (B, 1, 64, 64) float32 in 0..1, `mask` (B, 1, 64, 64) and `obj` (B, 1, 64, 64, 64)
    float32 of 0 and 1, and `index` (B,), a cell's place in `find()[split]`. In validation and test an index of -1 marks
    a cell that was only added to give every rank equally many: leave it out of scores.

    Parameters
    ----------
    config : ShapeData
        `ShapeFolderData` or `ShapeSimulatorData`.
    seed : int
        The run's seed.
    progress : callable, optional
        Called with what is being read or simulated.
    limit : int, optional
        Take only so many cells of each split.
    splits : sequence of str
        What will be asked for: cells of the others are neither simulated nor read.
    cells : mapping, optional
        Cells of each split instead of those that the config names, for folds within folds.
    distances : bool
        Training batches have the object's signed distances, too: `distance` (B, 1, 64, 64, 64) in voxels.
    """

    def __init__(
        self,
        config: ShapeData,
        seed: int,
        progress: Progress | None = None,
        limit: int | None = None,
        splits: Sequence[str] = SPLITS,
        cells: Mapping[str, Sequence[ShapeCell]] | None = None,
        distances: bool = True,
    ) -> None:
        super().__init__()
        self.distances = distances
        self.splits = tuple(splits)
        self.config, self.seed, self.progress, self.limit = config, seed, progress, limit
        given = {} if cells is None else {split: list(cells.get(split, ()))[:limit] for split in SPLITS}
        self.cells: dict[str, list[ShapeCell]] = given

    def find(self) -> dict[str, list[ShapeCell]]:
        """Cells of every split, read and checked; simulated ones are made here if they are not in the cache."""
        if not self.cells:
            if isinstance(self.config, ShapeFolderData):
                self.cells = self._read(self.config)
            elif isinstance(self.config, ShapeSimulatorData):
                self.cells = self._simulate(self.config)
            else:
                raise TypeError(f"no cells from a {type(self.config).__name__}")
        return self.cells

    def _read(self, config: ShapeFolderData) -> dict[str, list[ShapeCell]]:
        division = divide_shapes(find_shapes(config), config)
        wanted = {split: found[: self.limit] if split in self.splits else [] for split, found in division.items()}
        # all at once, so that all errors are reported together
        cells = iter(
            read_shapes([files for found in wanted.values() for files in found], self._progress("reading cells"))
        )
        return {split: [next(cells) for _ in found] for split, found in wanted.items()}

    def _simulate(self, config: ShapeSimulatorData) -> dict[str, list[ShapeCell]]:
        return {
            split: simulated_shapes(config, split, self.limit, self._progress(f"simulating {split} cells"))
            if split in self.splits
            else []
            for split in SPLITS
        }

    def _progress(self, what: str) -> Callable[[int, int], None] | None:
        report = self.progress
        return None if report is None else lambda done, total: report(what, done, total)

    def digest(self) -> str:
        """Hash of the data of the run: every cell's name, class and values, and the split it is in."""
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
        found = self.find()
        return [cell.fingerprint for split in splits for cell in found[split]]

    def prepare_data(self) -> None:
        """Fill the cache; Lightning calls it on one process of each node."""
        self.find()

    def setup(self, stage: str) -> None:
        """Hold the cells on every process."""
        found = self.find()
        if stage == "fit" and not found["train"]:
            total = sum(map(len, found.values()))
            raise InputError(f"data: no cell to train on ({total} in all); give some, or leave out the fit stage")
        if stage == "test" and not found["test"]:
            raise InputError("data: no cell to test (data.folds 0 trains on all); choose folds, or leave out the test")

    def notes(self) -> list[str]:
        """What was accepted in the files that were read, but should be said."""
        return shape_notes(cell for cells in self.cells.values() for cell in cells)

    def augmentation(self) -> Compose:
        """The random turns and exposures of training cells."""
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
        """Random turns of the training cells, the same for the same (seed, epoch, index)."""
        cells = self.find()["train"]
        length = self.config.cells_per_epoch or len(cells)
        sampler = EpochSampler(length, *self._place(), self.config.batch_size)
        return self._loader(ShapeDataset(cells, self.augmentation(), self.seed, self.distances), sampler)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Validation cells as they are; nothing where there are none."""
        cells = self.find()["val"]
        return self._whole(cells) if cells else []

    def test_dataloader(self) -> DataLoader:
        """Test cells as they are."""
        return self._whole(self.find()["test"])

    def _whole(self, cells: Sequence[ShapeCell]) -> DataLoader:
        rank, world = self._place()
        # equally many on each rank: a network's forward may talk to the other ranks (batch normalisation's buffers do)
        padded = -(-len(cells) // world) * world
        return self._loader(WholeCells(cells), EvaluationSampler(padded, rank, world), workers=0)

    def _place(self) -> tuple[int, int]:
        """This rank and the number of ranks."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _loader(self, data: Dataset, sampler: Any, workers: int | None = None) -> DataLoader:
        count = loader_workers(self.config.num_workers) if workers is None else workers
        more: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 4} if count else {}
        return ResumableDataLoader(
            data,
            batch_size=self.config.batch_size,
            sampler=sampler,
            num_workers=count,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=begin_worker if count else None,
            **more,
        )
