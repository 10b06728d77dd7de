"""Shape features for classification: 12 of the 2D mask and image, 15 of the 3D object, independent of the cell's pose.

No feature depends on position, rotation or mirroring. Under 90° rotations and mirroring, features that count voxels or
use moments are equal up to rounding. Those computed from the triangles of the surface are equal up to 1e-4 (areas) or
6e-2 (standard deviation of curvature), because the diagonals of the triangles change. At other angles the sampling of
the voxels adds 1 to 3 % at 64 voxels (25 % for the roughness of a smooth body). The published work on these cells names
the kinds of its features but does not define them. These are the standard features of shape description and of red
blood cell morphometry, with one definition each, chosen before any classifier was run.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.ndimage as ndi
from scipy.spatial import ConvexHull, QhullError
from skimage.measure import euler_number

from cytovox.measurement.morphometry import sphericity
from cytovox.measurement.surface import Surface, outline, surface

#: Standard deviation, in voxels, of the Gaussian filter whose effect is the roughness.
ROUGHNESS_SIGMA = 2.0


@dataclass(frozen=True)
class Feature:
    """A feature: name, unit and definition of one number of a cell."""

    name: str
    unit: str
    """"1" for a pure number."""
    meaning: str
    source: str
    """Source of its definition."""


RUSS = "Russ, The Image Processing Handbook"
HARALICK = "Haralick 1974, IEEE Trans. SMC 4(4)"
MOMENTS = "second central moments"

FEATURES_2D: tuple[Feature, ...] = (
    Feature("area_um2", "µm²", "area of the mask", "count of pixels"),
    Feature("perimeter_um", "µm", "length of the outline, holes included", "cytovox.measurement.surface.outline"),
    Feature("circularity", "1", "4 pi area / perimeter²; 1 for a disc", "Cox 1927, J. Paleontology 1(3)"),
    Feature("solidity_2d", "1", "area divided by that of the convex hull", RUSS),
    Feature("aspect_ratio", "1", "minor divided by major principal axis", MOMENTS),
    Feature("hole_share", "1", "fraction of the filled outline that is hole", RUSS),
    Feature("radius_cv", "1", "standard deviation divided by mean of the outline's distance to the centroid", HARALICK),
    Feature(
        "bending",
        "1",
        "mean squared curvature of the outline times area / pi; 1 for a disc",
        "Young et al. 1974, Inf. Control",
    ),
    Feature("intensity_mean", "image", "mean intensity in the mask", "first moment"),
    Feature("intensity_sd", "image", "standard deviation of intensity in the mask", "second moment"),
    Feature(
        "intensity_rim_correlation", "1", "Pearson's r of intensity with the distance to the outline", "radial profile"
    ),
    Feature("intensity_gradient", "image/µm", "mean gradient in the mask, sigma 1 pixel", "Tenengrad focus measures"),
)

FEATURES_3D: tuple[Feature, ...] = (
    Feature("volume_um3", "µm³", "volume of the object", "count of voxels"),
    Feature("surface_um2", "µm²", "area of the surface, cavities included", "cytovox.measurement.surface.surface"),
    Feature(
        "sphericity",
        "1",
        "surface area of the ball of the same volume, divided by that of the object",
        "Wadell 1935, J. Geology 43(3)",
    ),
    Feature("solidity_3d", "1", "volume divided by that of the convex hull", RUSS),
    Feature(
        "roughness",
        "1",
        "number of voxels that smoothing changes, divided by the number of voxels",
        "Waibel et al. 2022, iScience 25:105298",
    ),
    Feature("major_axis_um", "µm", "longest axis of the ellipsoid with its moments", MOMENTS),
    Feature("elongation", "1", "middle divided by longest axis", "Zingg 1935"),
    Feature("flatness", "1", "shortest divided by middle axis", "Zingg 1935"),
    Feature("thickness_max_um", "µm", "diameter of the largest inscribed ball", "Euclidean distance transform"),
    Feature("mean_curvature_mean", "1/µm", "mean over the surface of the mean curvature", "Goldman 2005, CAGD 22(7)"),
    Feature("mean_curvature_sd", "1/µm", "standard deviation over the surface of the mean curvature", "Goldman 2005"),
    Feature(
        "gaussian_curvature_sd", "1/µm²", "standard deviation of Gaussian curvature over the surface", "Goldman 2005"
    ),
    Feature("concave_share", "1", "fraction of the surface with negative mean curvature", "Koenderink 1992"),
    Feature(
        "radius_cv_3d",
        "1",
        "standard deviation divided by mean of the surface's distance to the centroid",
        HARALICK + ", in 3D",
    ),
    Feature("euler_number", "1", "parts - tunnels + cavities, 26-connected", "Ohser and Mücklich 2000"),
)


def features_2d(
    image_YX: np.ndarray, mask_YX: np.ndarray, spacing_um: tuple[float, float] = (1.0, 1.0)
) -> dict[str, float]:
    """Compute the 12 features of `FEATURES_2D`, in its order.

    Parameters
    ----------
    image_YX : float array, (Y, X)
        Intensity, for red blood cells from 0 to 1.
    mask_YX : bool array, (Y, X)
        True inside the cell.
    spacing_um : (y, x) floats
        Size of a pixel in µm; 1 if it is unknown: lengths are then in pixels.

    Returns
    -------
    dict of name -> float
        All finite. For a constant image the correlation with the distance to the outline is 0.

    Raises
    ------
    ValueError
        The mask is empty, mask and image differ in shape, or the image holds NaN inside the mask.
    """
    mask = np.asarray(mask_YX) != 0
    image = np.asarray(image_YX, dtype=np.float64)
    if image.shape != mask.shape:
        raise ValueError(f"image {image.shape}, mask {mask.shape}: expected one shape")
    if not np.isfinite(image[mask]).all():
        raise ValueError("the image holds NaN or infinity inside the mask")
    return ordered(FEATURES_2D, {**_outline_features(mask, spacing_um), **_intensity_features(image, mask, spacing_um)})


def features_3d(
    obj_ZYX: np.ndarray, spacing_um: tuple[float, float, float] = (1.0, 1.0, 1.0), *, mesh: Surface | None = None
) -> dict[str, float]:
    """Compute the 15 features of `FEATURES_3D`, in its order.

    Parameters
    ----------
    obj_ZYX : bool array, (Z, Y, X)
        True inside the cell. Holes and separate parts are measured, too; the mask is not cleaned.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm; 1 if it is unknown: lengths are then in voxels.
    mesh : Surface, optional
        Surface of the object, if it was computed already.

    Returns
    -------
    dict of name -> float
        All finite.

    Raises
    ------
    ValueError
        The object is empty.
    """
    obj = np.asarray(obj_ZYX) != 0
    mesh = surface(obj, spacing_um) if mesh is None else mesh
    volume = float(obj.sum() * np.prod(spacing_um))
    weight_V = mesh.vertex_area_V / mesh.area_um2
    mean_curvature, mean_curvature_sd = weighted_mean_sd(mesh.mean_curvature_V, weight_V)
    major, middle, minor = principal_axes(obj, spacing_um)[0]
    radius_mean, radius_sd = weighted_mean_sd(_distance(mesh.vertices_V3, obj, spacing_um), weight_V)
    return ordered(
        FEATURES_3D,
        {
            "volume_um3": volume,
            "surface_um2": mesh.area_um2,
            "sphericity": sphericity(volume, mesh.area_um2),
            "solidity_3d": mesh.volume_um3 / hull_size(mesh.vertices_V3)[0],
            "roughness": roughness(obj),
            "major_axis_um": major,
            "elongation": middle / major,
            "flatness": minor / middle,
            "thickness_max_um": 2 * float(inside_distance(obj, spacing_um).max()),
            "mean_curvature_mean": mean_curvature,
            "mean_curvature_sd": mean_curvature_sd,
            "gaussian_curvature_sd": weighted_mean_sd(mesh.gaussian_curvature_V, weight_V)[1],
            "concave_share": float(weight_V[mesh.mean_curvature_V < 0].sum()),
            "radius_cv_3d": radius_sd / radius_mean,
            "euler_number": float(euler_number(np.pad(obj, 1), connectivity=3)),
        },
    )


def _outline_features(mask: np.ndarray, spacing_um: tuple[float, float]) -> dict[str, float]:
    line = outline(mask, spacing_um)
    area = float(mask.sum() * np.prod(spacing_um))
    weight_N = line.length_N / line.length_um
    major, minor = principal_axes(mask, spacing_um)[0]
    radius_mean, radius_sd = weighted_mean_sd(_distance(line.points_N2, mask, spacing_um), weight_N)
    return {
        "area_um2": area,
        "perimeter_um": line.length_um,
        "circularity": 4 * np.pi * area / line.length_um**2,
        "solidity_2d": area / max(hull_size(line.points_N2)[0], area),
        "aspect_ratio": minor / major,
        "hole_share": 1 - mask.sum() / ndi.binary_fill_holes(mask).sum(),
        "radius_cv": radius_sd / radius_mean,
        "bending": float(weight_N @ line.curvature_N**2) * area / np.pi,
    }


def _intensity_features(image: np.ndarray, mask: np.ndarray, spacing_um: tuple[float, float]) -> dict[str, float]:
    values = image[mask]
    depth = inside_distance(mask, spacing_um)[mask]
    spread = values.std() * depth.std()
    # pixels outside the mask belong to another cell or to none: set to the mean, they add no edge to the gradient
    filled = np.where(mask, image, values.mean())
    slope = [ndi.gaussian_filter1d(filled, 1.0, axis=a, order=1, mode="nearest") / spacing_um[a] for a in range(2)]
    return {
        "intensity_mean": float(values.mean()),
        "intensity_sd": float(values.std()),
        "intensity_rim_correlation": float(np.mean((values - values.mean()) * (depth - depth.mean())) / spread)
        if spread > 1e-12
        else 0.0,
        "intensity_gradient": float(np.hypot(*slope)[mask].mean()),
    }


def principal_axes(mask: np.ndarray, spacing_um: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Compute the axes of the ellipse or ellipsoid with the mask's second moments.

    Returns
    -------
    length_K : float array
        Full axes in µm, the longest first. Each pixel is treated as a box, so no axis is 0.
    direction_KK : float array
        Unit vectors as rows, in the same order. Their sign is arbitrary; so is the direction of axes of equal length.
    """
    spacing = np.asarray(spacing_um, dtype=np.float64)
    points_NK = np.argwhere(mask) * spacing
    covariance = np.cov(points_NK.T, bias=True) + np.diag(spacing**2 / 12)
    variance_K, direction_KK = np.linalg.eigh(covariance)
    return 2 * np.sqrt((mask.ndim + 2) * variance_K[::-1]), direction_KK.T[::-1]


