"""Detection of masks that fit their tomogram better mirrored or shifted, as wrong NIfTI affines cause it.

The score is the correlation of the mask with the refractive index on a coarse grid. Only masks of whole cells and lipid
droplets are checked: cells differ from the medium and droplets from everything else, but nuclei hardly differ from the
cytoplasm. A mirror image or a shift is reported if it fits clearly better *and* well; if only one of several cells has
a mask, no placement fits well.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.fft

#: Masks that can be checked: the upper percentile at which the index is clipped, the smallest correlation of a better
#: placement, and the smallest gain in correlation.
CHECKED_MASKS: dict[str, tuple[float, float, float]] = {"membrane": (95.0, 0.6, 0.05), "lipid": (99.9, 0.15, 0.08)}

#: Largest size of the coarse grid in voxels.
COARSE = (32, 64, 64)

_AXES = "zyx"
_FLIPS = [axes for n in (1, 2, 3) for axes in itertools.combinations((0, 1, 2), n)]


@dataclass(frozen=True)
class Misplaced:
    """A better placement of a mask."""

    organelle: str
    flipped: str
    """Axes to mirror, such as "yx"; empty for a shift."""
    shift: tuple[int, int, int]
    """Shift z, y, x in voxels; zeros for a mirror image."""
    fit: float
    """Correlation of the mask as it is."""
    better: float
    """Correlation of the better placement."""


def misplaced(ri_ZYX: np.ndarray, masks: Mapping[str, np.ndarray]) -> Misplaced | None:
    """Return the mirror image or shift that fits clearly better, for the first mask that has one.

    Parameters
    ----------
    ri_ZYX : float32 array, (Z, Y, X)
        Refractive index.
    masks : mapping of organelle to bool array, (Z, Y, X)
        Masks of the labelled organelles.
    """
    for organelle, (percentile, least, gain) in CHECKED_MASKS.items():
        mask_ZYX = masks.get(organelle)
        if mask_ZYX is None or not 0 < np.count_nonzero(mask_ZYX) < 0.95 * mask_ZYX.size:
            continue
        ri, factors = _coarse(ri_ZYX)
        mask, _ = _coarse(mask_ZYX)
        low, high = np.percentile(ri, (5.0, percentile))
        ri, mask = _standard(np.clip(ri, low, high)), _standard(mask)
        fit = float((ri * mask).sum())
        by_flip = {axes: float((ri * np.flip(mask, axes)).sum()) for axes in _FLIPS}
        best = max(by_flip, key=lambda axes: by_flip[axes])
        # not for lipid: small bright spots fit many other bright spots
        peak, moved = _best_shift(ri, mask) if organelle == "membrane" else (fit, (0, 0, 0))
        if by_flip[best] >= max(least, fit + gain) and by_flip[best] >= peak - gain:
            return Misplaced(organelle, "".join(_AXES[a] for a in best), (0, 0, 0), fit, by_flip[best])
        if peak >= max(least, fit + gain) and max(map(abs, moved)) >= 2:
            z, y, x = (m * f for m, f in zip(moved, factors, strict=True))
            return Misplaced(organelle, "", (z, y, x), fit, peak)
    return None


def _coarse(array_ZYX: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the float32 means of blocks, and the size of the blocks."""
    size = tuple(max(1, -(-n // most)) for n, most in zip(array_ZYX.shape, COARSE, strict=True))
    counts = [n // b for n, b in zip(array_ZYX.shape, size, strict=True)]
    cut = array_ZYX[tuple(slice(0, n * b) for n, b in zip(counts, size, strict=True))]
    shape = [k for pair in zip(counts, size, strict=True) for k in pair]
    return cut.reshape(shape).mean(axis=(1, 3, 5), dtype=np.float32), size


def _standard(array: np.ndarray) -> np.ndarray:
    """Return the array with zero mean and unit norm."""
    centred = array - array.mean()
    length = float(np.sqrt((centred**2).sum()))
    return centred / length if length > 0 else centred


def _best_shift(ri: np.ndarray, mask: np.ndarray) -> tuple[float, tuple[int, ...]]:
    """Return the highest correlation over all shifts of the mask, and that shift in coarse voxels."""
    padded = [scipy.fft.next_fast_len(2 * n, real=True) for n in ri.shape]
    product = scipy.fft.rfftn(ri, padded) * np.conj(scipy.fft.rfftn(mask, padded))
    scores = scipy.fft.irfftn(product, padded)
    peak = np.unravel_index(int(scores.argmax()), scores.shape)
    shift = tuple(int(k) if k < n else int(k) - m for k, n, m in zip(peak, ri.shape, padded, strict=True))
    return float(scores[peak]), shift
