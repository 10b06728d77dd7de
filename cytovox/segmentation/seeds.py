"""Label the separate nuclei of a mask: one seed per cell."""

import numpy as np
import scipy.ndimage as ndi
from skimage.morphology import h_maxima
from skimage.segmentation import relabel_sequential, watershed

from cytovox.segmentation.watershed import CORNERS, ZYX

#: Least volume of a nucleus: a sphere 3.4 µm in diameter, half that of the smallest nuclei.
MIN_VOLUME_UM3 = 20.0
#: Two touching nuclei are separated if the radius of the neck between them is smaller than both by this.
SPLIT_DEPTH_UM = 0.5


def nucleus_seeds(
    nucleus_ZYX: np.ndarray,
    spacing_um: ZYX,
    *,
    min_volume_um3: float = MIN_VOLUME_UM3,
    min_voxels: int = 1,
    split_depth_um: float | None = None,
) -> np.ndarray:
    """Return the labels of the nuclei of a mask, each the seed of a cell.

    Parameters
    ----------
    nucleus_ZYX : bool array, (Z, Y, X)
        True inside nuclei.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    min_volume_um3, min_voxels : float, int
        Smaller components are dropped. Choi et al. 2021 drop those below 200 voxels of a grid of
        64 x 128 x 128.
    split_depth_um : float, optional
        Split a component at a neck: where the radius of the largest inscribed sphere is smaller by this than on both
        sides (`SPLIT_DEPTH_UM` is a good first value). None does not split, as published.

    Returns
    -------
    int32 array, (Z, Y, X)
        1, 2, 3 ... in the order of their first voxels; 0 elsewhere.

    References
    ----------
    Choi et al. 2021, bioRxiv 2021.05.23.445351: voxels that share a corner are connected. Vincent 1993, IEEE TIP 2(2),
    for h-maxima; Beucher and Meyer 1993 for the watershed.
    """
    labels, number = ndi.label(nucleus_ZYX != 0, structure=CORNERS)
    if split_depth_um is not None and number:
        labels = _split(labels, spacing_um, split_depth_um)
    sizes = np.bincount(labels.ravel())
    small = (sizes < min_voxels) | (sizes * float(np.prod(spacing_um)) < min_volume_um3)
    return np.asarray(relabel_sequential(np.where(small[labels], 0, labels))[0], np.int32)


def _split(components_ZYX: np.ndarray, spacing_um: ZYX, depth_um: float) -> np.ndarray:
    """Return labels of components that are split at their necks, by a watershed from the h-maxima of their radius."""
    inside = components_ZYX > 0
    # nuclei continue beyond the border of the volume, so the border is not a surface
    radius_um = ndi.distance_transform_edt(np.pad(inside, 1, mode="edge"), sampling=spacing_um)[1:-1, 1:-1, 1:-1]
    tops, _ = ndi.label(h_maxima(radius_um.astype(np.float32), depth_um) & inside, structure=CORNERS)
    # a component whose radius is smaller than the depth everywhere has no maximum
    without = np.setdiff1d(np.arange(1, components_ZYX.max() + 1), components_ZYX[tops > 0])
    markers = np.where(np.isin(components_ZYX, without), tops.max() + components_ZYX, tops)
    return np.asarray(watershed(-radius_um, markers, mask=inside, connectivity=CORNERS))
