"""Cells by a network: one pass per nucleus, as published, or all at once by centre offsets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.ndimage as ndi
import torch
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
from cytovox.segmentation.field import CellField, FoundCells, SeedRule, resize_image, resize_labels

Shape = tuple[int, int, int]


#: Fields up to this many voxels of the common grid are seen at once: half a gigabyte of features at 16 channels and
#: half the resolution. Windows that overlap by half would compute every voxel up to eight times.
WHOLE_VOXELS = 2**23


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
    """Called with the number of passes that are done, and of all."""

    def _images(self, cells: CellField, shape: Shape) -> torch.Tensor:
        """RI, membrane and nucleus, float32 (3, *shape), on the device."""
        ri = np.zeros(shape, np.float32) if cells.ri_ZYX is None else resize_image(cells.ri_ZYX, shape)
        images = [ri if cells.ri_ZYX is None else self.normalise(ri)]
        images += [resize_image(said, shape) for said in (cells.membrane_ZYX, cells.nucleus_ZYX)]
        return torch.from_numpy(np.stack([np.asarray(image, np.float32) for image in images])).to(self.device)

    def _run(self, windows_BCZYX: torch.Tensor) -> torch.Tensor:
        with autocast(windows_BCZYX.device.type, self.precision):
            output: torch.Tensor = self.network(windows_BCZYX)
        return output.float()


@dataclass
class ConditionedCells(_NetworkCells):
    """One pass a nucleus: a network is shown a nucleus and all others, and answers with its cell (Choi et al. 2021).

    Every voxel goes to the nucleus with the highest probability, and to none below 0.5.
    """

    batch_size: int = 4
    """Nuclei the network sees at once."""
    z: str = "fit"
    """`fit`: the whole depth on the grid. `center`: only as many of the field's slices as the grid has, centred on the
    layer of cells (published: the central ones). `middle`: as many in the middle. Nothing is found above or below."""

    def __post_init__(self) -> None:
        self.limits = DeviceLimits(self.batch_size)
        self._noted = False

    @torch.inference_mode()
    def __call__(self, cells: CellField) -> FoundCells:
        """Find the cells of a field, nucleus by nucleus."""
        slab = self._slab(cells)
        inner = cells.slices(slab)
        inside = self.rule.seeds(inner)
        labels = np.unique(inside[inside > 0])
        seeds = np.zeros(cells.shape, np.int32)
        seeds[slab] = inside
        shape, _ = common_grid(inner.shape, cells.spacing_um, self.resample)
        images = self._images(inner, shape)
        own = torch.from_numpy(resize_labels(inside, shape).astype(np.int32)).to(self.device)
        best = torch.full(shape, 0.5, device=self.device)
        found = torch.zeros(shape, dtype=torch.int32, device=self.device)
        done = 0
        with evaluating(self.network, self.device):
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
        result = np.zeros(cells.shape, np.int32)
        result[slab] = resize_labels(found.cpu().numpy(), inner.shape)
        return FoundCells(result, seeds)

    def _probabilities(self, images: torch.Tensor, own: torch.Tensor, labels: list[int]) -> torch.Tensor | None:
        """Of each nucleus' cell, (B, Z, Y, X); None where so many do not fit into memory, and fewer are to be tried."""
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
        """Slices that the network sees: by the index, or where there is none, by the membrane that is given."""
        if self.z == "fit" or self.resample.grid is None:
            return slice(0, cells.shape[0])
        image = cells.membrane_ZYX if cells.ri_ZYX is None else self.normalise(np.asarray(cells.ri_ZYX, np.float32))
        layer = find_slab(self.z, self.resample.grid[0], image)
        if layer.notes and not self._noted:
            self._noted = True
            note(f"{layer.notes[0]} (said once, for the first of such fields)")
        return slice(layer.start, layer.stop)


def conditioned(images_3ZYX: torch.Tensor, seeds_ZYX: torch.Tensor, label: int) -> torch.Tensor:
    """What the network is shown of one nucleus: RI, membrane, this nucleus, all others; float32 (4, Z, Y, X)."""
    ri, membrane, nucleus = images_3ZYX
    nothing = torch.zeros_like(nucleus)
    positive = torch.where(seeds_ZYX == label, nucleus, nothing)
    negative = torch.where((seeds_ZYX != label) & (seeds_ZYX > 0), nucleus, nothing)
    return torch.stack([ri, membrane, positive, negative])


