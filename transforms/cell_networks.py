"""Cells by a network: nucleus by nucleus as published, or all at once by votes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from transforms.cell_field import CellField, FoundCells, SeedRule, resize_image, resize_labels
from transforms.cell_votes import (
    DOUBT_UM,
    REACH_UM,
    UNIT_UM,
    assign_votes,
    join_parts,
    settle_doubts,
    split_nuclei,
)
from transforms.ensemble import autocast
from transforms.intensity import NormaliseRI
from transforms.spatial import ResampleTo, common_grid
from transforms.tiling import SlidingWindow

Shape = tuple[int, int, int]


@dataclass
class _NetworkCells:
    """What both have."""

    network: nn.Module
    """Logits or offsets (B, K, Z, Y, X)."""
    resample: ResampleTo
    """The grid that it was trained on."""
    normalise: NormaliseRI = field(default_factory=NormaliseRI)
    """Refractive index to 0..1; a field without one is all 0."""
    rule: SeedRule = field(default_factory=SeedRule)
    """What one nucleus is."""
    device: str = "cpu"
    precision: str = "32-true"
    progress: Callable[[int, int], None] | None = None
    """Told how many passes of how many are done."""

    def _images(self, cells: CellField, shape: Shape) -> torch.Tensor:
        """RI, membrane and nucleus, float32 (3, *shape)."""
        ri = np.zeros(shape, np.float32) if cells.ri_ZYX is None else resize_image(cells.ri_ZYX, shape)
        images = [ri if cells.ri_ZYX is None else self.normalise(ri)]
        images += [resize_image(said, shape) for said in (cells.membrane_ZYX, cells.nucleus_ZYX)]
        return torch.from_numpy(np.stack([np.asarray(image, np.float32) for image in images]))

    def _run(self, windows_BCZYX: torch.Tensor) -> torch.Tensor:
        with autocast(self.device, self.precision):
            said: torch.Tensor = self.network(windows_BCZYX.to(self.device))
        return said.float()


@dataclass
class ConditionedCells(_NetworkCells):
    """One pass a nucleus: a network is shown a nucleus and all others, and answers with its cell (Choi et al. 2021).

    Every voxel goes to the nucleus with the highest probability, and to none below 0.5.
    """

    batch_size: int = 4
    """Nuclei the network sees at once."""
    z: str = "fit"
    """`fit`: the whole depth on the grid; `center`: only its central slices, as many as the grid has, as published."""

    @torch.inference_mode()
    def __call__(self, cells: CellField) -> FoundCells:
        """Find the cells of a field, nucleus by nucleus."""
        seeds = self.rule.seeds(cells)
        labels = np.unique(seeds)[1:]
        slab = self._slab(cells.shape)
        ri = None if cells.ri_ZYX is None else cells.ri_ZYX[slab]
        inner = CellField(cells.membrane_ZYX[slab], cells.nucleus_ZYX[slab], cells.spacing_um, ri)
        shape, _ = common_grid(inner.shape, cells.spacing_um, self.resample)
        images = self._images(inner, shape)
        own = torch.from_numpy(resize_labels(seeds[slab], shape).astype(np.int32))
        best, found = torch.full(shape, 0.5), torch.zeros(shape, dtype=torch.int32)
        with evaluating(self.network, self.device):
            for first in range(0, len(labels), self.batch_size):
                group = [int(label) for label in labels[first : first + self.batch_size]]
                probabilities = self._run(torch.stack([conditioned(images, own, k) for k in group])).sigmoid().cpu()
                for label, said in zip(group, probabilities[:, 0], strict=True):
                    better = said >= best
                    found[better], best[better] = label, said[better]
                if self.progress is not None:
                    self.progress(min(first + self.batch_size, len(labels)), len(labels))
        result = np.zeros(cells.shape, np.int32)
        result[slab] = resize_labels(found.numpy(), inner.shape)
        return FoundCells(result, seeds)

    def _slab(self, shape: Shape) -> slice:
        """Slices that the network sees."""
        grid = self.resample.grid
        if self.z == "fit" or grid is None or shape[0] <= grid[0]:
            return slice(0, shape[0])
        first = (shape[0] - grid[0]) // 2
        return slice(first, first + grid[0])


def conditioned(images_3ZYX: torch.Tensor, seeds_ZYX: torch.Tensor, label: int) -> torch.Tensor:
    """What the network is shown of one nucleus: RI, membrane, this nucleus, all others; float32 (4, Z, Y, X)."""
    ri, membrane, nucleus = images_3ZYX
    nothing = torch.zeros_like(nucleus)
    positive = torch.where(seeds_ZYX == label, nucleus, nothing)
    negative = torch.where((seeds_ZYX != label) & (seeds_ZYX > 0), nucleus, nothing)
    return torch.stack([ri, membrane, positive, negative])


@dataclass
class VotingCells(_NetworkCells):
    """One pass whatever the number of cells: every voxel votes for its cell's nucleus (`transforms.cell_votes`)."""

    tiling: SlidingWindow = field(default_factory=SlidingWindow)
    """Windows of the pass, and how they blend."""
    flips: Sequence[Sequence[int]] = ((),)
    """Mirror images whose votes are averaged: each a set of axes 0, 1, 2 (z, y, x)."""
    split: bool = True
    """Tell touching nuclei apart by their votes."""
    reach_um: float = REACH_UM
    """As of `transforms.cell_votes.assign_votes`."""
    doubt_um: float = DOUBT_UM
    """As of `transforms.cell_votes.settle_doubts`."""

    @torch.inference_mode()
    def __call__(self, cells: CellField) -> FoundCells:
        """Find the cells of a field."""
        votes, spacing_um = self.votes_um(cells)
        return self.decide(cells, votes, spacing_um)

    def votes_um(self, cells: CellField) -> tuple[np.ndarray, tuple[float, float, float]]:
        """Where each voxel of the common grid says its nucleus lies, float32 (Z, Y, X, 3) in µm, and the spacing."""
        shape, spacing_um = common_grid(cells.shape, cells.spacing_um, self.resample)
        images = self._images(cells, shape)
        said = torch.zeros(3, *shape)
        with torch.inference_mode(), evaluating(self.network, self.device):
            for done, axes in enumerate(self.flips, start=1):
                along = [1 + axis for axis in axes]
                offsets = self.tiling((images.flip(along) if along else images)[None], self._run)[0]
                offsets = offsets.flip(along) if along else offsets
                for axis in axes:
                    offsets[axis] *= -1
                said += offsets.cpu() / len(self.flips)
                if self.progress is not None:
                    self.progress(done, len(self.flips))
        votes = np.moveaxis(UNIT_UM * said.numpy(), 0, -1)
        for axis, size in enumerate(shape):
            places = np.arange(size, dtype=np.float32) * np.float32(spacing_um[axis])
            votes[..., axis] += places.reshape([-1 if k == axis else 1 for k in range(3)])
        return votes, spacing_um

    def decide(self, cells: CellField, votes_ZYX3: np.ndarray, spacing_um: tuple[float, float, float]) -> FoundCells:
        """Cells from votes on the common grid, on the field's own grid."""
        shape = votes_ZYX3.shape[:3]
        seeds = self.rule.seeds(cells)
        coarse = resize_labels(seeds, shape)
        if self.split and cells.seeds_ZYX is None:
            coarse = split_nuclei(coarse, votes_ZYX3, spacing_um)
            fine = resize_labels(coarse, cells.shape)
            seeds = np.where(seeds > 0, np.where(fine > 0, fine, nearest_label(fine, seeds > 0)), 0)
        membrane = resize_image(cells.inside("membrane"), shape) >= 0.5
        claimed, margin = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        claimed[membrane], margin[membrane] = assign_votes(votes_ZYX3[membrane], coarse, spacing_um, self.reach_um)
        claimed = settle_doubts(claimed, margin, coarse, spacing_um, self.doubt_um)
        claimed = join_parts(claimed, coarse, spacing_um)
        return FoundCells(spread(claimed, cells.inside("membrane"), seeds), seeds)


