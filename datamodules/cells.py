"""Lightning's data module of the cells task: patches as each of the two networks sees them, and whole cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.ndimage as ndi
from torch.utils.data import DataLoader

from cytovox.errors import InputError
from cytovox.inference.cell_layer import find_slab
from cytovox.preprocess.intensity import NormaliseRI
from cytovox.segmentation.field import resize_labels
from datamodules.cases import Case, RawCase
from datamodules.cells_config import CellsFolder, CellsSimulator
from datamodules.errors import DataError
from datamodules.organelle import OrganelleDataModule, RawCases
from datamodules.prepare import CENTRES, Preparer
from datamodules.sampling import EpochSampler, EvaluationSampler, PatchDataset
from transforms.cell_patches import RandOneNucleus, RandSoften, rand_cell_patch
from transforms.intensity import rand_ri_jitter
from transforms.patches import foreground_centres

#: A nucleus with fewer voxels on the common grid is not used in training.
FEWEST_VOXELS = 20


class CellPreparer(Preparer):
    """Makes and finds cache entries of labelled fields: labels stay labels, and nuclei have their centres."""

    def __init__(self, config: CellsFolder | CellsSimulator) -> None:
        super().__init__(config)
        self.z, self.depth = config.z, int(config.resample_grid[0])
        if self.z != "fit":
            self.more = {"z": self.z}

    def arrays(self, raw: RawCase) -> dict[str, np.ndarray]:
        """What an entry holds: beside the usual, `nuclei` (N, 4), label and centre in voxels of the common grid."""
        if self.z != "fit":
            layer = find_slab(self.z, self.depth, NormaliseRI(*self.ri_range)(raw.ri_ZYX.astype(np.float32)))
            slab = slice(layer.start, layer.stop)
            raw = replace(raw, ri_ZYX=raw.ri_ZYX[slab], masks_KZYX=raw.masks_KZYX[:, slab])
        masks = replace(raw, masks_KZYX=(raw.masks_KZYX[:2] != 0).astype(np.uint8))
        entry = super().arrays(masks)
        cells = resize_labels(raw.masks_KZYX[2], entry["image"].shape[1:])
        drawn = np.concatenate([entry["mask"], cells[None]]).astype(np.uint16)
        entry["mask"] = drawn
        # patches may be centred on every cell alike, by its voxels
        entry["centres_2"] = foreground_centres(drawn[2:] > 0, limit=CENTRES)[0]
        entry["nuclei"] = nuclei_of(drawn)
        return entry


def nuclei_of(drawn_3ZYX: np.ndarray) -> np.ndarray:
    """Label and centre z, y, x in voxels of the nucleus of every cell that has one: float64 array (N, 4)."""
    nuclei = np.where(drawn_3ZYX[1] != 0, drawn_3ZYX[2], 0)
    sizes = np.bincount(nuclei.ravel())
    labels = np.flatnonzero(sizes >= FEWEST_VOXELS)
    labels = labels[labels > 0]
    if not len(labels):
        return np.zeros((0, 4))
    return np.column_stack([labels, np.asarray(ndi.center_of_mass(nuclei > 0, nuclei, labels))])


class CellsDataModule(OrganelleDataModule):
    """As its parent, over labelled fields.

    Parameters
    ----------
    config : CellsFolder or CellsSimulator
        `data:` of the run.
    seed : int
        The run's seed.
    method : str
        `network`: a random nucleus of a whole field is asked for. `offsets`: patches and their nuclei.
    progress, limit, splits
        As of the parent.
    """

    def __init__(self, config: CellsFolder | CellsSimulator, seed: int, method: str, **others: Any) -> None:
        super().__init__(config, seed, **others)
        self.method = method

    def find(self) -> dict[str, Sequence[Case]]:
        """Cases of every split.

        Raises
        ------
        InputError
            A case without labels of cells, or without a mask of nuclei.
        """
        known = bool(self.cases)
        found = super().find()
        if not known and isinstance(self.config, CellsFolder):
            for case in (case for cases in found.values() for case in cases):
                bare = [name for name in ("nucleus", "cells") if name not in getattr(case, "masks", {})]
                if bare:
                    raise DataError("no-mask", f"data.masks: {case.name}: no file of {' and '.join(bare)}; draw it")
        return found

    def _preparer(self) -> CellPreparer:
        assert isinstance(self.config, CellsFolder | CellsSimulator)
        return CellPreparer(self.config)

    def _prepare(self, splits: Sequence[str]) -> None:
        super()._prepare([split for split in splits if split == "train"])
        if not any(len(entry.arrays()["nuclei"]) for entry in self.prepared["train"]):
            raise InputError("data: no cell of any training volume has a nucleus; cells are learned from theirs")

    def train_dataloader(self) -> DataLoader:
        """Random patches, the same for the same (seed, epoch, index)."""
        config = self.config
        sampler = EpochSampler(config.patches_per_epoch, *self._place(), config.batch_size)
        keep = ("nuclei", "spacing_um")
        data = PatchDataset(self.prepared["train"], self._augmentation(), self.seed, keep)
        loader = self._loader(data, sampler, config.batch_size)
        loader.collate_fn = samples
        return loader

    def _augmentation(self) -> list[Any]:
        config = self.config
        assert isinstance(config, CellsFolder | CellsSimulator)
        low, high = config.ri_range
        patch = rand_cell_patch(
            config.resample_grid if config.resample == "grid" else config.patch_size,
            whole=config.resample == "grid",
            p_foreground=config.foreground,
            p_scale=config.scale_probability,
            p_rotate=config.rotate_probability,
            p_flip=0.5 if config.flip else 0.0,
            scale_range=(config.scale[0], config.scale[1]),
        )
        jitter = rand_ri_jitter("image", config.ri_offset, config.ri_contrast, low, high)
        more = [RandOneNucleus()] if self.method == "network" else []
        return [patch, *jitter, RandSoften(config.p_binary, config.p_no_ri), *more]

    def val_dataloader(self) -> DataLoader:
        """Raw cases on their own grid, one at a time, each on one rank only."""
        return self._raw("val")

    def test_dataloader(self) -> DataLoader:
        """The same of the test."""
        return self._raw("test")

    def _raw(self, split: str) -> DataLoader:
        cases = self.find()[split]
        sampler = EvaluationSampler(len(cases), *self._place(), pad=True)
        return DataLoader(RawCases(cases), batch_size=None, sampler=sampler, num_workers=0)


def samples(batch: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch: stacked where all are of one size; `nuclei` stay a list, as their number differs."""
    import torch

    stacked = {key: torch.stack([sample[key] for sample in batch]) for key in batch[0] if key != "nuclei"}
    return {**stacked, "nuclei": [sample["nuclei"] for sample in batch]}