def inside_distance(mask: np.ndarray, spacing_um: Sequence[float]) -> np.ndarray:
    """Return the distance in µm of each pixel inside to the nearest pixel outside, minus half a pixel; 0 outside."""
    # pixels beyond the border of the volume are outside, too
    far = ndi.distance_transform_edt(np.pad(mask, 1), sampling=spacing_um)[tuple(slice(1, -1) for _ in mask.shape)]
    return np.where(mask, far - min(spacing_um) / 2, 0.0)


def hull_size(points_NK: np.ndarray) -> tuple[float, float]:
    """Return volume and surface area of the convex hull of points (in 2D: area and perimeter)."""
    try:
        hull = ConvexHull(points_NK)
    except QhullError:  # a few voxels only
        hull = ConvexHull(points_NK, qhull_options="QJ")
    return float(hull.volume), float(hull.area)


def roughness(obj_ZYX: np.ndarray) -> float:
    """Return the fraction of voxels changed by smoothing: sum of |(gaussian(obj) > 0.5) - obj| over sum of obj."""
    obj = np.pad(obj_ZYX, int(4 * ROUGHNESS_SIGMA) + 1)
    # rounded, so that a voxel at exactly 0.5 is on the same side for every rotation of the object
    smooth = ndi.gaussian_filter(obj.astype(np.float64), ROUGHNESS_SIGMA).round(9) > 0.5
    return float(np.count_nonzero(smooth != obj) / np.count_nonzero(obj))


