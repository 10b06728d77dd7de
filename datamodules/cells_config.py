"""`data:` of a cells config: tomograms with labels of cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cytovox.organelles import CELLS
from datamodules.config import FolderData, OrganelleData, SimulatorData, data_errors

#: What is read of every case, in this order: a mask, a mask, and labels.
DRAWN = ("membrane", "nucleus", CELLS)


@dataclass
class _CellsData(OrganelleData):
    """What both sources have beside an organelle config's keys."""

    organelles: list[str] = field(default_factory=lambda: list(DRAWN))
    """Always these three: masks of membrane and nucleus, and labels of cells."""
    resample_spacing_um: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    """Voxel size z, y, x in um for `resample: spacing_um`."""
    resample_grid: list[int] = field(default_factory=lambda: [64, 128, 128])
    """Shape z, y, x for `resample: grid`."""
    z: Literal["fit", "center", "middle"] = "fit"
    """With `resample: grid`: `fit`, the whole depth becomes the grid's; `center`, only as many slices of a tomogram as
    the grid has, centred on the layer of cells, which is found in the tomogram (published: the central 64 slices);
    `middle`, as many in its middle. No cell is found above or below them."""
    patch_size: list[int] = field(default_factory=lambda: [40, 112, 112])
    """Training patch z, y, x in voxels of the common grid; with `resample: grid` it is the grid."""
    foreground: float = 1.0
    """Part of the patches that show a voxel of a cell."""
    p_binary: float = 0.3
    """How often a network is shown masks instead of probabilities."""
    p_no_ri: float = 0.3
    """How often it is shown no refractive index, so that masks alone serve."""


@dataclass
class CellsFolder(_CellsData, FolderData):
    """Tomograms, masks and labels of cells in folders."""

    source: Literal["folder"] = "folder"
    """This source's name."""


@dataclass
class CellsSimulator(_CellsData, SimulatorData):
    """Fields of the virtual holotomograph."""

    source: Literal["simulator"] = "simulator"
    """This source's name."""
    shape: list[int] = field(default_factory=lambda: [64, 192, 192])
    """Size z, y, x in voxels: fields of several cells."""


#: Sources by the name a config uses.
CELL_SOURCES: dict[str, type[CellsFolder] | type[CellsSimulator]] = {"folder": CellsFolder, "simulator": CellsSimulator}


def cells_data_errors(config: CellsFolder | CellsSimulator) -> list[str]:
    """What cannot work in these values, one line each, beginning with the key."""
    errors = data_errors(config)
    if tuple(config.organelles) != DRAWN:
        errors.append(f"organelles: expected {list(DRAWN)}, which is what cells are learned from; leave it out")
    if isinstance(config, CellsFolder) and config.table is None and config.masks and "{organelle}" not in config.masks:
        errors.append(
            "masks: expected a pattern with {organelle}, which stands for membrane, nucleus and cells: cells are "
            "labels of their own, one value a cell"
        )
    if config.z != "fit" and config.resample != "grid":
        errors.append(f"z: {config.z}: as many slices as a grid has: needs data.resample grid; else leave it at fit")
    for key in ("p_binary", "p_no_ri"):
        if not 0 <= getattr(config, key) <= 1:
            errors.append(f"{key}: expected a probability from 0 to 1, got {getattr(config, key)}")
    return errors