def spread(coarse_ZYX: np.ndarray, membrane_ZYX: np.ndarray, seeds_ZYX: np.ndarray) -> np.ndarray:
    """Cells of a coarse grid on the fine one: inside the mask, and over each nucleus, to the mask's very edge.

    A voxel of the mask whose coarse voxel lies outside of it takes the cell of the nearest coarse voxel within one.
    """
    import scipy.ndimage as ndi

    grown = np.where(coarse_ZYX > 0, coarse_ZYX, ndi.grey_dilation(coarse_ZYX, size=(3, 3, 3)))
    cells = resize_labels(coarse_ZYX, membrane_ZYX.shape)
    edge = resize_labels(grown, membrane_ZYX.shape)
    outside = resize_labels((resize_image(membrane_ZYX, coarse_ZYX.shape) < 0.5).astype(np.uint8), membrane_ZYX.shape)
    cells = np.where(outside != 0, edge, cells)
    return np.where(seeds_ZYX > 0, seeds_ZYX, np.where(membrane_ZYX, cells, 0)).astype(np.int32)


def nearest_label(labels_ZYX: np.ndarray, wanted_ZYX: np.ndarray) -> np.ndarray:
    """Labels, and where one is wanted and none is, that of the nearest labelled voxel."""
    import scipy.ndimage as ndi

    missing = wanted_ZYX & (labels_ZYX == 0)
    if not missing.any() or not (labels_ZYX > 0).any():
        return labels_ZYX
    z, y, x = ndi.distance_transform_edt(labels_ZYX == 0, return_distances=False, return_indices=True)
    return np.where(missing, labels_ZYX[z, y, x], labels_ZYX)


class evaluating:
    """Evaluation mode, and the device, for the time of the context."""

    def __init__(self, network: nn.Module, device: str) -> None:
        self.network, self.training = network.to(device), network.training

    def __enter__(self) -> None:
        self.network.eval()

    def __exit__(self, *_: object) -> None:
        self.network.train(self.training)
