"""The larger set of shape features: 50 of the 2D mask and image, 76 of the 3D object.

Each set begins with the 12 or 15 features of `cytovox.measurement.shape_features`. All features are independent of
position, rotation and mirroring. Some common descriptors depend on the pose or on the order of vertices. They were
changed:

- grey-level co-occurrence by direction: the matrices of the four directions are summed before properties are computed;
- coefficients of spherical harmonics, and Fourier descriptors of the outline: only the power of each degree is used;
- profiles along the image's axes: taken along the principal axes, and folded at the centroid, because an axis has no
  sign. If two axes are equally long, their directions are arbitrary, and so is the assignment of their two profiles;
- extents of the bounding box along the image's axes: those of the box along the principal axes;
- radii listed by vertex or angle: only their distribution is used.

These were left out: centroid, orientation angles, coordinates of extreme points, signed skewness along an axis, Hu's
seventh moment (mirroring changes its sign). 126 features are many for some 80 training cells: the small set is the
default.
"""

from itertools import pairwise

import numpy as np
import scipy.ndimage as ndi
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist
from skimage.feature import graycomatrix, graycoprops

from cytovox.measurement.shape_features import (
    FEATURES_2D,
    FEATURES_3D,
    Feature,
    features_2d,
    features_3d,
    hull_size,
    inside_distance,
    ordered,
    principal_axes,
    standard_moment,
)
from cytovox.measurement.spherical import power_spectrum
from cytovox.measurement.surface import Surface, outline, surface

GREY_LEVELS = 16
#: Distances between the two pixels of a pair, in pixels.
GREY_DISTANCES = (1, 3)
GREY_PROPERTIES = ("contrast", "homogeneity", "ASM", "correlation")
#: Number of shells of a radial profile.
SHELLS = 5
#: Degrees of the harmonics of the mass, weighted by its distance to the centroid; the first is 0 by definition.
HARMONICS_2D, HARMONICS_3D = range(2, 8), range(2, 10)
#: Borders of the radial shells, in radii of the ball of the same volume.
RADII = (0.0, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)
CURVATURE_QUANTILES = (5, 25, 50, 75, 95)
#: Classes of the shape index, from cup (-1) to cap (1): Koenderink and van Doorn 1992, Image Vision Comput. 10(8).
SHAPES = ("cup", "rut", "saddle", "ridge", "cap")
AXES = ("major", "middle", "minor")

_STATISTIC, _DEPTH = "order statistic or moment", "Euclidean distance transform"
_GREY, _KAZHDAN = "Haralick et al. 1973, IEEE Trans. SMC 3(6)", "Kazhdan et al. 2003, SGP"

FEATURES_2D_LARGE: tuple[Feature, ...] = (
    *FEATURES_2D,
    *(Feature(f"intensity_p{q:02}", "image", f"percentile {q} of intensity", _STATISTIC) for q in (5, 50, 95)),
    Feature("intensity_iqr", "image", "range between the quartiles of intensity", _STATISTIC),
    Feature("intensity_skewness", "1", "third standard moment of intensity", _STATISTIC),
    Feature("intensity_kurtosis", "1", "fourth standard moment of intensity", _STATISTIC),
    Feature("intensity_entropy", "bit", "entropy of 16 grey levels between darkest and brightest", "Shannon 1948"),
    *(
        Feature(f"shell_mean_{i}", "1", f"mean intensity of shell {i} by depth, divided by the mean", "radial profile")
        for i in range(SHELLS)
    ),
    *(
        Feature(
            f"shell_sd_{i}",
            "1",
            f"standard deviation of intensity of shell {i} by depth, divided by the mean",
            "radial profile",
        )
        for i in range(SHELLS)
    ),
    *(
        Feature(f"grey_{p.lower()}_{d}", "1", f"{p} of grey levels {d} pixels apart, over all directions", _GREY)
        for d in GREY_DISTANCES
        for p in GREY_PROPERTIES
    ),
    *(
        Feature(f"depth_p{q}", "µm", f"percentile {q} of the distance to the outline", _DEPTH)
        for q in (25, 50, 75, 100)
    ),
    *(
        Feature(f"circular_power_{k}", "1", f"harmonic {k} of the mask's mass by direction", "Fourier descriptors")
        for k in HARMONICS_2D
    ),
    Feature("parts_2d", "1", "parts of the mask, 8-connected", "count"),
    Feature(
        "convexity_2d",
        "1",
        "perimeter of the convex hull divided by that of the mask",
        "Russ, The Image Processing Handbook",
    ),
    Feature("feret_2d_um", "µm", "largest distance between two points", "Feret 1930"),
)

