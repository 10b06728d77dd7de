"""Describe the inputs of a training run, for the metadata of its weights (see `cytovox.models.domain`)."""

from __future__ import annotations

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
    """Ranges of what weights are trained on, as `trained_on` of their metadata has them.

    Parameters
    ----------
    cases : sequence of Case or ShapeCell
        Training inputs; of many volumes, some are looked at.

    Returns
    -------
    dict
        `inputs`, how many; `looked_at`, of how many the ranges are; `statistics`, name to lowest and highest; of
        volumes also `spacing_um`, lowest and highest voxel size z, y, x. Empty without inputs.
    """
    if not cases:
        return {}
    if isinstance(cases[0], ShapeCell):
        return _ranges(len(cases), [cell_statistics(cell.image_YX, cell.mask_YX) for cell in cases])
    chosen = sorted({round(k * (len(cases) - 1) / max(1, VOLUMES - 1)) for k in range(VOLUMES)})
    spacings, found = [], []
    for case in (cases[index] for index in chosen):
        spacing, statistics = _of_case(case)
        spacings.append(spacing)
        found.append(statistics)
    low, high = np.min(spacings, axis=0), np.max(spacings, axis=0)
    return {**_ranges(len(cases), found), "spacing_um": [low.tolist(), high.tolist()]}


def _of_case(case: Case) -> tuple[tuple[float, ...], dict[str, float]]:
    if isinstance(case, FolderCase):
        volume = case.open()
        reader = volume.reader(case.frame)
        return volume.spacing_um, volume_statistics(reader.read, volume.shape[2:])
    raw: RawCase = case.load()
    return raw.spacing_um, volume_statistics(lambda box: raw.ri_ZYX[box], raw.ri_ZYX.shape)


def _ranges(count: int, found: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    ranges = {name: [min(f[name] for f in found), max(f[name] for f in found)] for name in found[0]}
    return {"inputs": count, "looked_at": len(found), "statistics": ranges}


def described(data: Any) -> dict[str, Any]:
    """`describe` of a data module's training inputs; empty where they cannot be read, which the fit will tell."""
    try:
        return describe(data.find()["train"])
    except (InputError, OSError):
        return {}