@dataclass
class CentreOffsetCells(_NetworkCells):
    """One pass whatever the number of cells: the offset of every voxel to its cell's nucleus (see `centre_offsets`)."""

    tiling: SlidingWindow = field(default_factory=SlidingWindow)
    """Windows of the pass, and how they blend."""
    flips: Sequence[Sequence[int]] = ((),)
    """Mirror images whose offsets are averaged: each a set of axes 0, 1, 2 (z, y, x)."""
    split: bool = True
    """Split touching nuclei by their offsets."""
    reach_um: float = REACH_UM
    """As of `cytovox.segmentation.centre_offsets.assign_offsets`."""
    doubt_um: float = DOUBT_UM
    """As of `cytovox.segmentation.centre_offsets.resolve_ambiguous`."""

    def __post_init__(self) -> None:
        self._fits_whole = True

    @torch.inference_mode()
    def __call__(self, cells: CellField) -> FoundCells:
        """Find the cells of a field."""
        offsets, spacing_um = self.offsets_um(cells)
        return self.decide(cells, offsets, spacing_um)

    def offsets_um(self, cells: CellField) -> tuple[np.ndarray, tuple[float, float, float]]:
        """Where each voxel of the common grid says its nucleus lies, float32 (Z, Y, X, 3) in µm, and the spacing."""
        shape, spacing_um = common_grid(cells.shape, cells.spacing_um, self.resample)
        images = self._images(cells, shape)
        mean = torch.zeros(3, *shape, device=self.device)
        with torch.inference_mode(), evaluating(self.network, self.device):
            for done, axes in enumerate(self.flips, start=1):
                along = [1 + axis for axis in axes]
                view = self._pass(images.flip(along) if along else images)
                view = view.flip(along) if along else view
                for axis in axes:
                    view[axis] *= -1
                mean += view / len(self.flips)
                if self.progress is not None:
                    self.progress(done, len(self.flips))
        offsets = np.moveaxis(UNIT_UM * mean.cpu().numpy(), 0, -1)
        for axis, size in enumerate(shape):
            places = np.arange(size, dtype=np.float32) * np.float32(spacing_um[axis])
            offsets[..., axis] += places.reshape([-1 if k == axis else 1 for k in range(3)])
        return offsets, spacing_um

    def _pass(self, images_3ZYX: torch.Tensor) -> torch.Tensor:
        """Offsets of a whole field: at once where it is small enough, else window by window; (3, Z, Y, X)."""
        shape = images_3ZYX.shape[1:]
        if self._fits_whole and np.prod(shape) <= WHOLE_VOXELS:
            try:
                return self._whole(images_3ZYX)
            except torch.OutOfMemoryError:
                self._fits_whole = False
                note("a field does not fit into the device's memory at once: it is cut into windows from now on")
        return self.tiling(images_3ZYX[None], self._run)[0]

    def _whole(self, images_3ZYX: torch.Tensor) -> torch.Tensor:
        """The same at once, padded to a size that the network takes."""
        shape = images_3ZYX.shape[1:]
        step, least = getattr(self.network, "divisor", (1, 1, 1)), getattr(self.network, "minimum", (1, 1, 1))
        full = [max(m, -(-n // s) * s) for n, s, m in zip(shape, step, least, strict=True)]
        pads = [(full[axis] - shape[axis]) for axis in range(3)]
        padded = nn.functional.pad(
            images_3ZYX[None], [0, pads[2], 0, pads[1], 0, pads[0]], mode="replicate" if any(pads) else "constant"
        )
        return self._run(padded)[0, :, : shape[0], : shape[1], : shape[2]]

    def _seeds(
        self, cells: CellField, offsets_ZYX3: np.ndarray, spacing_um: tuple[float, float, float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Nuclei on the common grid, and on the field's own."""
        inside = cells.inside("nucleus")
        shape = (offsets_ZYX3.shape[0], offsets_ZYX3.shape[1], offsets_ZYX3.shape[2])
        known = resize_image(inside, shape) >= 0.5
        coarse = self.rule.seeds(CellField(known, known, spacing_um))
        if self.split:
            coarse = split_nuclei(coarse, offsets_ZYX3, spacing_um)
        return coarse, np.where(inside, resize_labels(beside(coarse), cells.shape), 0).astype(np.int32)

    def decide(self, cells: CellField, offsets_ZYX3: np.ndarray, spacing_um: tuple[float, float, float]) -> FoundCells:
        """Return the cells on the field's own grid, from offsets on the common grid."""
        shape = offsets_ZYX3.shape[:3]
        if cells.seeds_ZYX is not None:
            seeds = np.asarray(cells.seeds_ZYX, np.int32)
            coarse = resize_labels(seeds, shape)
        else:
            coarse, seeds = self._seeds(cells, offsets_ZYX3, spacing_um)
        membrane = resize_image(cells.inside("membrane"), shape) >= 0.5
        claimed, margin = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        claimed[membrane], margin[membrane] = assign_offsets(offsets_ZYX3[membrane], coarse, spacing_um, self.reach_um)
        claimed = resolve_ambiguous(claimed, margin, coarse, spacing_um, self.doubt_um)
        return FoundCells(spread(claimed, cells.inside("membrane"), seeds), seeds)


def beside(labels_ZYX: np.ndarray) -> np.ndarray:
    """Labels, and where there is none, that of a neighbour."""
    return np.where(labels_ZYX > 0, labels_ZYX, ndi.grey_dilation(labels_ZYX, size=(3, 3, 3)))


def spread(coarse_ZYX: np.ndarray, membrane_ZYX: np.ndarray, seeds_ZYX: np.ndarray) -> np.ndarray:
    """Cells of a coarse grid on the fine one: inside the mask, and over each nucleus, to the mask's very edge.

    A voxel of the mask whose coarse voxel lies outside of it takes the cell of a coarse voxel beside that one.
    """
    shape = (membrane_ZYX.shape[0], membrane_ZYX.shape[1], membrane_ZYX.shape[2])
    outside = resize_image(membrane_ZYX, coarse_ZYX.shape) < 0.5
    cells = resize_labels(np.where(outside, beside(coarse_ZYX), coarse_ZYX), shape)
    cells = np.where(membrane_ZYX, cells, 0)
    np.copyto(cells, seeds_ZYX, where=seeds_ZYX > 0)
    return cells.astype(np.int32, copy=False)


class evaluating:
    """Evaluation mode, and the device, for the time of the context."""

    def __init__(self, network: nn.Module, device: str) -> None:
        self.network, self.training = network.to(device), network.training

    def __enter__(self) -> None:
        self.network.eval()

    def __exit__(self, *_: object) -> None:
        self.network.train(self.training)
