"""Input, output and interface of all methods of cell segmentation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from cytovox.preprocess.resampling import resize_linear
from cytovox.segmentation.seeds import MIN_VOLUME_UM3, nucleus_seeds
from cytovox.segmentation.watershed import ZYX, seeded_watershed

Shape = tuple[int, int, int]

#: Organelles whose masks or probabilities are the input of the methods that separate cells.
CELL_INPUTS = frozenset({"membrane", "nucleus"})


@dataclass(frozen=True, eq=False)
class CellField:
    """Input of a cell segmentation: one frame. All arrays are (Z, Y, X)."""

    membrane_ZYX: np.ndarray
    """Probability that a voxel lies in a cell (float32), or a mask (bool)."""
    nucleus_ZYX: np.ndarray
    """Probability that a voxel lies in a nucleus (float32), or a mask (bool)."""
    spacing_um: ZYX
    """Voxel size z, y, x."""
    ri_ZYX: np.ndarray | None = None
    """Refractive index; None if only masks are known."""
    seeds_ZYX: np.ndarray | None = None
    """Labels of the nuclei: int, 0 elsewhere. None to separate them by the method's own `SeedRule`."""
    threshold: float = 0.5
    """Least probability of a voxel of membrane or nucleus."""

    @property
    def shape(self) -> Shape:
        """Return the size z, y, x."""
        z, y, x = self.membrane_ZYX.shape
        return z, y, x

    def slices(self, part: slice) -> "CellField":
        """Return the field cropped to these slices."""
        ri, seeds = (None if whole is None else whole[part] for whole in (self.ri_ZYX, self.seeds_ZYX))
        return CellField(self.membrane_ZYX[part], self.nucleus_ZYX[part], self.spacing_um, ri, seeds, self.threshold)

    def inside(self, what: str) -> np.ndarray:
        """Return the mask of "membrane" or "nucleus": bool array (Z, Y, X)."""
        values = self.membrane_ZYX if what == "membrane" else self.nucleus_ZYX
        return np.asarray(values >= self.threshold) if values.dtype.kind == "f" else np.asarray(values != 0)


@dataclass(frozen=True, eq=False)
class FoundCells:
    """Segmented cells and their nuclei: cell k belongs to nucleus k."""

    cells_ZYX: np.ndarray
    """int32, 0 outside cells."""
    seeds_ZYX: np.ndarray
    """int32; includes nuclei without a cell."""


def finder_inputs(
    masks: Mapping[str, np.ndarray], probabilities: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return membrane and nucleus for a `CellField`: their probabilities if both are known, or else their masks.

    Parameters
    ----------
    masks : dict of str to bool array, (Z, Y, X)
        Masks of the organelles.
    probabilities : dict of str to uint8 array, (Z, Y, X)
        Probabilities, 0 to 255. In closed holes of the membrane mask, that of the membrane is raised to 0.5.
    """
    if not probabilities.keys() >= CELL_INPUTS:
        return masks["membrane"], masks["nucleus"]
    membrane, nucleus = (probabilities[name].astype(np.float32) / 255 for name in ("membrane", "nucleus"))
    return np.where(masks["membrane"], np.maximum(membrane, np.float32(0.5)), membrane), nucleus


class CellFinder(Protocol):
    """A method of cell segmentation."""

    def __call__(self, cells: CellField) -> FoundCells:
        """Return the cells on the field's own grid."""


@dataclass(frozen=True)
class SeedRule:
    """Options of separating nuclei in a mask."""

    min_volume_um3: float = MIN_VOLUME_UM3
    """Least volume of a nucleus."""
    min_voxels: int = 0
    """Least size of a nucleus in voxels of a grid of 64 x 128 x 128 (200 in the paper); 0 for no limit."""
    split_depth_um: float | None = None
    """Depth of a neck at which components are split, such as `seeds.SPLIT_DEPTH_UM`; None for no splitting, as in the
    paper."""

    def seeds(self, cells: CellField) -> np.ndarray:
        """Return the seeds of a field, given or from its nucleus mask: int32 array (Z, Y, X)."""
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
        """Return the cells on the field's own grid."""
        seeds = self.rule.seeds(cells)
        return FoundCells(seeded_watershed(cells.inside("membrane"), seeds, cells.spacing_um), seeds)


def resize_labels(labels_ZYX: np.ndarray, shape_ZYX: Shape) -> np.ndarray:
    """Resample labels to another grid of the same field of view, by nearest neighbour.

    Parameters
    ----------
    labels_ZYX : integer array, (Z, Y, X)
        Labels.
    shape_ZYX : three ints
        The new size.

    Returns
    -------
    array, `shape_ZYX`
        Same dtype; the input array itself if the size does not change.
    """
    if labels_ZYX.shape == tuple(shape_ZYX):
        return labels_ZYX
    z, y, x = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for old, new in zip(labels_ZYX.shape, shape_ZYX, strict=True)
    )
    return np.ascontiguousarray(labels_ZYX[z][:, y][:, :, x])


def resize_image(values_ZYX: np.ndarray, shape_ZYX: Shape) -> np.ndarray:
    """Resample probabilities, a mask or an image to another grid, trilinear: float32 array."""
    source = torch.from_numpy(np.require(values_ZYX, np.float32, ["C", "W"]))
    return resize_linear(source[None], shape_ZYX)[0].numpy()