def weighted_mean_sd(values_N: np.ndarray, weight_N: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation, with weights that sum to 1."""
    mean = float(weight_N @ values_N)
    return mean, float(np.sqrt(weight_N @ (values_N - mean) ** 2))


def standard_moment(values_N: np.ndarray, order: int, weights_N: np.ndarray | None = None) -> float:
    """Return the mean of ((value - mean) / sd)^order; 0 if all values are equal."""
    mean = np.average(values_N, weights=weights_N)
    sd = np.sqrt(np.average((values_N - mean) ** 2, weights=weights_N))
    return float(np.average(((values_N - mean) / sd) ** order, weights=weights_N)) if sd > 1e-9 else 0.0


def _distance(points_NK: np.ndarray, mask: np.ndarray, spacing_um: Sequence[float]) -> np.ndarray:
    """Return the distance of points to the centroid of a mask, µm."""
    centroid = np.argwhere(mask).mean(axis=0) * np.asarray(spacing_um)
    return np.linalg.norm(points_NK - centroid, axis=1)


def in_unit(features: Mapping[str, float], known: bool) -> dict[str, float]:
    """Return features with the unit in their names.

    Parameters
    ----------
    features : mapping
        From `features_2d`, `features_3d` or the larger sets.
    known : bool
        Whether the voxel size is known. If not, the features are in voxels: `_um` becomes `_px` (edge of a voxel),
        `_um2` becomes `_px2`, and `_um3` becomes `_voxels`.
    """
    return dict(features) if known else {_UM.sub(lambda end: _PX[end[0]], name): v for name, v in features.items()}


_UM, _PX = re.compile("_um[23]?$"), {"_um": "_px", "_um2": "_px2", "_um3": "_voxels"}


def ordered(table: Sequence[Feature], values: Mapping[str, float]) -> dict[str, float]:
    """Return the values in the order of their table. A missing or unknown name is a bug."""
    names = [feature.name for feature in table]
    assert set(names) == set(values), set(names) ^ set(values)
    return {name: float(values[name]) for name in names}