FEATURES_3D_LARGE: tuple[Feature, ...] = (
    *FEATURES_3D,
    Feature("middle_axis_um", "µm", "middle axis of the ellipsoid with its moments", "second central moments"),
    Feature("minor_axis_um", "µm", "shortest axis of the ellipsoid with its moments", "second central moments"),
    Feature(
        "convexity_3d",
        "1",
        "surface area of the convex hull divided by that of the object",
        "Russ, The Image Processing Handbook",
    ),
    Feature("box_fill", "1", "volume divided by that of the box along its principal axes", "Russ, as above"),
    Feature("feret_3d_um", "µm", "largest distance between two points", "Feret 1930"),
    Feature("parts", "1", "parts, 26-connected", "count"),
    Feature("cavities", "1", "enclosed cavities, 6-connected", "count"),
    Feature("tunnels", "1", "parts + cavities - Euler number", "Euler and Poincaré"),
    Feature("largest_part_share", "1", "fraction of the volume in the largest part", "count"),
    Feature("cavity_share", "1", "volume of cavities divided by volume", "count"),
    *(
        Feature(
            f"mass_to_{high}",
            "1",
            f"fraction of the volume at {low} to {high} radii of the ball of the same volume",
            "radial profile",
        )
        for low, high in pairwise(RADII)
    ),
    *(
        Feature(f"radius_{name}", "1", f"{name} of the surface's distance to the centroid", _STATISTIC)
        for name in ("skewness", "kurtosis", "min", "max")
    ),
    *(
        Feature(f"mean_curvature_p{q:02}", "1", f"percentile {q} of mean curvature, times radius", "Goldman 2005")
        for q in CURVATURE_QUANTILES
    ),
    *(
        Feature(
            f"gaussian_curvature_p{q:02}", "1", f"percentile {q} of Gaussian curvature, times radius²", "Goldman 2005"
        )
        for q in CURVATURE_QUANTILES
    ),
    *(
        Feature(f"share_{s}", "1", f"fraction of the surface with the shape index of a {s}", "Koenderink 1992")
        for s in SHAPES
    ),
    Feature("willmore", "1", "integral of mean curvature² over the surface / 4 pi; 1 for a ball", "Willmore 1965"),
    *(
        Feature(f"depth_3d_p{q}", "µm", f"percentile {q} of the distance to the surface", _DEPTH)
        for q in (25, 50, 75, 95)
    ),
    *(Feature(f"spherical_power_{n}", "1", f"degree {n} of the mass by direction", _KAZHDAN) for n in HARMONICS_3D),
    *(
        Feature(f"section_{axis}_{i}", "1", f"fraction of the volume in quarter {i} of the half axis", "profile")
        for axis in AXES
        for i in range(3)
    ),
    *(Feature(f"kurtosis_{axis}", "1", "fourth standard moment along the axis", _STATISTIC) for axis in AXES),
    Feature("asymmetry", "1", "distance between the centroids of volume and surface, divided by the radius", "moments"),
)


def features_2d_large(
    image_YX: np.ndarray, mask_YX: np.ndarray, spacing_um: tuple[float, float] = (1.0, 1.0)
) -> dict[str, float]:
    """Compute the 50 features of `FEATURES_2D_LARGE`, in its order; parameters and errors as for `features_2d`."""
    small = features_2d(image_YX, mask_YX, spacing_um)
    mask = np.asarray(mask_YX) != 0
    image = np.asarray(image_YX, dtype=np.float64)
    depth = inside_distance(mask, spacing_um)[mask]
    points = outline(mask, spacing_um).points_N2
    return ordered(
        FEATURES_2D_LARGE,
        {
            **small,
            **_intensity_statistics(image[mask]),
            **_shell_profile(image[mask], depth),
            **_texture(image, mask),
            **{f"depth_p{q}": float(np.percentile(depth, q)) for q in (25, 50, 75, 100)},
            **_circular_power(mask, spacing_um),
            "parts_2d": float(ndi.label(mask, np.ones((3, 3)))[1]),
            "convexity_2d": hull_size(points)[1] / small["perimeter_um"],
            "feret_2d_um": _feret(points),
        },
    )


