"""Segment cells with a network: one pass per nucleus, as published, or one pass for all by centre offsets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.ndimage as ndi
import torch
from monai.networks.utils import eval_mode
from torch import nn

from cytovox.errors import DeviceError
from cytovox.inference.cell_layer import find_slab
from cytovox.inference.device import autocast
from cytovox.inference.device_memory import DeviceLimits, note
from cytovox.inference.tiling import SlidingWindow
from cytovox.preprocess.intensity import NormaliseRI
from cytovox.preprocess.resampling import ResampleTo, common_grid
from cytovox.segmentation.centre_offsets import (
    DOUBT_UM,
    REACH_UM,
    UNIT_UM,
    assign_offsets,
    resolve_ambiguous,
    split_nuclei,
)
from cytovox.segmentation.field import CellField, FoundCells, SeedRule, Shape, resize_image, resize_labels
from cytovox.segmentation.watershed import ZYX

#: Fields up to this many voxels of the common grid are processed without windows: half a gigabyte of features with 16
#: channels and half the resolution. Windows that overlap by half would compute every voxel up to eight times.
WHOLE_VOXELS = 2**23


@dataclass
class _NetworkCells:
    """Common options of both methods."""

    network: nn.Module
    """Network that returns logits or offsets (B, K, Z, Y, X)."""
    resample: ResampleTo
    """Grid that the network was trained on."""
    normalise: NormaliseRI = field(default_factory=NormaliseRI)
    """Normalisation of the refractive index to 0..1; without an index the input is 0."""
    rule: SeedRule = field(default_factory=SeedRule)
    """Options of separating nuclei."""
    device: str = "cpu"
    precision: str = "32-true"
    progress: Callable[[int, int], None] | None = None
    """Callback with the number of finished passes and of all passes."""

    def _images(self, cells: CellField, shape: Shape) -> torch.Tensor:
        """Return RI, membrane and nucleus, float32 (3, *shape), on the device."""
        ri = np.zeros(shape, np.float32)
        if cells.ri_ZYX is not None:
            ri = self.normalise(resize_image(cells.ri_ZYX, shape))
        masks = [resize_image(mask, shape) for mask in (cells.membrane_ZYX, cells.nucleus_ZYX)]
        return torch.from_numpy(np.stack([ri, *masks])).to(self.device)

    def _run(self, windows_BCZYX: torch.Tensor) -> torch.Tensor:
        with autocast(windows_BCZYX.device.type, self.precision):
            output: torch.Tensor = self.network(windows_BCZYX)
        return output.float()


@dataclass
class ConditionedCells(_NetworkCells):
    """One pass per nucleus: from one nucleus and all others, the network predicts its cell (Choi et al. 2021).

    Every voxel is assigned to the nucleus with the highest probability, and to none below 0.5.
    """

    batch_size: int = 4
    """Number of nuclei in a batch."""
    z: str = "fit"
    """`fit`: the whole depth, resampled to the grid. `center`: as many slices of the field as the grid has, centred on
    the layer of cells (published: the central slices). `middle`: as many slices, in the middle of the field. There are
    no cells in the other slices."""

    def __post_init__(self) -> None:
        self.limits = DeviceLimits(self.batch_size)
        self._noted = False

    @torch.inference_mode()
    def __call__(self, cells: CellField) -> FoundCells:
        """Return the cells of a field, predicted nucleus by nucleus."""
        slab = self._slab(cells)
        inner = cells.slices(slab)
        inside = self.rule.seeds(inner)
        labels = np.unique(inside[inside > 0])
        shape, _ = common_grid(inner.shape, cells.spacing_um, self.resample)
        images = self._images(inner, shape)
        own = torch.from_numpy(resize_labels(inside, shape).astype(np.int32)).to(self.device)
        best = torch.full(shape, 0.5, device=self.device)
        found = torch.zeros(shape, dtype=torch.int32, device=self.device)
        done = 0
        with eval_mode(self.network.to(self.device)):
            while done < len(labels):
                group = [int(label) for label in labels[done : done + self.limits.batch]]
                probabilities_BZYX = self._probabilities(images, own, group)
                if probabilities_BZYX is None:
                    continue
                for label, probability_ZYX in zip(group, probabilities_BZYX, strict=True):
                    better = probability_ZYX >= best
                    found.masked_fill_(better, label)
                    best = torch.where(better, probability_ZYX, best)
                done += len(group)
                if self.progress is not None:
                    self.progress(done, len(labels))
        result, seeds = np.zeros((2, *cells.shape), np.int32)
        result[slab], seeds[slab] = resize_labels(found.cpu().numpy(), inner.shape), inside
        return FoundCells(result, seeds)

    def _probabilities(self, images: torch.Tensor, own: torch.Tensor, labels: list[int]) -> torch.Tensor | None:
        """Return the probability of each nucleus' cell, (B, Z, Y, X); None if memory was too small for this batch."""
        try:
            return self._run(torch.stack([conditioned(images, own, label) for label in labels])).sigmoid()[:, 0]
        except torch.OutOfMemoryError as error:
            if not self.limits.halve_batch(len(labels), "nuclei"):
                raise DeviceError(
                    "out of memory on the device with one nucleus at a time: choose precision 16-mixed or bf16-mixed, "
                    "the CPU, or method offsets; or end other programs that use the device"
                ) from error
        return None

    def _slab(self, cells: CellField) -> slice:
        """Return the slices to segment, chosen by the refractive index, or else by the membrane."""
        if self.z == "fit" or self.resample.grid is None:
            return slice(0, cells.shape[0])
        image = cells.membrane_ZYX if cells.ri_ZYX is None else self.normalise(np.asarray(cells.ri_ZYX, np.float32))
        layer = find_slab(self.z, self.resample.grid[0], image)
        if layer.notes and not self._noted:
            self._noted = True
            note(f"{layer.notes[0]} (printed once, for the first such field)")
        return slice(layer.start, layer.stop)


