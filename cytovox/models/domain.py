"""Compare an input with the inputs that weights were trained on: voxel size, and statistics of the image.

A training run stores the ranges of its inputs in the metadata of its weights (`trained_on`); shipped weights have them
in a JSON file of the same name. An input outside these ranges is predicted and flagged: how good the prediction is has
not been measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from skimage.measure import regionprops

from cytovox.io import Box, Volume

#: Planes of a frame, and voxels of all of them, that its statistics are taken from: evenly spaced, the same in training
#: and prediction, so that large frames need not be read whole.
PLANES, VOXELS = 9, 2**20
#: How far outside the range of what was seen an input may lie, as a part of that range: few inputs are looked at.
MARGIN = 0.25
#: The same for refractive indices at least: that of media and of their measurement.
RI_MARGIN = 0.002
#: Voxels may be so many times longer than the longest that were trained on, or shorter than the shortest: an input is
#: resampled to the grid of the weights, which loses nothing of a finer one.
COARSER, FINER = 1.25, 4.0
#: What is written of inputs of weights that do not say what they were trained on.
UNKNOWN = "unknown: the weights do not say what they were trained on"

#: Statistics of a tomogram: percentiles of the refractive index, of about the medium and of the densest parts. A median
#: would tell how much of the field is full of cells, which is free.
RI_PERCENTILES = {"ri_p1": 1.0, "ri_p99.9": 99.9}

Read = Callable[[Box], np.ndarray]


def volume_statistics(read: Read, shape_ZYX: Sequence[int]) -> dict[str, float]:
    """Percentiles of the refractive index of a frame, from at most `PLANES` of its planes.

    Parameters
    ----------
    read : callable
        From a box to its refractive indices (z, y, x).
    shape_ZYX : sequence of int
        Size of the frame.

    Returns
    -------
    dict of str to float
        `ri_p1` and `ri_p99.9`.
    """
    depth, height, width = (int(n) for n in shape_ZYX)
    planes = sorted({round(k * (depth - 1) / max(1, PLANES - 1)) for k in range(PLANES)})
    step = max(1, int(np.ceil(np.sqrt(len(planes) * height * width / VOXELS))))
    values = [read((slice(z, z + 1), slice(0, height), slice(0, width)))[0, ::step, ::step].ravel() for z in planes]
    found = np.percentile(np.concatenate(values).astype(np.float64), list(RI_PERCENTILES.values()))
    return {name: round(float(value), 6) for name, value in zip(RI_PERCENTILES, found, strict=True)}


def cell_statistics(image_YX: np.ndarray, mask_YX: np.ndarray) -> dict[str, float]:
    """Return statistics of the image of one cell.

    Parameters
    ----------
    image_YX : float array, (Y, X)
        Intensities, 0 to 1.
    mask_YX : array, (Y, X)
        Nonzero inside the cell.

    Returns
    -------
    dict of str to float
        `area_px`, area of the mask in pixels; `axis_ratio`, its minor by its major axis; `solidity`, its area by that
        of its convex hull; `mean_intensity` inside it; `variation`, the deviation inside it by that mean.
    """
    mask = np.asarray(mask_YX) != 0
    inside, whole = image_YX[mask].astype(np.float64), regionprops(mask.astype(np.uint8))[0]
    mean = float(inside.mean())
    found = {
        "area_px": float(mask.sum()),
        "axis_ratio": float(whole.axis_minor_length / max(whole.axis_major_length, 1e-9)),
        "solidity": float(whole.solidity),
        "mean_intensity": mean,
        "variation": float(inside.std() / mean) if mean > 0 else 0.0,
    }
    return {name: round(value, 6) for name, value in found.items()}


def outside(
    trained_on: Mapping[str, Any], statistics: Mapping[str, float], spacing_um: Sequence[float] | None = None
) -> list[str]:
    """What of an input lies outside what weights were trained on, in a few words each.

    Parameters
    ----------
    trained_on : mapping
        Of the metadata of the weights; see `describe`.
    statistics : mapping
        `volume_statistics` or `cell_statistics` of the input.
    spacing_um : (z, y, x), optional
        Its voxel size, of a volume.

    Returns
    -------
    list of str
        Empty for an input that lies within. One entry, `UNKNOWN`, where the weights do not say what they saw.
    """
    if not trained_on:
        return [UNKNOWN]
    found = [] if spacing_um is None else _spacing_outside(trained_on.get("spacing_um"), spacing_um)
    for name, value in statistics.items():
        if name not in trained_on.get("statistics", {}):
            continue
        low, high = trained_on["statistics"][name]
        margin = max(MARGIN * (high - low), RI_MARGIN if name.startswith("ri_") else 0.0)
        if not low - margin <= value <= high + margin:
            found.append(f"{name} {value:.4g} (trained on {low:.4g} to {high:.4g})")
    return found


def _spacing_outside(trained: Any, spacing_um: Sequence[float]) -> list[str]:
    if trained is None:
        return []
    low, high = trained
    for word, is_outside in (
        ("coarser", [s > COARSER * h for s, h in zip(spacing_um, high, strict=True)]),
        ("finer", [s * FINER < n for s, n in zip(spacing_um, low, strict=True)]),
    ):
        if any(is_outside):
            size = " x ".join(f"{s:.3g}" for s in spacing_um)
            seen = " x ".join(f"{a:.3g}" if a == b else f"{a:.3g}-{b:.3g}" for a, b in zip(low, high, strict=True))
            return [f"voxels of {size} um, {word} than trained on ({seen})"]
    return []


def frame_outside(trained_on: Sequence[Mapping[str, Any]], read: Read, volume: Volume) -> str:
    """`outside` of a frame for the weights of an ensemble: a text for tables, empty for a frame that lies within.

    Parameters
    ----------
    trained_on : sequence of mapping
        Of each member's metadata.
    read : callable
        From a box to its refractive indices.
    volume : Volume
        What the frame belongs to.
    """
    statistics = volume_statistics(read, volume.shape[2:])
    found = [text for member in trained_on for text in outside(member, statistics, volume.spacing_um)]
    return "; ".join(dict.fromkeys(found))