def features_3d_large(
    obj_ZYX: np.ndarray, spacing_um: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> dict[str, float]:
    """Compute the 76 features of `FEATURES_3D_LARGE`, in its order; parameters and errors as for `features_3d`."""
    obj = np.asarray(obj_ZYX) != 0
    mesh = surface(obj, spacing_um)
    small = features_3d(obj, spacing_um, mesh=mesh)
    length_3, direction_33 = principal_axes(obj, spacing_um)
    radius = (3 * small["volume_um3"] / (4 * np.pi)) ** (1 / 3)
    points_N3 = np.argwhere(obj) * np.asarray(spacing_um)
    centroid = points_N3.mean(axis=0)
    extent_3 = np.ptp(mesh.vertices_V3 @ direction_33.T, axis=0)
    depth = inside_distance(obj, spacing_um)[obj]
    middle_of_surface = mesh.vertex_area_V @ mesh.vertices_V3 / mesh.area_um2
    return ordered(
        FEATURES_3D_LARGE,
        {
            **small,
            "middle_axis_um": length_3[1],
            "minor_axis_um": length_3[2],
            "convexity_3d": hull_size(mesh.vertices_V3)[1] / mesh.area_um2,
            "box_fill": mesh.volume_um3 / float(np.prod(extent_3)),
            "feret_3d_um": _feret(mesh.vertices_V3),
            **_topology(obj, small["euler_number"]),
            **_mass(points_N3 - centroid, direction_33, radius),
            **_radii(mesh, centroid, radius),
            **_curvatures(mesh, radius),
            **{f"depth_3d_p{q}": float(np.percentile(depth, q)) for q in (25, 50, 75, 95)},
            "asymmetry": float(np.linalg.norm(middle_of_surface - centroid)) / radius,
        },
    )


def _intensity_statistics(values_N: np.ndarray) -> dict[str, float]:
    """Compute percentiles, interquartile range, moments and entropy of the intensities inside a mask, (N,)."""
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


def _shell_profile(values_N: np.ndarray, depth_N: np.ndarray) -> dict[str, float]:
    """Compute the intensity in shells of about equal pixel number, from the outline (0) to the centre (4)."""
    edges = np.quantile(depth_N, np.linspace(0, 1, SHELLS + 1)[1:-1]).round(9)
    shell_N = np.searchsorted(edges, depth_N.round(9), side="right")
    mean = values_N.mean() or 1.0
    found = {}
    for i in range(SHELLS):
        # in a small mask, which has few depths, a shell may be empty: it then gets the mean
        inside = values_N[shell_N == i] if (shell_N == i).any() else np.array([mean])
        found[f"shell_mean_{i}"] = float(inside.mean() / mean)
        found[f"shell_sd_{i}"] = float(inside.std() / mean)
    return found


def _texture(image_YX: np.ndarray, mask_YX: np.ndarray) -> dict[str, float]:
    """Compute the co-occurrence of grey levels inside the mask, summed over all directions.

    The levels range from the darkest to the brightest pixel of the mask, so gain and offset have no effect.

    References
    ----------
    Haralick et al. 1973, IEEE Trans. SMC 3(6).
    """
    # level 0 is outside the mask; its pairs are dropped
    level_YX = np.zeros(mask_YX.shape, np.uint8)
    values_N = image_YX[mask_YX]
    level_YX[mask_YX] = 1 + _levels(values_N, values_N.min(), values_N.max())
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    pairs = graycomatrix(level_YX, GREY_DISTANCES, angles, levels=GREY_LEVELS + 1, symmetric=True)
    pairs = pairs[1:, 1:].sum(axis=3, keepdims=True).astype(np.float64)
    pairs[0, 0, pairs.sum(axis=(0, 1)) == 0] = 1.0  # no pair at this distance: treated as equal pixels
    found = {p: graycoprops(pairs / pairs.sum(axis=(0, 1)), p)[:, 0] for p in GREY_PROPERTIES}
    return {
        f"grey_{p.lower()}_{distance}": float(values[i])
        for p, values in found.items()
        for i, distance in enumerate(GREY_DISTANCES)
    }


def _levels(values_N: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return grey levels from 0 (darkest) to 15 (brightest)."""
    share = (values_N - low) / (high - low) if high > low else np.zeros(len(values_N))
    return np.minimum((share * GREY_LEVELS).astype(np.intp), GREY_LEVELS - 1)


def _circular_power(mask: np.ndarray, spacing_um: tuple[float, float]) -> dict[str, float]:
    points_N2 = np.argwhere(mask) * np.asarray(spacing_um)
    y, x = (points_N2 - points_N2.mean(axis=0)).T
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    total = radius.sum() or 1.0
    return {f"circular_power_{k}": float(abs(radius @ np.exp(1j * k * angle)) / total) for k in HARMONICS_2D}


def _topology(obj: np.ndarray, euler: float) -> dict[str, float]:
    labels, parts = ndi.label(obj, np.ones((3, 3, 3)))
    outside, spaces = ndi.label(np.pad(~obj, 1, constant_values=True))
    return {
        "parts": float(parts),
        "cavities": float(spaces - 1),
        "tunnels": parts + spaces - 1 - euler,
        "largest_part_share": float(np.bincount(labels.ravel())[1:].max() / obj.sum()),
        "cavity_share": float(np.count_nonzero(outside > 1) / obj.sum()),
    }


def _mass(points_N3: np.ndarray, direction_33: np.ndarray, radius: float) -> dict[str, float]:
    """Compute the distribution of the volume around its centroid, the origin of the points."""
    n = len(points_N3)
    away_N = np.linalg.norm(points_N3, axis=1)
    found = {
        f"mass_to_{high}": float(np.count_nonzero((away_N >= low * radius) & (away_N < high * radius)) / n)
        for low, high in pairwise(RADII)
    }
    off = away_N > 1e-9
    # weighted by the distance: a voxel at the centroid has no direction
    power = power_spectrum(points_N3[off], away_N[off], max(HARMONICS_3D)) if off.any() else np.zeros(max(HARMONICS_3D))
    found |= {f"spherical_power_{n}": float(power[n - 1]) for n in HARMONICS_3D}
    for axis, direction_3 in zip(AXES, direction_33, strict=True):
        along_N = points_N3 @ direction_3
        # rounded, so that a voxel on the border of two quarters is in the same quarter for every rotation
        share_N = (np.abs(along_N) / max(np.abs(along_N).max(), 1e-9)).round(9)
        counts = np.histogram(share_N, bins=[0, 0.25, 0.5, 0.75, 1.01])[0]
        found |= {f"section_{axis}_{i}": float(counts[i] / n) for i in range(3)}
        found[f"kurtosis_{axis}"] = standard_moment(along_N, 4)
    return found


def _radii(mesh: Surface, centroid: np.ndarray, radius: float) -> dict[str, float]:
    away_V = np.linalg.norm(mesh.vertices_V3 - centroid, axis=1) / radius
    return {
        "radius_skewness": standard_moment(away_V, 3, mesh.vertex_area_V),
        "radius_kurtosis": standard_moment(away_V, 4, mesh.vertex_area_V),
        "radius_min": float(away_V.min()),
        "radius_max": float(away_V.max()),
    }


def _curvatures(mesh: Surface, radius: float) -> dict[str, float]:
    mean_V, gaussian_V = mesh.mean_curvature_V * radius, mesh.gaussian_curvature_V * radius**2
    weight_V = mesh.vertex_area_V
    # shape index from -1 to 1: arctangent of mean curvature divided by half the difference of principal curvatures
    index_V = 2 / np.pi * np.arctan2(mean_V, np.sqrt(np.maximum(mean_V**2 - gaussian_V, 0)))
    shape_V = np.clip(((index_V + 1) / 2 * len(SHAPES)).astype(np.intp), 0, len(SHAPES) - 1)
    share = np.bincount(shape_V, weights=weight_V, minlength=len(SHAPES)) / weight_V.sum()
    found = {f"share_{name}": float(share[i]) for i, name in enumerate(SHAPES)}
    for name, values_V in (("mean", mean_V), ("gaussian", gaussian_V)):
        order = np.argsort(values_V)
        up_to = (np.cumsum(weight_V[order]) - weight_V[order] / 2) / weight_V.sum()
        at = np.interp(np.array(CURVATURE_QUANTILES) / 100, up_to, values_V[order])
        found |= {f"{name}_curvature_p{q:02}": float(v) for q, v in zip(CURVATURE_QUANTILES, at, strict=True)}
    return {**found, "willmore": float(weight_V @ mesh.mean_curvature_V**2 / (4 * np.pi))}


def _feret(points_NK: np.ndarray) -> float:
    """Return the largest distance between two points."""
    corners = points_NK[ConvexHull(points_NK, qhull_options="QJ").vertices] if len(points_NK) > 500 else points_NK
    return float(pdist(corners).max())
