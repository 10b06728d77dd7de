"""Config of task cells_from_masks."""

from dataclasses import dataclass, field
from typing import Any, Literal

from datamodules.config import SERIES
from experiments.tasks.cell_options import LABELS, CellFinderConfig, cell_finder_errors


@dataclass
class CellsFromMasksConfig(CellFinderConfig):
    """Config of task cells_from_masks: label cells from masks of membrane and nucleus."""

    name: str = "cells_from_masks"
    """Name of the run."""
    task: str = "cells_from_masks"
    """Name of the task."""
    resume: str | None = None
    """Run folder to resume."""
    membrane: str = ""
    """Mask of filled cells: OME-TIFF, TIFF, NIfTI or OME-Zarr."""
    nucleus: str = ""
    """Mask of nuclei on the same grid. Connected parts of a mask, or values of a label image, are the nuclei."""
    ri: str | None = None
    """Tomogram for the networks and for measurements, if there is one."""
    out: str = ""
    """Folder of the labels and the table."""
    labels: Any = field(default="auto", metadata=LABELS)
    """Meaning of the values: `binary`, one mask whose connected parts are the nuclei; `instances`, one nucleus per
    value; `auto`, chosen by content, with a note."""
    spacing_um: list[float] | None = None
    """Voxel size z, y, x in um of masks without a stored one."""
    spacing_from: Literal["file", "config"] = "file"
    """Behaviour if a file has another voxel size than `spacing_um`: `file` raises an error, `config` uses
    `spacing_um`."""
    series: Any = field(default=None, metadata=SERIES)
    """Number or name of the image in files with several; null for files with one."""
    mask_axes: Literal["auto", "header", "stored"] = "auto"
    """Orientation of the files if a NIfTI header mirrors or swaps axes and another file states no directions (TIFF,
    TCF, OME-Zarr): `auto` raises an error; `header` reads all files as ITK-SNAP displays them; `stored` matches the
    stored arrays voxel by voxel."""


def cells_from_masks_errors(config: CellsFromMasksConfig) -> list[str]:
    """Return the errors of a config whose types are valid, one line each, beginning with the key path."""
    required = (
        ("membrane", "file", "cell_membrane.nii.gz"),
        ("nucleus", "file", "cell_nucleus.nii.gz"),
        ("out", "folder", "labels"),
    )
    return cell_finder_errors(config) + [
        f"{key}: expected a {what}, such as {key}={example}"
        for key, what, example in required
        if not getattr(config, key)
    ]