def conditioned(images_3ZYX: torch.Tensor, seeds_ZYX: torch.Tensor, label: int) -> torch.Tensor:
    """Return the network's input for one nucleus: RI, membrane, this nucleus, all others; float32 (4, Z, Y, X)."""
    ri, membrane, nucleus = images_3ZYX
    this, others = seeds_ZYX == label, (seeds_ZYX != label) & (seeds_ZYX > 0)
    return torch.stack([ri, membrane, *(nucleus.masked_fill(~mask, 0) for mask in (this, others))])


@dataclass
class CentreOffsetCells(_NetworkCells):
    """One pass for any number of cells: the offset of every voxel to its cell's nucleus (see `centre_offsets`)."""

    tiling: SlidingWindow = field(default_factory=SlidingWindow)
    """Windows of the pass."""
    flips: Sequence[Sequence[int]] = ((),)
    """Mirror images whose offsets are averaged: each a set of axes 0, 1, 2 (z, y, x)."""
    split: bool = True
    """Whether touching nuclei are split by their offsets."""
    reach_um: float = REACH_UM
    """Argument of `cytovox.segmentation.centre_offsets.assign_offsets`."""
    doubt_um: float = DOUBT_UM
    """Argument of `cytovox.segmentation.centre_offsets.resolve_ambiguous`."""

    def __post_init__(self) -> None:
        self._fits_whole = True

    @torch.inference_mode()
    def __call__(self, cells: CellField) -> FoundCells:
        """Return the cells of a field."""
        return self.decide(cells, *self.offsets_um(cells))

    def offsets_um(self, cells: CellField) -> tuple[np.ndarray, ZYX]:
        """Return the end point of each voxel's offset on the common grid, float32 (Z, Y, X, 3) in µm, and the spacing.

        End points are z, y, x from the centre of the first voxel.
        """
        shape, spacing_um = common_grid(cells.shape, cells.spacing_um, self.resample)
        images = self._images(cells, shape)
        mean = torch.zeros(3, *shape, device=self.device)
        with torch.inference_mode(), eval_mode(self.network.to(self.device)):
            for done, axes in enumerate(self.flips, start=1):
                along = [1 + axis for axis in axes]
                view = self._pass(images.flip(along)).flip(along)
                for axis in axes:
                    view[axis] *= -1
                mean += view / len(self.flips)
                if self.progress is not None:
                    self.progress(done, len(self.flips))
        offsets = np.moveaxis(UNIT_UM * mean.cpu().numpy(), 0, -1)
        for axis, index in enumerate(np.ogrid[: shape[0], : shape[1], : shape[2]]):
            offsets[..., axis] += index.astype(np.float32) * np.float32(spacing_um[axis])
        return offsets, spacing_um

    def _pass(self, images_3ZYX: torch.Tensor) -> torch.Tensor:
        """Return the offsets of a field, (3, Z, Y, X): without windows if it is small enough."""
        if self._fits_whole and images_3ZYX[0].numel() <= WHOLE_VOXELS:
            try:
                return self._whole(images_3ZYX)
            except torch.OutOfMemoryError:
                self._fits_whole = False
                note("a field does not fit into the device's memory at once: it is cut into windows from now on")
        return self.tiling(images_3ZYX[None], self._run)[0]

    def _whole(self, images_3ZYX: torch.Tensor) -> torch.Tensor:
        """Return the offsets of a field without windows, padded to a size that the network accepts."""
        shape = images_3ZYX.shape[1:]
        step, least = getattr(self.network, "divisor", (1, 1, 1)), getattr(self.network, "minimum", (1, 1, 1))
        z, y, x = (max(m, -(-n // s) * s) - n for n, s, m in zip(shape, step, least, strict=True))
        mode = "replicate" if z or y or x else "constant"
        padded = nn.functional.pad(images_3ZYX[None], [0, x, 0, y, 0, z], mode=mode)
        return self._run(padded)[0, :, : shape[0], : shape[1], : shape[2]]

    def decide(self, cells: CellField, offsets_ZYX3: np.ndarray, spacing_um: ZYX) -> FoundCells:
        """Return the cells on the field's own grid, from offsets on the common grid."""
        z, y, x, _ = offsets_ZYX3.shape
        shape, membrane, nucleus = (z, y, x), cells.inside("membrane"), cells.inside("nucleus")
        if cells.seeds_ZYX is not None:
            seeds = np.asarray(cells.seeds_ZYX, np.int32)
            coarse = resize_labels(seeds, shape)
        else:
            coarse_nucleus = resize_image(nucleus, shape) >= 0.5
            coarse = self.rule.seeds(CellField(coarse_nucleus, coarse_nucleus, spacing_um))
            if self.split:
                coarse = split_nuclei(coarse, offsets_ZYX3, spacing_um)
            seeds = np.where(nucleus, resize_labels(_dilated(coarse), cells.shape), 0).astype(np.int32)
        coarse_membrane = resize_image(membrane, shape) >= 0.5
        labels, margin = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        labels[coarse_membrane], margin[coarse_membrane] = assign_offsets(
            offsets_ZYX3[coarse_membrane], coarse, spacing_um, self.reach_um
        )
        labels = resolve_ambiguous(labels, margin, coarse, spacing_um, self.doubt_um)
        # a voxel of the fine mask whose coarse voxel is outside the coarse mask takes the label of a neighbour
        labels = resize_labels(np.where(coarse_membrane, labels, _dilated(labels)), cells.shape)
        return FoundCells(np.where(seeds > 0, seeds, np.where(membrane, labels, 0)).astype(np.int32), seeds)


def _dilated(labels_ZYX: np.ndarray) -> np.ndarray:
    """Return the labels, extended by one voxel into the background."""
    return np.where(labels_ZYX > 0, labels_ZYX, ndi.grey_dilation(labels_ZYX, size=(3, 3, 3)))
