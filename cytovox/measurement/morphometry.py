"""Morphometry of a mask: volume, surface area, sphericity, centroid, connected parts, contact with the border."""

from collections.abc import Callable

import numpy as np
import scipy.ndimage as ndi
from skimage.measure import marching_cubes, mesh_surface_area

from cytovox.measurement.surface import surface_area_um2

ZYX = tuple[float, float, float]


def marching_cubes_area_um2(mask_ZYX: np.ndarray, spacing_um: ZYX) -> float:
    """Compute the surface area by marching cubes on the binary mask, without smoothing: the published estimator.

    On balls of any size it is 8 % (isotropic voxels) to 15 % (anisotropic voxels) too large.

    Parameters
    ----------
    mask_ZYX : bool array, (Z, Y, X)
        True inside. The surface is closed where the mask touches the border.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.

    Returns
    -------
    float
        µm², the surfaces of cavities included.

    Raises
    ------
    ValueError
        The mask is empty.

    References
    ----------
    Lewiner et al. 2003, J. Graphics Tools 8(2); Choi et al. 2021, bioRxiv 2021.05.23.445351.
    """
    if not mask_ZYX.any():
        raise ValueError("surface area of an empty mask: leave the mask out")
    box = ndi.find_objects((mask_ZYX != 0).astype(np.uint8))[0]
    vertices, faces, _, _ = marching_cubes(np.pad(mask_ZYX[box] != 0, 1).astype(np.float32), 0.5, spacing=spacing_um)
    return float(mesh_surface_area(vertices, faces))


#: Estimators of the surface area, by their name in configs and tables.
AREA_ESTIMATORS: dict[str, Callable[[np.ndarray, ZYX], float]] = {
    "enclosing": surface_area_um2,
    "marching_cubes": marching_cubes_area_um2,
}


def volume_um3(mask_ZYX: np.ndarray, spacing_um: ZYX) -> float:
    """Return the number of voxels of a mask times the volume of a voxel."""
    return float(np.count_nonzero(mask_ZYX)) * float(np.prod(spacing_um))


def sphericity(volume_um3: float, area_um2: float) -> float:
    """Return the area of the ball of this volume divided by this area: 1 for a ball, less for any other body.

    References
    ----------
    Wadell 1935, Journal of Geology 43(3).
    """
    return float(np.pi ** (1 / 3) * (6 * volume_um3) ** (2 / 3) / area_um2)


#: Mean thickness, in the coarsest voxels, below which an area may be off by more than 3 %: measured on ellipsoids and
#: discs with round rims (benchmarks/measurements.py, part area; docs/measurements.md).
THIN_VOXELS = 2.0


def area_flag(volume_um3: float, area_um2: float, spacing_um: ZYX) -> str:
    """Return "thin" if the voxels are too coarse for the area of a mask, else "".

    Parameters
    ----------
    volume_um3, area_um2 : float
        Of the mask. 2 volume / area is the mean thickness of a flat body, and a third of the diameter of a ball.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    """
    return "thin" if 2 * volume_um3 < THIN_VOXELS * max(spacing_um) * area_um2 else ""


def equivalent_diameter_um(volume_um3: float) -> float:
    """Return the diameter of the ball of this volume."""
    return float((6 * volume_um3 / np.pi) ** (1 / 3))


def centroid_um(mask_ZYX: np.ndarray, spacing_um: ZYX, origin_um: ZYX = (0.0, 0.0, 0.0)) -> ZYX:
    """Return the mean position (z, y, x) of the voxels' centres; `origin_um` is the centre of the first voxel."""
    z, y, x = (
        float(index.mean()) * step + first
        for index, step, first in zip(np.nonzero(mask_ZYX), spacing_um, origin_um, strict=True)
    )
    return z, y, x


def parts(mask_ZYX: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the 26-connected parts of a mask: labels (Z, Y, X) from 1, and their number."""
    labels, number = ndi.label(mask_ZYX, structure=np.ones((3, 3, 3), bool))
    return labels, int(number)


def border_faces(box: tuple[slice, ...], shape: tuple[int, ...]) -> str:
    """Return the faces of a volume that a bounding box reaches, such as "z- y+"; "" if it reaches none.

    Parameters
    ----------
    box : slices, (z, y, x)
        Bounding box from `scipy.ndimage.find_objects`.
    shape : (int, int, int)
        Shape of the volume, z, y, x.
    """
    reached = {
        f"{axis}{sign}": at_border
        for axis, part, size in zip("zyx", box, shape, strict=True)
        for sign, at_border in (("-", part.start == 0), ("+", part.stop == size))
    }
    return " ".join(face for face, at_border in reached.items() if at_border)
