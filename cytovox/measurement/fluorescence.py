"""Fluorescence of cells and organelles above the background."""

from __future__ import annotations

import numpy as np

from cytovox.io.fluorescence import AWAY_UM
from cytovox.measurement.region import Column, Measurement, Region


def _fluorescence(region: Region) -> dict[str, float]:
    found = {}
    for name, channel in region.frame.channels.items():
        inside = region.mask_ZYX & channel.field_ZYX
        values_N = channel.values_ZYX[inside].astype(np.float64)
        mean = values_N.mean() if values_N.size else float("nan")
        found[f"fluorescence_mean_{name}"] = mean
        found[f"fluorescence_sum_{name}"] = mean * values_N.size * region.frame.voxel_um3 / channel.voxel_um3
    return found


FLUORESCENCE = Measurement(
    "fluorescence",
    1,
    {
        "fluorescence_mean_{channel}": Column(
            "a.u.",
            "mean fluorescence above background, one column per channel, such as `fluorescence_mean_CH0`; only in "
            "tables of files with fluorescence. The background is the median of the channel farther than "
            f"{AWAY_UM:g} µm from all cells. Empty outside the field of the channel, or if cells leave no background",
            since="0.1.0",
        ),
        "fluorescence_sum_{channel}": Column(
            "a.u.",
            "sum of the fluorescence above background over the voxels in which the channel was recorded, which does "
            "not depend on the tomogram's voxel size: mean times volume, by the volume of such a voxel",
            since="0.1.0",
        ),
    },
    _fluorescence,
)
