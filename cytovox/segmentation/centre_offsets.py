"""Assign voxels to cells by centre offsets.

A network predicts, for each voxel of a frame, the offset to the centre of its cell's nucleus, in one pass whatever the
number of cells. Neven et al. (2019) cluster such offsets; here the nuclei are known. A voxel is assigned to the nucleus
whose centre is nearest to the point that its offset leads to, and to none if no nucleus is near that point: a cell
whose nucleus lies beyond the border is not merged with its neighbour.

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

from cytovox.segmentation.watershed import seeded_watershed

ZYX = tuple[float, float, float]

#: Unit of the network's offsets in µm, so that its outputs are about one.
UNIT_UM = 10.0
#: An offset may end this far from the surface of a ball as large as the nucleus.
REACH_UM = 4.0
#: Offsets whose two nearest nuclei differ by less than this in distance are ambiguous: the shape of the mask decides.
DOUBT_UM = 3.0
#: Offsets of a component whose points lie closer together than this belong to one nucleus.
APART_UM = 4.0

_CORNERS = np.ones((3, 3, 3), bool)


def centres_um(seeds_ZYX: np.ndarray, spacing_um: ZYX) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (N,), centres of gravity (N, 3) in µm from the first voxel's centre, and volumes (N,) in µm3."""
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
    """Return the nucleus that each offset leads to, and the margin to the second nearest.

    Parameters
    ----------
    offsets_VN : float array, (V, 3)
        Places z, y, x in µm from the centre of the first voxel.
    seeds_ZYX : integer array, (Z, Y, X)
        Nuclei.
    spacing_um : (z, y, x) floats
        Their voxel size.
    reach_um : float
        Offsets that end farther from the surface of the nearest nucleus (of a ball of its volume) are assigned to none.

    Returns
    -------
    label : int32 array, (V,)
        Labels of seeds, 0 for none.
    margin_um : float array, (V,)
        How much farther the second nearest centre is; infinite where there is only one.
    """
    labels, centres, volumes = centres_um(seeds_ZYX, spacing_um)
    if not len(labels):
        return np.zeros(len(offsets_VN), np.int32), np.full(len(offsets_VN), np.inf)
    distance, nearest = KDTree(centres).query(
        offsets_VN, k=2, workers=torch.get_num_threads()
    )  # without a second one, scipy says infinity
    radius = np.cbrt(3 * volumes / (4 * np.pi))
    first = nearest[:, 0]
    label = np.where(distance[:, 0] <= radius[first] + reach_um, labels[first], 0).astype(np.int32)
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
        As of `assign_offsets`.
    seeds_ZYX : int32 array, (Z, Y, X)
        Nuclei; their voxels belong to their cell, whatever the offsets.
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
    claimed = np.where(nuclei, seeds_ZYX, labels_ZYX).astype(np.int32)
    sure = np.where((margin_ZYX >= doubt_um) | nuclei, claimed, 0)
    kept = np.zeros_like(claimed)
    for label, box in enumerate(ndi.find_objects(sure), start=1):
        if box is None:
            continue
        pieces, number = ndi.label(sure[box] == label, structure=_CORNERS)
        if number == 1:  # it holds its nucleus, since every label is a seed's
            kept[box][pieces > 0] = label
            continue
        rooted = np.unique(pieces[seeds_ZYX[box] == label])
        kept[box][np.isin(pieces, rooted[rooted > 0])] = label
    if np.array_equal(kept, claimed):
        return kept
    return seeded_watershed(claimed > 0, kept, spacing_um)


def split_nuclei(
    seeds_ZYX: np.ndarray, offsets_ZYXN: np.ndarray, spacing_um: ZYX, apart_um: float = APART_UM
) -> np.ndarray:
    """Split components of touching nuclei by the points that their offsets lead to.

    The points of a component form one cluster for each nucleus in it. Components with one cluster stay as they are.

    Parameters
    ----------
    seeds_ZYX : integer array, (Z, Y, X)
        Components of a nucleus mask.
    offsets_ZYXN : float array, (Z, Y, X, 3)
        Places z, y, x in µm from the centre of the first voxel.
    spacing_um : (z, y, x) floats
        Size of a voxel.
    apart_um : float
        Smallest distance of two nuclei's centres.

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
        centres = _gatherings(offsets_ZYXN[box][mask], apart_um)
        if len(centres) < 2:
            result[box][mask] = last + 1
            last += 1
            continue
        nearest = KDTree(centres).query(offsets_ZYXN[box][mask])[1]
        result[box][mask] = last + 1 + nearest
        last += len(centres)
    return result


def _gatherings(offsets_VN: np.ndarray, apart_um: float) -> np.ndarray:
    """Return the cluster centres (K, 3): peaks of the histogram, smoothed by a quarter of `apart_um`."""
    cell = apart_um / 8
    low = offsets_VN.min(axis=0) - apart_um
    size = np.ceil((offsets_VN.max(axis=0) + apart_um - low) / cell).astype(int)
    if np.prod(size.astype(float)) > 1e7:  # widely scattered points form no clusters
        return offsets_VN.mean(axis=0)[None]
    bins = ((offsets_VN - low) / cell).astype(int)
    density = np.bincount(np.ravel_multi_index(tuple(bins.T), tuple(size)), minlength=int(np.prod(size)))
    smooth = ndi.gaussian_filter(density.reshape(size).astype(np.float32), 2.0)
    peaks = peak_local_max(smooth, min_distance=8, threshold_rel=0.2, exclude_border=False)
    return low + (peaks + 0.5) * cell
