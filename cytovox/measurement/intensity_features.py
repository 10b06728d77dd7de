"""Intensities inside a 2D mask: their distribution, from the rim to the middle, and between neighbours."""

import numpy as np
from skimage.feature import graycomatrix, graycoprops

from cytovox.measurement.shape_features import standard_moment

GREY_LEVELS = 16

#: In pixels.
GREY_DISTANCES = (1, 3)
GREY_PROPERTIES = ("contrast", "homogeneity", "ASM", "correlation")
SHELLS = 5


def intensity_statistics(values_N: np.ndarray) -> dict[str, float]:
    """Percentiles, range, shape and entropy of the intensities inside a mask, (N,)."""
    low, high = values_N.min(), values_N.max()
    share = np.bincount(_levels(values_N, low, high)) / len(values_N)
    share = share[share > 0]
    p05, p25, p50, p75, p95 = np.percentile(values_N, [5, 25, 50, 75, 95])
    return {
        "intensity_p05": float(p05),
        "intensity_p50": float(p50),
        "intensity_p95": float(p95),
        "intensity_iqr": float(p75 - p25),
        "intensity_skewness": standard_moment(values_N, 3),
        "intensity_kurtosis": standard_moment(values_N, 4),
        "intensity_entropy": float(-(share * np.log2(share)).sum()),
    }


def shell_profile(values_N: np.ndarray, depth_N: np.ndarray) -> dict[str, float]:
    """Intensity from the outline (0) to the middle (4), in shells of about as many pixels each."""
    edges = np.quantile(depth_N, np.linspace(0, 1, SHELLS + 1)[1:-1]).round(9)
    shell_N = np.searchsorted(edges, depth_N.round(9), side="right")
    mean = values_N.mean() or 1.0
    found = {}
    for i in range(SHELLS):
        # a shell without a pixel (depths have few values in a small mask) says nothing
        inside = values_N[shell_N == i] if (shell_N == i).any() else np.array([mean])
        found[f"shell_mean_{i}"] = float(inside.mean() / mean)
        found[f"shell_sd_{i}"] = float(inside.std() / mean)
    return found


def texture(image_YX: np.ndarray, mask_YX: np.ndarray) -> dict[str, float]:
    """Co-occurrence of grey levels inside the mask, all directions summed.

    Levels lie between the darkest and the brightest pixel of the mask, so that gain and offset do not matter.

    References
    ----------
    Haralick et al. 1973, IEEE Trans. SMC 3(6).
    """
    # level 0 is outside, and its pairs are dropped
    level_YX = np.zeros(mask_YX.shape, np.uint8)
    values_N = image_YX[mask_YX]
    level_YX[mask_YX] = 1 + _levels(values_N, values_N.min(), values_N.max())
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    pairs = graycomatrix(level_YX, GREY_DISTANCES, angles, levels=GREY_LEVELS + 1, symmetric=True)
    pairs = pairs[1:, 1:].sum(axis=3, keepdims=True).astype(np.float64)
    pairs[0, 0, pairs.sum(axis=(0, 1)) == 0] = 1.0  # no two pixels so far apart: as if all were equal
    found = {p: graycoprops(pairs / pairs.sum(axis=(0, 1)), p)[:, 0] for p in GREY_PROPERTIES}
    return {
        f"grey_{p.lower()}_{distance}": float(values[i])
        for p, values in found.items()
        for i, distance in enumerate(GREY_DISTANCES)
    }


def _levels(values_N: np.ndarray, low: float, high: float) -> np.ndarray:
    """Grey levels 0 to 15 between the darkest and the brightest."""
    share = (values_N - low) / (high - low) if high > low else np.zeros(len(values_N))
    return np.minimum((share * GREY_LEVELS).astype(np.intp), GREY_LEVELS - 1)
