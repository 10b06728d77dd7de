"""Describe the inputs of a training run, for the metadata of its weights (see `cytovox.models.domain`)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cytovox.errors import InputError
from cytovox.models.domain import cell_statistics, volume_statistics
from datamodules.cases import Case, FolderCase, RawCase
from datamodules.shape.cases import ShapeCell

#: Number of training volumes that are read, evenly spaced among all.
VOLUMES = 24


def describe(cases: Sequence[Any]) -> dict[str, Any]:
    """Return the ranges of the training inputs, as in `trained_on` of the metadata of weights.

    Parameters
    ----------
    cases : sequence of Case or ShapeCell
        Training inputs; at most `VOLUMES` volumes are read.

    Returns
    -------
    dict
        `inputs`, the number of inputs; `looked_at`, the number of those that were read; `statistics`, the minimum and
        maximum of each statistic; for volumes also `spacing_um`, the smallest and largest voxel size (z, y, x). Empty
        without inputs.
    """
    if not cases:
        return {}
    if isinstance(cases[0], ShapeCell):
        return _ranges(len(cases), [cell_statistics(cell.image_YX, cell.mask_YX) for cell in cases])
    chosen = sorted({round(k * (len(cases) - 1) / max(1, VOLUMES - 1)) for k in range(VOLUMES)})
    spacings, found = zip(*(_of_case(cases[index]) for index in chosen), strict=True)
    low, high = np.min(spacings, axis=0), np.max(spacings, axis=0)
    return {**_ranges(len(cases), found), "spacing_um": [low.tolist(), high.tolist()]}


def _of_case(case: Case) -> tuple[tuple[float, ...], dict[str, float]]:
    """Return voxel size and statistics of a case."""
    if isinstance(case, FolderCase):
        volume = case.open()
        return volume.spacing_um, volume_statistics(volume.reader(case.frame).read, volume.shape[2:])
    raw: RawCase = case.load()
    return raw.spacing_um, volume_statistics(lambda box: raw.ri_ZYX[box], raw.ri_ZYX.shape)


def _ranges(count: int, found: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    ranges = {name: [min(f[name] for f in found), max(f[name] for f in found)] for name in found[0]}
    return {"inputs": count, "looked_at": len(found), "statistics": ranges}


def described(data: Any) -> dict[str, Any]:
    """Return `describe` of the training inputs of a data module; empty if they cannot be read.

    The training itself reports that error.
    """
    try:
        return describe(data.find()["train"])
    except (InputError, OSError):
        return {}
