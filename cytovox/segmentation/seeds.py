"""One seed per cell: the separate nuclei of a mask."""

import numpy as np
import scipy.ndimage as ndi
from skimage.morphology import h_maxima
from skimage.segmentation import relabel_sequential, watershed

ZYX = tuple[float, float, float]

#: Of a component at 64 x 128 x 128 in Choi et al. 2021: smaller ones are no nucleus.
PAPER_MIN_VOXELS = 200
#: A ball of this volume is 3.4 µm across, half as wide as the smallest nuclei.
MIN_VOLUME_UM3 = 20.0
#: Two nuclei that touch are separated where the neck between them is narrower by this than both, in radius.
SPLIT_DEPTH_UM = 0.5

_CORNERS = np.ones((3, 3, 3), bool)


def nucleus_seeds(
    nucleus_ZYX: np.ndarray,
    spacing_um: ZYX,
    *,
    min_volume_um3: float = MIN_VOLUME_UM3,
    min_voxels: int = 1,
    split_depth_um: float | None = None,
) -> np.ndarray:
    """Label the nuclei of a mask, each the seed of a cell.

    Parameters
    ----------
    nucleus_ZYX : bool array, (Z, Y, X)
        True inside nuclei.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    min_volume_um3, min_voxels : float, int
        Smaller components are dropped. The paper drops those below `PAPER_MIN_VOXELS` voxels of its grid.
    split_depth_um : float, optional
        Cut a component where it has a neck: where the largest ball that fits into it is narrower by this much, in
        radius, than those on both sides (`SPLIT_DEPTH_UM` is a start). None keeps components whole, as published.

    Returns
    -------
    int32 array, (Z, Y, X)
        1, 2, 3 ... in the order of their first voxels; 0 elsewhere.

    References
    ----------
    Choi et al. 2021, bioRxiv 2021.05.23.445351: components that touch by a corner are one. Vincent 1993, IEEE TIP 2(2),
    for h-maxima; Beucher and Meyer 1993 for the watershed.
    """
    inside = nucleus_ZYX != 0
    labels, number = ndi.label(inside, structure=_CORNERS)
    if split_depth_um is not None and number:
        labels = _split(inside, spacing_um, split_depth_um)
    sizes = np.bincount(labels.ravel())
    small = (sizes < min_voxels) | (sizes * float(np.prod(spacing_um)) < min_volume_um3)
    labels = np.where(small[labels], 0, labels)
    return np.asarray(relabel_sequential(labels)[0], np.int32)


def _split(inside: np.ndarray, spacing_um: ZYX, depth_um: float) -> np.ndarray:
    # a border is no end of a nucleus: what lies beyond is taken to go on
    radius_um = ndi.distance_transform_edt(np.pad(inside, 1, mode="edge"), sampling=spacing_um)[1:-1, 1:-1, 1:-1]
    tops, _ = ndi.label(h_maxima(radius_um.astype(np.float32), depth_um) & inside, structure=_CORNERS)
    # a component whose balls are all narrower than the depth has no top of its own
    whole, number = ndi.label(inside, structure=_CORNERS)
    bare = np.setdiff1d(np.arange(1, number + 1), whole[tops > 0])
    markers = np.where(np.isin(whole, bare), tops.max() + whole, tops)
    return np.asarray(watershed(-radius_um, markers, mask=inside, connectivity=_CORNERS))
