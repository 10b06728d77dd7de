"""Lightning data module of the cells task: training patches of each of the two networks, and whole cases."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.ndimage as ndi
import torch
from torch.utils.data import DataLoader

from cytovox.errors import InputError
from cytovox.inference.cell_layer import find_slab
from cytovox.preprocess.intensity import NormaliseRI
from cytovox.segmentation.field import resize_labels
from datamodules.cases import Case, RawCase
from datamodules.cells_config import CellsFolder, CellsSimulator
from datamodules.errors import DataError
from datamodules.organelle import OrganelleDataModule
from datamodules.prepare import CENTRES, Preparer
from transforms.cell_patches import RandOneNucleus, RandSoften, rand_cell_patch
from transforms.intensity import rand_ri_jitter
from transforms.patches import foreground_centres

#: A nucleus with fewer voxels on the common grid is not used in training.
FEWEST_VOXELS = 20


class CellPreparer(Preparer):
    """Creation and lookup of cache entries of labelled fields: labels of cells, and the centres of nuclei."""

    def __init__(self, config: CellsFolder | CellsSimulator) -> None:
        super().__init__(config)
        self.z, self.depth = config.z, int(config.resample_grid[0])
        if self.z != "fit":
            self.more = {"z": self.z}

    def arrays(self, raw: RawCase) -> dict[str, np.ndarray]:
        """Return an entry's arrays: also `nuclei` (N, 4), label and centre in voxels of the common grid."""
        if self.z != "fit":
            layer = find_slab(self.z, self.depth, NormaliseRI(*self.ri_range)(raw.ri_ZYX.astype(np.float32)))
            slab = slice(layer.start, layer.stop)
            raw = replace(raw, ri_ZYX=raw.ri_ZYX[slab], masks_KZYX=raw.masks_KZYX[:, slab])
        entry = super().arrays(replace(raw, masks_KZYX=(raw.masks_KZYX[:2] != 0).astype(np.uint8)))
        cells = resize_labels(raw.masks_KZYX[2], entry["image"].shape[1:])
        masks = np.concatenate([entry["mask"], cells[None]]).astype(np.uint16)
        # patches are centred on voxels of all cells alike
        centres = foreground_centres(masks[2:] > 0, limit=CENTRES)[0]
        return {**entry, "mask": masks, "centres_2": centres, "nuclei": nuclei_of(masks)}


def nuclei_of(masks_3ZYX: np.ndarray) -> np.ndarray:
    """Return label and centre z, y, x in voxels of the nucleus of every cell that has one: float64 array (N, 4)."""
    nuclei = np.where(masks_3ZYX[1] != 0, masks_3ZYX[2], 0)
    labels = np.flatnonzero(np.bincount(nuclei.ravel())[1:] >= FEWEST_VOXELS) + 1
    if not len(labels):
        return np.zeros((0, 4))
    return np.column_stack([labels, np.asarray(ndi.center_of_mass(nuclei > 0, nuclei, labels))])


class CellsDataModule(OrganelleDataModule):
    """Data of the cells task: labelled fields.

    Parameters
    ----------
    config : CellsFolder or CellsSimulator
        Section `data:` of the run's config.
    seed : int
        Seed of the run.
    method : str
        Method of the run. `network`: samples are whole fields with one random nucleus; `offsets`: samples are patches
        with all their nuclei.
    **options
        See `TaskDataModule`.
    """

    spacing = True
    preparer = CellPreparer

    def __init__(self, config: CellsFolder | CellsSimulator, seed: int, method: str, **options: Any) -> None:
        super().__init__(config, seed, **options)
        self.method = method

    def find(self) -> dict[str, Sequence[Case]]:
        """Return the cases of every split.

        Raises
        ------
        InputError
            A case has no labels of cells or no mask of nuclei.
        """
        unchecked = isinstance(self.config, CellsFolder) and not self.cases
        found = super().find()
        if unchecked:
            for case in itertools.chain.from_iterable(found.values()):
                if missing := [name for name in ("nucleus", "cells") if name not in getattr(case, "masks", {})]:
                    raise DataError("no-mask", f"data.masks: {case.name}: no file of {' and '.join(missing)}; draw it")
        return found

    def _prepare(self, splits: Sequence[str]) -> None:
        super()._prepare([split for split in splits if split == "train"])
        if not any(len(entry.arrays()["nuclei"]) for entry in self.prepared["train"]):
            raise InputError("data: no cell of any training volume has a nucleus; training needs cells with a nucleus")

    def train_dataloader(self) -> DataLoader:
        """Return random patches that depend only on seed, epoch and index."""
        loader = super().train_dataloader()
        loader.collate_fn = collate_samples
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
        """Return raw validation cases on their own grid, one at a time, each on one rank only."""
        return self._raw("val")


def collate_samples(batch: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a batch of stacked arrays; `nuclei` stay a list, since their number differs."""
    stacked = {key: torch.stack([sample[key] for sample in batch]) for key in batch[0] if key != "nuclei"}
    return {**stacked, "nuclei": [sample["nuclei"] for sample in batch]}
