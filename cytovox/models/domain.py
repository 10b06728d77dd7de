"""Compare an input with the inputs that weights were trained on: voxel size, and statistics of the image.

A training run stores the ranges of its inputs in the metadata of its weights (`trained_on`); shipped weights have them
in a JSON file of the same name. An input outside these ranges is predicted and flagged: the quality of such a
prediction has not been measured.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from skimage.measure import regionprops

from cytovox.io import Box, Volume

#: Largest numbers of planes of a frame, and of voxels of these planes, that its statistics are computed from. They are
#: evenly spaced, and the same in training and prediction, so that large frames need not be read whole.
PLANES, VOXELS = 9, 2**20
#: Tolerance on either side of a range, as a fraction of it: ranges come from few inputs.
MARGIN = 0.25
#: Least tolerance of a refractive index: the variation of media and of their measurement.
RI_MARGIN = 0.002
#: Factors by which voxels may be longer than the longest, or shorter than the shortest, voxels of the training. Inputs
#: are resampled to the grid of the weights, so finer voxels lose no detail that the network uses.
COARSER, FINER = 1.25, 4.0
#: Text for inputs of weights without ranges of their training inputs.
UNKNOWN = "unknown: the weights have no ranges of their training inputs"

#: Statistics of a tomogram: percentiles of the refractive index, near that of the medium and of the densest parts. A
#: median would depend on the share of the field that cells cover, which may be any.
RI_PERCENTILES = {"ri_p1": 1.0, "ri_p99.9": 99.9}

Read = Callable[[Box], np.ndarray]


def volume_statistics(read: Read, shape_ZYX: Sequence[int]) -> dict[str, float]:
    """Return percentiles of the refractive index of a frame, from at most `PLANES` of its planes.

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
        `area_px`, area of the mask in pixels; `axis_ratio`, minor / major axis; `solidity`, area / area of the convex
        hull; `mean_intensity` inside the mask; `variation`, standard deviation inside the mask / mean intensity.
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
    """Return in which properties an input lies outside the training inputs of weights, in a few words each.

    Parameters
    ----------
    trained_on : mapping
        `trained_on` of the metadata of the weights; see `training.domain.describe`.
    statistics : mapping
        `volume_statistics` or `cell_statistics` of the input.
    spacing_um : (z, y, x), optional
        Voxel size of a volume.

    Returns
    -------
    list of str
        Empty for an input inside the ranges. One entry, `UNKNOWN`, if `trained_on` is empty.
    """
    if not trained_on:
        return [UNKNOWN]
    spacings, ranges = trained_on.get("spacing_um"), trained_on.get("statistics", {})
    found = [] if spacing_um is None or spacings is None else _spacing_outside(spacings, spacing_um)
    for name, value, (low, high) in [(n, v, ranges[n]) for n, v in statistics.items() if n in ranges]:
        margin = max(MARGIN * (high - low), RI_MARGIN if name.startswith("ri_") else 0.0)
        if not low - margin <= value <= high + margin:
            found.append(f"{name} {value:.4g} (trained on {low:.4g} to {high:.4g})")
    return found


def _spacing_outside(trained: Sequence[Sequence[float]], spacing_um: Sequence[float]) -> list[str]:
    low, high = trained
    if any(s > COARSER * h for s, h in zip(spacing_um, high, strict=True)):
        word = "coarser"
    elif any(s * FINER < n for s, n in zip(spacing_um, low, strict=True)):
        word = "finer"
    else:
        return []
    size = " x ".join(f"{s:.3g}" for s in spacing_um)
    seen = " x ".join(f"{a:.3g}" if a == b else f"{a:.3g}-{b:.3g}" for a, b in zip(low, high, strict=True))
    return [f"voxels of {size} um, {word} than trained on ({seen})"]


def frame_outside(trained_on: Sequence[Mapping[str, Any]], read: Read, volume: Volume) -> str:
    """Return `outside` of a frame for the weights of an ensemble, as text for tables; empty inside the ranges.

    Parameters
    ----------
    trained_on : sequence of mapping
        `trained_on` of each member's metadata.
    read : callable
        From a box to its refractive indices.
    volume : Volume
        Volume of the frame.
    """
    statistics = volume_statistics(read, volume.shape[2:])
    found = [text for member in trained_on for text in outside(member, statistics, volume.spacing_um)]
    return "; ".join(dict.fromkeys(found))
