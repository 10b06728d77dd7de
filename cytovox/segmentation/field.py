"""What cells are found in, and what is found: one interface for every method."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from cytovox.preprocess.resampling import resize_linear
from cytovox.segmentation.seeds import MIN_VOLUME_UM3, nucleus_seeds

ZYX = tuple[float, float, float]
Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class CellField:
    """A frame whose cells are to be found. All arrays are (Z, Y, X)."""

    membrane_ZYX: np.ndarray
    """Probability that a voxel lies in a cell, or a mask: float32, or bool."""
    nucleus_ZYX: np.ndarray
    """The same of nuclei."""
    spacing_um: ZYX
    """Voxel size z, y, x."""
    ri_ZYX: np.ndarray | None = None
    """Refractive index; None where only masks are known."""
    seeds_ZYX: np.ndarray | None = None
    """Labels of the nuclei: int, 0 elsewhere. None to separate them by the method's own `SeedRule`."""
    threshold: float = 0.5
    """Probability from which a voxel belongs to membrane or nucleus."""

    @property
    def shape(self) -> Shape:
        """z, y, x."""
        z, y, x = self.membrane_ZYX.shape
        return z, y, x

    def slices(self, part: slice) -> "CellField":
        """The same field, these slices of it only."""
        ri, seeds = (None if whole is None else whole[part] for whole in (self.ri_ZYX, self.seeds_ZYX))
        return CellField(self.membrane_ZYX[part], self.nucleus_ZYX[part], self.spacing_um, ri, seeds, self.threshold)

    def inside(self, what: str) -> np.ndarray:
        """Mask of "membrane" or "nucleus": bool array (Z, Y, X)."""
        values = self.membrane_ZYX if what == "membrane" else self.nucleus_ZYX
        return np.asarray(values >= self.threshold) if values.dtype.kind == "f" else np.asarray(values != 0)


@dataclass(frozen=True, eq=False)
class FoundCells:
    """Cells, and the nuclei they came from: cell k grew from nucleus k."""

    cells_ZYX: np.ndarray
    """int32, 0 where no cell is."""
    seeds_ZYX: np.ndarray
    """int32; a nucleus that no cell grew from is still here."""


class CellFinder(Protocol):
    """A method of telling cells from each other."""

    def __call__(self, cells: CellField) -> FoundCells:
        """Find them, on the field's own grid."""
        ...


@dataclass(frozen=True)
class SeedRule:
    """Which parts of a nucleus mask are one nucleus each."""

    min_volume_um3: float = MIN_VOLUME_UM3
    """Smaller components are no nuclei."""
    min_voxels: int = 0
    """The same in voxels of a grid of 64 x 128 x 128, as in the paper (200 there); 0 leaves it to the volume."""
    split_depth_um: float | None = None
    """Components are cut at necks that are narrower by so much than both sides, such as `seeds.SPLIT_DEPTH_UM`; None
    leaves them whole (the paper)."""

    def seeds(self, cells: CellField) -> np.ndarray:
        """Seeds of a field: its own, or those of its nucleus mask. int32 array (Z, Y, X)."""
        if cells.seeds_ZYX is not None:
            return np.asarray(cells.seeds_ZYX, np.int32)
        share = float(np.prod(cells.shape)) / (64 * 128 * 128)
        return nucleus_seeds(
            cells.inside("nucleus"),
            cells.spacing_um,
            min_volume_um3=self.min_volume_um3,
            min_voxels=max(1, round(self.min_voxels * share)),
            split_depth_um=self.split_depth_um,
        )


@dataclass(frozen=True)
class WatershedCells:
    """Seeded watershed of the membrane mask: the baseline without learning."""

    rule: SeedRule = field(default_factory=SeedRule)

    def __call__(self, cells: CellField) -> FoundCells:
        """Flood the mask from the seeds, deepest places first."""
        from cytovox.segmentation.watershed import seeded_watershed

        seeds = self.rule.seeds(cells)
        return FoundCells(seeded_watershed(cells.inside("membrane"), seeds, cells.spacing_um), seeds)


def resize_labels(labels_ZYX: np.ndarray, shape_ZYX: Shape) -> np.ndarray:
    """Labels on another grid of the same field of view: each voxel takes that of the voxel it lies in.

    Parameters
    ----------
    labels_ZYX : integer array, (Z, Y, X)
        Labels.
    shape_ZYX : three ints
        The new size.

    Returns
    -------
    array, `shape_ZYX`
        Of the same number type; the very same array where the size does not change.
    """
    if labels_ZYX.shape == tuple(shape_ZYX):
        return labels_ZYX
    z, y, x = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for old, new in zip(labels_ZYX.shape, shape_ZYX, strict=True)
    )
    return np.ascontiguousarray(labels_ZYX[z][:, y][:, :, x])


def resize_image(values_ZYX: np.ndarray, shape_ZYX: Shape) -> np.ndarray:
    """Probabilities, a mask or an image on another grid, trilinear: float32 array."""
    source = torch.from_numpy(np.require(values_ZYX, np.float32, ["C", "W"]))
    return resize_linear(source[None], shape_ZYX)[0].numpy()
