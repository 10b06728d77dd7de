"""Assign voxels to cells by centre offsets.

For each voxel of a frame, a network predicts the offset to the centre of its cell's nucleus, in one pass for any number
of cells. Neven et al. (2019) cluster such offsets; here the nuclei are known. A voxel is assigned to the nucleus whose
centre is nearest to the end point of its offset, and to none if no nucleus is near: thus a cell whose nucleus lies
outside the volume is not merged with its neighbour.

References
----------
Neven et al., Instance Segmentation by Jointly Optimizing Spatial Embeddings and Clustering Bandwidth, CVPR 2019,
arXiv 1906.11109.
"""

import numpy as np
import scipy.ndimage as ndi
import torch
from scipy.spatial import KDTree
from skimage.feature import peak_local_max

from cytovox.segmentation.watershed import CORNERS, ZYX, seeded_watershed

#: Unit of the network's offsets in µm, so that its outputs are of the order of one.
UNIT_UM = 10.0
#: Largest distance of an offset's end point from the surface of a sphere as large as the nucleus.
REACH_UM = 4.0
#: An offset is ambiguous if the distances to its two nearest nuclei differ by less: then the shape of the mask decides.
DOUBT_UM = 3.0
#: Least distance between the centres of two nuclei in one component.
APART_UM = 4.0


def centres_um(seeds_ZYX: np.ndarray, spacing_um: ZYX) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels (N,), centroids (N, 3) in µm from the centre of the first voxel, and volumes (N,) in µm³."""
    labels = np.unique(seeds_ZYX)
    labels = labels[labels > 0]
    if not len(labels):
        return labels, np.zeros((0, 3)), np.zeros(0)
    centres = np.asarray(ndi.center_of_mass(seeds_ZYX > 0, seeds_ZYX, labels)) * np.asarray(spacing_um)
    volumes = np.bincount(seeds_ZYX.ravel())[labels] * float(np.prod(spacing_um))
    return labels, centres, volumes


def assign_offsets(
    offsets_VN: np.ndarray, seeds_ZYX: np.ndarray, spacing_um: ZYX, reach_um: float = REACH_UM
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nucleus nearest to the end point of each offset, and the margin to the second nearest.

    Parameters
    ----------
    offsets_VN : float array, (V, 3)
        End points of the offsets: z, y, x in µm from the centre of the first voxel.
    seeds_ZYX : integer array, (Z, Y, X)
        Nuclei.
    spacing_um : (z, y, x) floats
        Size of a voxel.
    reach_um : float
        Largest distance of an end point from the surface of the nearest nucleus, taken as a sphere of its volume;
        voxels beyond it are assigned to none.

    Returns
    -------
    label : int32 array, (V,)
        Labels of seeds, 0 for none.
    margin_um : float array, (V,)
        Distance to the second nearest centre minus that to the nearest; infinite if there is only one.
    """
    labels, centres, volumes = centres_um(seeds_ZYX, spacing_um)
    if not len(labels):
        return np.zeros(len(offsets_VN), np.int32), np.full(len(offsets_VN), np.inf)
    # where there is no second centre, scipy returns an infinite distance
    distance, nearest = KDTree(centres).query(offsets_VN, k=2, workers=torch.get_num_threads())
    reach = np.cbrt(3 * volumes / (4 * np.pi)) + reach_um
    first = nearest[:, 0]
    label = np.where(distance[:, 0] <= reach[first], labels[first], 0).astype(np.int32)
    return label, distance[:, 1] - distance[:, 0]


def resolve_ambiguous(
    labels_ZYX: np.ndarray, margin_ZYX: np.ndarray, seeds_ZYX: np.ndarray, spacing_um: ZYX, doubt_um: float = DOUBT_UM
) -> np.ndarray:
    """Make every cell one connected piece around its nucleus, and assign the ambiguous voxels.

    Voxels with a clear margin that are connected to their nucleus stay. The other assigned voxels (ambiguous ones, and
    pieces without a connection to their nucleus) are divided by a watershed from the voxels that stay. A piece that
    touches none of them becomes 0.

    Parameters
    ----------
    labels_ZYX : int32 array, (Z, Y, X)
        Nucleus that each voxel is assigned to, 0 for none.
    margin_ZYX : float array, (Z, Y, X)
        Margins from `assign_offsets`.
    seeds_ZYX : int32 array, (Z, Y, X)
        Nuclei; their voxels belong to their cell, independent of the offsets.
    spacing_um : (z, y, x) floats
        Size of a voxel.
    doubt_um : float
        Margins below this are ambiguous.

    Returns
    -------
    int32 array, (Z, Y, X)
        A voxel assigned to none gets no label, unless it lies in a nucleus.
    """
    nuclei = seeds_ZYX > 0
    assigned = np.where(nuclei, seeds_ZYX, labels_ZYX).astype(np.int32)
    sure = np.where((margin_ZYX >= doubt_um) | nuclei, assigned, 0)
    kept = np.zeros_like(assigned)
    for label, box in enumerate(ndi.find_objects(sure), start=1):
        if box is not None:
            pieces, _ = ndi.label(sure[box] == label, structure=CORNERS)
            kept[box][np.isin(pieces, np.unique(pieces[seeds_ZYX[box] == label]))] = label
    return kept if np.array_equal(kept, assigned) else seeded_watershed(assigned > 0, kept, spacing_um)


def split_nuclei(
    seeds_ZYX: np.ndarray, offsets_ZYXN: np.ndarray, spacing_um: ZYX, apart_um: float = APART_UM
) -> np.ndarray:
    """Split components of touching nuclei by the end points of their offsets.

    The end points of a component form one cluster per nucleus. A component with one cluster is not split.

    Parameters
    ----------
    seeds_ZYX : integer array, (Z, Y, X)
        Components of a nucleus mask.
    offsets_ZYXN : float array, (Z, Y, X, 3)
        End points of the offsets: z, y, x in µm from the centre of the first voxel.
    spacing_um : (z, y, x) floats
        Size of a voxel.
    apart_um : float
        Least distance between the centres of two nuclei.

    Returns
    -------
    int32 array, (Z, Y, X)
        1, 2, 3 ...
    """
    result = np.zeros(seeds_ZYX.shape, np.int32)
    last = 0
    for label, box in enumerate(ndi.find_objects(seeds_ZYX), start=1):
        if box is None:
            continue
        mask = seeds_ZYX[box] == label
        points = offsets_ZYXN[box][mask]
        centres = _cluster_centres(points, apart_um)
        result[box][mask] = last + 1 + (KDTree(centres).query(points)[1] if len(centres) > 1 else 0)
        last += max(1, len(centres))
    return result


def _cluster_centres(offsets_VN: np.ndarray, apart_um: float) -> np.ndarray:
    """Return the cluster centres (K, 3): peaks of the histogram, smoothed by a quarter of `apart_um`."""
    step = apart_um / 8
    low = offsets_VN.min(axis=0) - apart_um
    size = np.ceil((offsets_VN.max(axis=0) + apart_um - low) / step).astype(int)
    if np.prod(size.astype(float)) > 1e7:  # widely scattered points form no clusters
        return offsets_VN.mean(axis=0)[None]
    density = np.zeros(size, np.float32)
    np.add.at(density, tuple(((offsets_VN - low) / step).astype(int).T), 1)
    peaks = peak_local_max(ndi.gaussian_filter(density, 2.0), min_distance=8, threshold_rel=0.2, exclude_border=False)
    return low + (peaks + 0.5) * step
