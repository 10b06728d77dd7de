"""The keys of task cells_from_masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from datamodules.config import SERIES
from experiments.tasks.cell_options import LABELS, CellFinderConfig, cell_finder_errors


@dataclass
class CellsFromMasksConfig(CellFinderConfig):
    """From masks of membrane and nucleus to labels of cells."""

    name: str = "cells_from_masks"
    """The task's name."""
    task: str = "cells_from_masks"
    """This task."""
    resume: str | None = None
    """Run folder to resume."""
    membrane: str = ""
    """Mask of filled cells: OME-TIFF, TIFF, NIfTI or OME-Zarr."""
    nucleus: str = ""
    """Mask of nuclei, on the same grid: its connected parts are the nuclei; labels are one nucleus a value."""
    ri: str | None = None
    """The tomogram, if there is one: the networks can use it."""
    out: str = ""
    """Folder of the labels and the table."""
    labels: Any = field(default="auto", metadata=LABELS)
    """How values are taken: `auto` decides by content and says so; `binary` is one mask, whose connected parts are the
    nuclei; `instances` is one nucleus a value."""
    spacing_um: list[float] | None = None
    """Voxel size z, y, x in um of masks that do not say it."""
    spacing_from: Literal["file", "config"] = "file"
    """Which decides where a file states another voxel size than `spacing_um`: `file` refuses it, `config` takes
    `spacing_um`."""
    series: Any = field(default=None, metadata=SERIES)
    """Number or name of the image in files that hold several; null where they hold one."""
    mask_axes: Literal["auto", "header", "stored"] = "auto"
    """How the files lie where one is NIfTI whose header mirrors or swaps axes, and another states no directions (TIFF,
    TCF, OME-Zarr): `auto` refuses it; `header` reads all as ITK-SNAP shows them; `stored` lays the stored arrays voxel
    on voxel."""


def cells_from_masks_errors(config: CellsFromMasksConfig) -> list[str]:
    """What cannot work although every type is right, one line each, beginning with the key path."""
    errors = cell_finder_errors(config)
    for key, what, example in (
        ("membrane", "file", "cell_membrane.nii.gz"),
        ("nucleus", "file", "cell_nucleus.nii.gz"),
        ("out", "folder", "labels"),
    ):
        if not getattr(config, key):
            errors.append(f"{key}: expected a {what}, such as {key}={example}")
    return errors
