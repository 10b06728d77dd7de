"""Section `data:` of a cells config: tomograms with labels of cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cytovox.organelles import CELLS
from datamodules.config import FolderData, OrganelleData, SimulatorData, data_errors, share_checks
from datamodules.errors import failed

#: Arrays read for every case, in this order: two masks, then labels of cells.
ARRAYS = ("membrane", "nucleus", CELLS)


@dataclass
class _CellsData(OrganelleData):
    """Keys of both sources in addition to those of an organelle config."""

    organelles: list[str] = field(default_factory=lambda: list(ARRAYS))
    """Always these three: masks of membrane and nucleus, and labels of cells."""
    resample_spacing_um: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    """Voxel size z, y, x in um for `resample: spacing_um`."""
    resample_grid: list[int] = field(default_factory=lambda: [64, 128, 128])
    """Shape z, y, x for `resample: grid`."""
    z: Literal["fit", "center", "middle"] = "fit"
    """Slices used with `resample: grid`. `fit`: all, resampled to the grid's depth; `center`: as many slices as the
    grid has, centred on the layer of cells, which is found in the tomogram (published: the central 64 slices);
    `middle`: as many slices in the middle of the tomogram. Cells outside these slices are not found."""
    patch_size: list[int] = field(default_factory=lambda: [40, 112, 112])
    """Training patch z, y, x in voxels of the common grid; with `resample: grid` it is the grid."""
    foreground: float = 1.0
    """Fraction of patches that contain a voxel of a cell."""
    p_binary: float = 0.3
    """Probability that the network gets binary masks instead of probabilities."""
    p_no_ri: float = 0.3
    """Probability that the network gets no refractive index, so that it can later be used with masks alone."""


@dataclass
class CellsFolder(_CellsData, FolderData):
    """Tomograms, masks and labels of cells in folders."""

    source: Literal["folder"] = "folder"
    """Name of this source."""


@dataclass
class CellsSimulator(_CellsData, SimulatorData):
    """Simulated fields of cells."""

    source: Literal["simulator"] = "simulator"
    """Name of this source."""
    shape: list[int] = field(default_factory=lambda: [64, 192, 192])
    """Size z, y, x in voxels: fields of several cells."""


#: Sources by their name in a config.
CELL_SOURCES: dict[str, type[CellsFolder] | type[CellsSimulator]] = {"folder": CellsFolder, "simulator": CellsSimulator}


def cells_data_errors(config: CellsFolder | CellsSimulator) -> list[str]:
    """Return the errors of a config's values, one line each, beginning with the key."""
    masks = config.masks if isinstance(config, CellsFolder) and config.table is None else None
    checks = [
        (
            tuple(config.organelles) == ARRAYS,
            f"organelles: expected {list(ARRAYS)}, on which the training of cells depends; leave it out",
        ),
        (
            not masks or "{organelle}" in masks,
            "masks: expected a pattern with {organelle}, whose values are membrane, nucleus and cells: cells are "
            "labels in a file of their own, one value per cell",
        ),
        (
            config.z == "fit" or config.resample == "grid",
            f"z: {config.z} takes as many slices as the grid has, so it needs data.resample grid; else leave it at fit",
        ),
        *share_checks(config, ("p_binary", "p_no_ri")),
    ]
    return data_errors(config) + failed(checks)
