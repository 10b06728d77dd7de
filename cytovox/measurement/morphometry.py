"""How large a mask is and what form it has: volume, surface area, sphericity, place, parts, border."""

from collections.abc import Callable

import numpy as np
import scipy.ndimage as ndi
from skimage.measure import marching_cubes, mesh_surface_area

from cytovox.measurement.surface import surface_area_um2

ZYX = tuple[float, float, float]


def marching_cubes_area_um2(mask_ZYX: np.ndarray, spacing_um: ZYX) -> float:
    """Area of marching cubes on the mask as it is, stairs and all: the published number.

    On balls it is 8 % (isotropic voxels) to 15 % (anisotropic ones) too large, whatever their size.

    Parameters
    ----------
    mask_ZYX : bool array, (Z, Y, X)
        True inside. Where it touches the border its surface is closed there.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.

    Raises
    ------
    ValueError
        The mask is empty.

    References
    ----------
    Lewiner et al. 2003, J. Graphics Tools 8(2); Choi et al. 2021, bioRxiv 2021.05.23.445351.
    """
    if not mask_ZYX.any():
        raise ValueError("surface of an empty mask: leave it out")
    box = ndi.find_objects((mask_ZYX != 0).astype(np.uint8))[0]
    vertices, faces, _, _ = marching_cubes(np.pad(mask_ZYX[box] != 0, 1).astype(np.float32), 0.5, spacing=spacing_um)
    return float(mesh_surface_area(vertices, faces))


#: Estimators of the surface area, by the name that stands in the tables.
AREA_ESTIMATORS: dict[str, Callable[[np.ndarray, ZYX], float]] = {
    "enclosing": surface_area_um2,
    "marching_cubes": marching_cubes_area_um2,
}


def volume_um3(mask_ZYX: np.ndarray, spacing_um: ZYX) -> float:
    """Voxels times the volume of one."""
    return float(np.count_nonzero(mask_ZYX)) * float(np.prod(spacing_um))


def sphericity(volume_um3: float, area_um2: float) -> float:
    """Area of the ball of this volume over this area: 1 for a ball, less for anything else.

    References
    ----------
    Wadell 1935, Journal of Geology 43(3).
    """
    return float(np.pi ** (1 / 3) * (6 * volume_um3) ** (2 / 3) / area_um2)


#: Mean thickness in the coarsest voxels below which an area may be off by more than 3 %: measured on ellipsoids and
#: discs with round rims (benchmarks/measurements.py, part area; docs/measurements.md).
THIN_VOXELS = 2.0


def area_flag(volume_um3: float, area_um2: float, spacing_um: ZYX) -> str:
    """Return "thin" where voxels are too coarse for the area of a mask, else "".

    Parameters
    ----------
    volume_um3, area_um2 : float
        2 volume / area is the mean thickness of a flat body, and a third of the diameter of a ball.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    """
    return "thin" if 2 * volume_um3 < THIN_VOXELS * max(spacing_um) * area_um2 else ""


def equivalent_diameter_um(volume_um3: float) -> float:
    """Diameter of the ball of this volume."""
    return float((6 * volume_um3 / np.pi) ** (1 / 3))


def centroid_um(mask_ZYX: np.ndarray, spacing_um: ZYX, origin_um: ZYX = (0.0, 0.0, 0.0)) -> ZYX:
    """Mean position of the voxels' centres, z, y, x; the centre of the first voxel lies at `origin_um`."""
    z, y, x = (
        float(place.mean()) * step + first
        for place, step, first in zip(np.nonzero(mask_ZYX), spacing_um, origin_um, strict=True)
    )
    return z, y, x


def parts(mask_ZYX: np.ndarray) -> tuple[np.ndarray, int]:
    """Connected parts of a mask, voxels that touch by a corner included: labels (Z, Y, X) from 1, and their number."""
    labels, number = ndi.label(mask_ZYX, structure=np.ones((3, 3, 3), bool))
    return labels, int(number)


def border_faces(box: tuple[slice, ...], shape: tuple[int, ...]) -> str:
    """The faces of a volume that a bounding box reaches, such as "z- y+"; "" where it lies inside.

    Parameters
    ----------
    box : slices, (z, y, x)
        As `scipy.ndimage.find_objects` gives them.
    shape : (int, int, int)
        Of the volume, z, y, x.
    """
    found = []
    for axis, part, size in zip("zyx", box, shape, strict=True):
        found += [f"{axis}-"] * (part.start == 0) + [f"{axis}+"] * (part.stop == size)
    return " ".join(found)
