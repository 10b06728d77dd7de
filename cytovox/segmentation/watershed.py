"""Segment cells without learning: divide a membrane mask among its nuclei by a seeded watershed."""

import numpy as np
import scipy.ndimage as ndi
from skimage.segmentation import watershed

ZYX = tuple[float, float, float]

#: Neighbourhood of a voxel: voxels that share a corner are connected.
CORNERS = np.ones((3, 3, 3), bool)


def seeded_watershed(
    membrane_ZYX: np.ndarray, seeds_ZYX: np.ndarray, spacing_um: ZYX, landscape_ZYX: np.ndarray | None = None
) -> np.ndarray:
    """Divide a mask of filled cells among the nuclei in it.

    Parameters
    ----------
    membrane_ZYX : bool array, (Z, Y, X)
        True inside cells. Seed voxels outside the mask are added to it, because a nucleus lies in its cell.
    seeds_ZYX : integer array, (Z, Y, X)
        One label per nucleus, as from `cytovox.segmentation.seeds.nucleus_seeds`.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    landscape_ZYX : float array, (Z, Y, X), optional
        Image to flood, high at the borders between cells. By default the negative distance to the mask's surface, so
        that cells are separated where the mask is narrow.

    Returns
    -------
    int32 array, (Z, Y, X)
        Cell k is connected to seed k. Parts of the mask without a seed stay 0; see `unassigned`.

    Raises
    ------
    ValueError
        The arrays differ in shape.

    References
    ----------
    Beucher and Meyer 1993, "The morphological approach to segmentation: the watershed transformation".
    """
    if membrane_ZYX.shape != seeds_ZYX.shape:
        raise ValueError(f"mask and seeds of one shape were expected, got {membrane_ZYX.shape} and {seeds_ZYX.shape}")
    inside = (membrane_ZYX != 0) | (seeds_ZYX > 0)
    if not (seeds_ZYX > 0).any():
        return np.zeros(inside.shape, np.int32)
    if landscape_ZYX is None:
        # cells continue beyond the border of the volume, so the border is not a surface
        padded = np.pad(inside, 1, mode="edge")
        landscape_ZYX = -ndi.distance_transform_edt(padded, sampling=spacing_um)[1:-1, 1:-1, 1:-1]
    cells = watershed(landscape_ZYX, seeds_ZYX.astype(np.int32), mask=inside, connectivity=CORNERS)
    return np.asarray(cells, np.int32)


def unassigned(membrane_ZYX: np.ndarray, cells_ZYX: np.ndarray) -> np.ndarray:
    """Return the part of the membrane mask that belongs to no cell: bool array, (Z, Y, X)."""
    return np.asarray((membrane_ZYX != 0) & (cells_ZYX == 0))
