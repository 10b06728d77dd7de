"""From votes to cells: every voxel says where the nucleus of its cell lies.

A network answers each voxel of a frame with an offset to the centre of its cell's nucleus, in one pass whatever the
number of cells (Neven et al. 2019 cluster such votes; here nuclei are known, and so are the clusters). A voxel belongs
to the nucleus whose centre its vote comes closest to, and to none if it points where no nucleus is: a cell whose
nucleus lies beyond the border is not given to its neighbour.

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

#: A network says offsets in these units, so that its outputs are about one.
UNIT_UM = 10.0
#: A vote may miss the surface of a ball as large as the nucleus by so much.
REACH_UM = 4.0
#: A vote that is nearly as close to a second nucleus as to the first is no decision: the mask's form decides then.
DOUBT_UM = 3.0
#: Two nuclei whose centres are voted closer than this to each other are one.
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
    """The nucleus that each vote means, and by how much.

    Parameters
    ----------
    offsets_VN : float array, (V, 3)
        Places z, y, x in µm from the centre of the first voxel.
    seeds_ZYX : integer array, (Z, Y, X)
        Nuclei.
    spacing_um : (z, y, x) floats
        Their voxel size.
    reach_um : float
        A vote that is farther from the surface of the nearest nucleus (of a ball of its volume) means none.

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
    """Make every cell one connected piece around its nucleus, and divide what the votes left in doubt.

    What a cell's votes are sure of, and is connected to its nucleus, stays. The rest of what was claimed (doubts, and
    pieces that are cut off from their nucleus) is divided by the form of the mask: a watershed from what stays. A piece
    that touches none of it becomes 0.

    Parameters
    ----------
    labels_ZYX : int32 array, (Z, Y, X)
        The nucleus that each voxel votes for, 0 for none.
    margin_ZYX : float array, (Z, Y, X)
        As of `assign_offsets`.
    seeds_ZYX : int32 array, (Z, Y, X)
        Nuclei: they are of their cell, whatever the votes said.
    spacing_um : (z, y, x) floats
        Size of a voxel.
    doubt_um : float
        Margins below this are in doubt.

    Returns
    -------
    int32 array, (Z, Y, X)
        No voxel that voted for none gets a label, unless it is a nucleus.
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
    """Tell nuclei apart that touch, by where their voxels vote.

    The votes of a component's voxels gather around one place for each nucleus in it. Components whose voxels gather
    around one stay as they are.

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
    """Places (K, 3) where votes are dense: peaks of their histogram, smoothed by a quarter of the distance apart."""
    cell = apart_um / 8
    low = offsets_VN.min(axis=0) - apart_um
    size = np.ceil((offsets_VN.max(axis=0) + apart_um - low) / cell).astype(int)
    if np.prod(size.astype(float)) > 1e7:  # votes all over the place gather nowhere
        return offsets_VN.mean(axis=0)[None]
    bins = ((offsets_VN - low) / cell).astype(int)
    density = np.bincount(np.ravel_multi_index(tuple(bins.T), tuple(size)), minlength=int(np.prod(size)))
    smooth = ndi.gaussian_filter(density.reshape(size).astype(np.float32), 2.0)
    peaks = peak_local_max(smooth, min_distance=8, threshold_rel=0.2, exclude_border=False)
    return low + (peaks + 0.5) * cell
