"""Offset of a fluorescence channel against the tomogram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.ndimage as ndi
from skimage.registration import phase_cross_correlation

from cytovox.fluorescence.labels import ZYX, cell_contrast
from cytovox.io.fluorescence import background_level

#: Standard deviation of the Gaussian of outlines, in µm.
OUTLINE_UM = 0.3
#: Least correlation of the outlines of a reliable offset. On eight simulated fields with bleed-through of 10 and 30
#: counts over noise of 10 it was 0.50 to 0.92; 0.39 at most for a channel without cytoplasm or of another field.
LEAST_CORRELATION = 0.45
#: Steps per voxel of the estimate.
_STEPS = 10
#: Share of the field along each axis on which images are faded to 0 on both sides.
_FADE = 0.125


@dataclass(frozen=True)
class Offset:
    """Displacement of a channel against the tomogram."""

    offset_um: ZYX
    """z, y, x: what lies at p in the tomogram appears at p + offset in the channel."""
    reliability: float
    """Correlation of the outlines of the cells in both images after the shift, -1 to 1."""
    reliable: bool
    """Whether the reliability is `LEAST_CORRELATION` or more, and no component exceeds the largest offset."""
    reason: str
    """Why the offset is not reliable; empty if it is."""


def registration_offset(
    ri_or_mask_ZYX: np.ndarray,
    channel_ZYX: np.ndarray,
    spacing_um: ZYX,
    *,
    max_offset_um: float = 3.0,
    medium_ri: float | None = None,
    field_ZYX: np.ndarray | None = None,
) -> Offset:
    """Estimate the offset of a channel by cross-correlation of the outlines of the cells.

    Nearly every channel shows the whole cell faintly, by bleed-through and autofluorescence. Both images are turned
    into soft masks of the cells, by half their level in cells, and the magnitudes of their gradients are correlated
    (Guizar-Sicairos et al. 2008). Nuclei are of no use here: their contrast in the tomogram is low, and their place in
    the cell is what is asked.

    Parameters
    ----------
    ri_or_mask_ZYX : float or bool or integer array, (Z, Y, X)
        Refractive index, or a mask of the cells (bool or integers), which is more exact.
    channel_ZYX : float array, (Z, Y, X)
        Fluorescence on the same grid.
    spacing_um : (z, y, x)
        Voxel size in µm.
    max_offset_um : float
        Largest plausible offset along each axis.
    medium_ri : float, optional
        Refractive index of the medium; see `estimate_cells`.
    field_ZYX : bool array, (Z, Y, X), optional
        False outside the field of the channel.

    Returns
    -------
    Offset
        Not reliable if the outlines do not agree, for instance because the channel shows no cytoplasm.

    Raises
    ------
    ValueError
        Arrays of different shapes.

    References
    ----------
    Guizar-Sicairos, Thurman and Fienup 2008, Optics Letters 33(2):156.
    """
    if ri_or_mask_ZYX.shape != channel_ZYX.shape or channel_ZYX.ndim != 3:
        raise ValueError(f"expected arrays of one shape, got {ri_or_mask_ZYX.shape} and {channel_ZYX.shape}")
    field = np.ones(channel_ZYX.shape, bool) if field_ZYX is None else field_ZYX
    cells = _soft_cells(ri_or_mask_ZYX, spacing_um, medium_ri)
    if cells is None or not field.any():
        return _none("no cells were found in the tomogram" if field.any() else "the channel has no field")
    seen = _seen_cells(channel_ZYX, cells > 0.5, field, spacing_um)
    if seen is None:
        return _none("the channel shows no cytoplasm above its background")
    steps = [max(1, int(OUTLINE_UM / s + 1e-6)) for s in spacing_um]
    box = tuple(
        slice(b.start, b.stop, n) for b, n in zip(ndi.find_objects(field.view(np.uint8))[0], steps, strict=True)
    )
    # outlines are as wide as a coarse voxel, so that fewer voxels lose nothing
    fixed, moving = (_outlines(image, spacing_um)[box] for image in (cells, seen))
    shift, _, _ = phase_cross_correlation(_faded(moving), _faded(fixed), upsample_factor=_STEPS, normalization=None)
    z, y, x = (float(k * n * s) for k, n, s in zip(shift, steps, spacing_um, strict=True))
    moved = ndi.shift(moving, [-n for n in shift], order=1, mode="nearest")
    reliability = float(np.corrcoef(fixed.ravel(), moved.ravel())[0, 1])
    reason = ""
    if max(abs(z), abs(y), abs(x)) > max_offset_um:
        reason = f"more than {max_offset_um:g} µm"
    elif not reliability >= LEAST_CORRELATION:
        reason = f"outlines correlate by {reliability:.2f}, expected {LEAST_CORRELATION} or more"
    return Offset((z, y, x), reliability, not reason, reason)


def _none(reason: str) -> Offset:
    return Offset((0.0, 0.0, 0.0), 0.0, False, reason)


def _soft_cells(ri_or_mask: np.ndarray, spacing_um: ZYX, medium_ri: float | None) -> np.ndarray | None:
    """Return a soft mask of the cells, 0 to 1, float32; None without cells."""
    if ri_or_mask.dtype.kind in "bui":
        mask = ri_or_mask != 0
        return mask.astype(np.float32) if mask.any() and not mask.all() else None
    contrast, dense = cell_contrast(ri_or_mask, spacing_um, medium_ri)
    return _soft(contrast, dense) if dense > 0 else None


def _seen_cells(channel: np.ndarray, cells: np.ndarray, field: np.ndarray, spacing_um: ZYX) -> np.ndarray | None:
    """Return a soft mask of the cells as the channel shows them; None without cytoplasm above the background.

    The cytoplasm's level is the 40th percentile of the channel in the cells, most of which is not stained.
    """
    values = ndi.gaussian_filter(channel.astype(np.float32), [OUTLINE_UM / s for s in spacing_um])
    found = background_level(values, cells.astype(np.int32), field, spacing_um)
    if found is None or not (cells & field).any():
        return None
    level, noise = found
    cytoplasm = float(np.percentile(values[cells & field], 40)) - level
    if cytoplasm <= 0:
        return None
    return np.where(field, _soft(values - np.float32(level), max(cytoplasm, 3 * noise)), 0)


def _soft(values: np.ndarray, level: float) -> np.ndarray:
    """Return a logistic step at half a level."""
    return 1 / (1 + np.exp(-np.clip((values - level / 2) / (level / 8), -30, 30).astype(np.float32)))


def _outlines(soft_ZYX: np.ndarray, spacing_um: ZYX) -> np.ndarray:
    return np.asarray(ndi.gaussian_gradient_magnitude(soft_ZYX, [OUTLINE_UM / s for s in spacing_um]))


def _faded(image: np.ndarray) -> np.ndarray:
    """Return an image minus its mean, faded to 0 at the borders: the Fourier transform joins opposite ones."""
    result = image - image.mean()
    for axis, size in enumerate(image.shape):
        width = min(max(2, round(_FADE * size)), size // 2)
        ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(width) + 0.5) / max(width, 1))
        weight = np.ones(size, np.float32)
        weight[:width], weight[size - width :] = ramp, ramp[::-1]
        result = result * weight.reshape([-1 if a == axis else 1 for a in range(3)])
    return result
