"""Masks of an organelle from the fluorescence that stains it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.ndimage as ndi
from skimage.filters import threshold_otsu

from cytovox.io.fluorescence import background_level
from cytovox.organelles import UNDRAWN
from cytovox.segmentation.seeds import nucleus_seeds

ZYX = tuple[float, float, float]

#: Standard deviation of the Gaussian that smooths the refractive index before cells are found, in µm.
RI_SMOOTHING_UM = 0.3
#: Least contrast of a cell to its medium, on average.
LEAST_CONTRAST_RI = 0.003
#: Smallest volume of a cell, in µm³: a ball of 5.8 µm in diameter.
MIN_CELL_UM3 = 100.0
#: Voxels on which cells are separated: finer ones take minutes and change nothing.
COARSE_UM = 0.6
#: Cells that touch are separated where the radius of the neck is smaller than that of both by this, in µm.
NECK_UM = 0.25
#: Brightness relative to the typical stained cell from which a cell counts as stained, whatever its own contrast.
TYPICAL = 0.5


@dataclass(frozen=True)
class LabelRules:
    """Rules that make a mask of a channel."""

    threshold: Literal["cell", "field"] = "cell"
    """`cell`: each cell has its own threshold, half way between the medians of its two classes of brightness (Otsu
    1979); `field`: the median of these for all cells."""
    smoothing_um: float = 0.2
    """Standard deviation of the Gaussian before thresholding."""
    min_volume_um3: float = 20.0
    """Smaller connected parts are left out."""
    min_contrast: float = 2.0
    """Least brightness of a stained organelle relative to the median of its cell, both above background."""
    min_snr: float = 5.0
    """Least brightness above the rest of the cell, in standard deviations of the smoothed background."""
    reach_um: float = math.inf
    """In a cell, what is farther than this from the mask is not drawn. For cells that may be two: in crowded simulated
    fields in which every second cell is unstained, 8.5 % of the unstained nuclei were taken for background without a
    limit, 1.5 % with 4 µm."""


def label_from_channel(
    channel_ZYX: np.ndarray,
    spacing_um: ZYX,
    cells_ZYX: np.ndarray | None = None,
    *,
    field_ZYX: np.ndarray | None = None,
    rules: LabelRules | None = None,
) -> np.ndarray:
    """Return a mask of what a channel stains; cells without signal are not drawn.

    The channel is smoothed, and its background, the median away from all cells, subtracted. Otsu's threshold divides
    each cell into two classes. A cell is stained if the brighter class exceeds the rest by the noise, and either
    exceeds the median of the cell by `min_contrast`, or is as bright as the other stained cells (a nucleus that fills
    its cell). The mask is what lies above the threshold, with its holes filled.

    Parameters
    ----------
    channel_ZYX : float array, (Z, Y, X)
        Fluorescence on the grid of the tomogram.
    spacing_um : (z, y, x)
        Voxel size in µm.
    cells_ZYX : integer array, (Z, Y, X), optional
        One label per cell, 0 outside; see `estimate_cells`. Without it the whole field is one cell.
    field_ZYX : bool array, (Z, Y, X), optional
        False outside the field of the channel; everywhere true if not given.
    rules : LabelRules, optional
        Threshold, smoothing and least sizes.

    Returns
    -------
    uint8 array, (Z, Y, X)
        1 inside; 0 outside; `UNDRAWN` (255) in cells without signal, beyond `reach_um`, outside the field of the
        channel, and in bright voxels outside all cells. All voxels are `UNDRAWN` if no cell is stained.

    Raises
    ------
    ValueError
        Arrays of different shapes.
    """
    rules = rules or LabelRules()
    cells = np.ones(channel_ZYX.shape, np.int32) if cells_ZYX is None else cells_ZYX
    field = np.ones(channel_ZYX.shape, bool) if field_ZYX is None else field_ZYX
    if not channel_ZYX.shape == cells.shape == field.shape or channel_ZYX.ndim != 3:
        raise ValueError(f"expected arrays of one shape, got {channel_ZYX.shape}, {cells.shape}, {field.shape}")
    values = _smoothed(channel_ZYX, field, [rules.smoothing_um / s for s in spacing_um])
    level, noise = _background(values, cells, field, spacing_um)
    values -= np.float32(level)
    result = np.full(channel_ZYX.shape, UNDRAWN, np.uint8)
    stained = _stained(values, cells, field, noise, rules)
    if not stained:
        return result
    typical = float(np.median([one.bright for one in stained]))
    shared = float(np.median([one.threshold for one in stained]))
    result[field & (cells == 0) & (values < max(TYPICAL * typical, 5 * noise))] = 0
    for one in stained:
        inside = (cells[one.box] == one.label) & field[one.box]
        mask = inside & (values[one.box] > (one.threshold if rules.threshold == "cell" else shared))
        mask = _without_small(ndi.binary_fill_holes(mask) & inside, spacing_um, rules.min_volume_um3)
        if mask.any():
            near = inside
            if math.isfinite(rules.reach_um):
                near = inside & (ndi.distance_transform_edt(~mask, sampling=spacing_um) <= rules.reach_um)
            result[one.box][near] = mask[near]
    return result


@dataclass(frozen=True)
class _Cell:
    label: int
    box: tuple[slice, slice, slice]
    bright: float
    """Median of the brighter class."""
    threshold: float
    clear: bool
    """Whether the brighter class exceeds the median of the cell by the least contrast."""


def _stained(values: np.ndarray, cells: np.ndarray, field: np.ndarray, noise: float, rules: LabelRules) -> list[_Cell]:
    """Return the cells that took up the stain; `values` are above background."""
    found = []
    for label, box in enumerate(ndi.find_objects(cells), start=1):
        if box is None:
            continue
        own = values[box][(cells[box] == label) & field[box]]
        if own.size < 2 or own.min() == own.max():
            continue
        is_bright = own > threshold_otsu(own)
        bright, rest = float(np.median(own[is_bright])), float(np.median(own[~is_bright]))
        if bright - rest < max(rules.min_snr * noise, 1e-6):
            continue
        clear = bright >= rules.min_contrast * max(float(np.median(own)), noise)
        found.append(_Cell(label, box, bright, (bright + rest) / 2, clear))
    clear_ones = [one.bright for one in found if one.clear]
    least = TYPICAL * float(np.median(clear_ones)) if clear_ones else np.inf
    return [one for one in found if one.clear or one.bright >= least]


def _smoothed(channel: np.ndarray, field: np.ndarray, sigma: list[float]) -> np.ndarray:
    """Return the channel smoothed with what lies inside its field only, float32."""
    inside = np.where(field, channel, 0).astype(np.float32)
    values = ndi.gaussian_filter(inside, sigma)
    if field.all():
        return values
    weight = ndi.gaussian_filter(field.astype(np.float32), sigma)
    return np.where(field, values / np.maximum(weight, np.float32(1e-6)), 0)


def _background(values: np.ndarray, cells: np.ndarray, field: np.ndarray, spacing_um: ZYX) -> tuple[float, float]:
    """Return level and standard deviation of the background; where cells leave none, of the darker half."""
    found = background_level(values, cells, field, spacing_um)
    if found is not None:
        return found
    inside = values[field] if field.any() else values.ravel()
    dark = inside[inside <= np.median(inside)]
    level = float(np.median(dark))
    return level, 1.4826 * float(np.median(np.abs(dark - level)))


def _without_small(mask: np.ndarray, spacing_um: ZYX, min_um3: float) -> np.ndarray:
    parts, _ = ndi.label(mask, np.ones((3, 3, 3)))
    large = np.bincount(parts.ravel()) * float(np.prod(spacing_um)) >= min_um3
    large[0] = False
    return large[parts]


def estimate_cells(ri_ZYX: np.ndarray, spacing_um: ZYX, medium_ri: float | None = None) -> np.ndarray:
    """Return labels of the cells of a tomogram, by their contrast to the medium.

    A cell is what exceeds a third of the median contrast of the field's dense voxels. Cells that touch are separated at
    their necks. For the decision whether a cell took up a stain this is enough; it is no segmentation to measure.

    Parameters
    ----------
    ri_ZYX : float array, (Z, Y, X)
        Refractive index.
    spacing_um : (z, y, x)
        Voxel size in µm.
    medium_ri : float, optional
        Refractive index of the medium; the 5th percentile if not given.

    Returns
    -------
    int32 array, (Z, Y, X)
        1, 2, 3 ...; 0 outside. All 0 if nothing exceeds the medium by `LEAST_CONTRAST_RI`.
    """
    contrast, dense = cell_contrast(ri_ZYX, spacing_um, medium_ri)
    if dense < LEAST_CONTRAST_RI:
        return np.zeros(ri_ZYX.shape, np.int32)
    return separated_cells(contrast > dense / 3, spacing_um)


def separated_cells(mask_ZYX: np.ndarray, spacing_um: ZYX) -> np.ndarray:
    """Return labels of the cells of a mask: its parts, separated at their necks, on voxels of about `COARSE_UM`.

    Parameters
    ----------
    mask_ZYX : bool array, (Z, Y, X)
        True inside cells.
    spacing_um : (z, y, x)
        Voxel size in µm.

    Returns
    -------
    int32 array, (Z, Y, X)
        1, 2, 3 ...; 0 outside, and in parts smaller than `MIN_CELL_UM3`.
    """
    steps = [max(1, round(COARSE_UM / s)) for s in spacing_um]
    coarse = mask_ZYX[tuple(slice(n // 2, None, n) if size > n // 2 else slice(None) for n, size in
                            zip(steps, mask_ZYX.shape, strict=True))]  # fmt: skip
    z, y, x = (n * s for n, s in zip(steps, spacing_um, strict=True))
    labels = nucleus_seeds(coarse, (z, y, x), min_volume_um3=MIN_CELL_UM3, split_depth_um=NECK_UM)
    index = [
        np.minimum(np.arange(size) // n, labels.shape[axis] - 1)
        for axis, (size, n) in enumerate(zip(mask_ZYX.shape, steps, strict=True))
    ]
    return np.where(mask_ZYX, labels[np.ix_(*index)], 0)


def cell_contrast(ri_ZYX: np.ndarray, spacing_um: ZYX, medium_ri: float | None = None) -> tuple[np.ndarray, float]:
    """Return the smoothed contrast to the medium, and the median contrast of cells."""
    medium = float(np.percentile(ri_ZYX[::2, ::2, ::2], 5)) if medium_ri is None else medium_ri
    contrast = ndi.gaussian_filter((ri_ZYX - np.float32(medium)), [RI_SMOOTHING_UM / s for s in spacing_um])
    if contrast.min() == contrast.max():
        return contrast, 0.0
    return contrast, float(np.median(contrast[contrast > threshold_otsu(contrast) / 2]))


def undrawn_cells(label_ZYX: np.ndarray, cells_ZYX: np.ndarray) -> tuple[int, int]:
    """Return the number of cells without a drawn voxel, and the number of cells.

    Parameters
    ----------
    label_ZYX : uint8 array, (Z, Y, X)
        From `label_from_channel`.
    cells_ZYX : integer array, (Z, Y, X)
        One label per cell, 0 outside.
    """
    cells = set(np.unique(cells_ZYX)) - {0}
    drawn = set(np.unique(cells_ZYX[label_ZYX != UNDRAWN])) - {0}
    return len(cells - drawn), len(cells)
