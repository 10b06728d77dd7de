"""Fill holes in predicted masks of whole cells.

The membrane mask is the filled whole cell. A network leaves holes in it at vacuoles, nucleoli or droplets, which do not
look like cytoplasm. A hole is enclosed in 3D: it is open neither to the medium nor to the border of the volume.
Annotated masks, and masks of other organelles, which may be hollow, are not filled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.ndimage as ndi
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

#: Name of the mask that is filled.
FILLED = "membrane"
#: Largest hole that is filled; a larger one may be a lumen between cells. A nucleus of 9 µm diameter has 380 µm³.
MAX_HOLE_UM3 = 500.0


def fill_holes(mask_ZYX: np.ndarray, spacing_um: Sequence[float], most_um3: float = MAX_HOLE_UM3) -> np.ndarray:
    """Return a mask with its holes filled.

    Parameters
    ----------
    mask_ZYX : bool array, (Z, Y, X)
        True inside.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    most_um3 : float
        Volume of the largest hole that is filled, µm³.

    Returns
    -------
    bool array, (Z, Y, X)
        A hole is background that touches neither the border of the volume nor, by a face, background that does.
    """
    mask = np.asarray(mask_ZYX) != 0
    most = most_um3 / float(np.prod(spacing_um))
    (holes,) = closed_holes(lambda: iter([mask]), most)
    return mask if holes is None else mask | holes


def fill_cells(cells_ZYX: np.ndarray) -> np.ndarray:
    """Return labels of cells with the holes of each cell filled, whatever their size.

    Parameters
    ----------
    cells_ZYX : integer array, (Z, Y, X)
        One label per cell, 0 is the background.

    Returns
    -------
    array of the same type, (Z, Y, X)
        A hole is background that one cell alone encloses. A gap that contains another cell, or is open to the border of
        the volume, is not filled.
    """
    filled = np.array(cells_ZYX)
    for label, box in enumerate(ndi.find_objects(filled), start=1):
        if box is not None:
            part = filled[box]
            gaps, number = ndi.label(part != label)
            closed = np.ones(number + 1, bool)
            for outside in (gaps[part > 0], *_faces(gaps)):
                closed[np.unique(outside)] = False
            part[closed[gaps]] = label
    return filled


def closed_holes(slabs: Callable[[], Iterator[np.ndarray]], most_voxels: float) -> Iterator[np.ndarray | None]:
    """Yield the holes of a mask that is read slab by slab, twice, so that only one slab is in memory.

    Parameters
    ----------
    slabs : callable
        Returns an iterator over the slabs of the mask from its first to its last slice: arrays (z, Y, X), true inside.
    most_voxels : float
        Size of the largest hole.

    Yields
    ------
    bool array, (z, Y, X), or None
        Holes of each slab; None if it has none.
    """
    is_hole = _holes(slabs, most_voxels)
    first = 0
    for slab in slabs():
        gaps, number = ndi.label(np.asarray(slab) == 0)
        chosen = np.concatenate([[False], is_hole[first : first + number]])
        first += number
        yield chosen[gaps] if chosen.any() else None


def _holes(slabs: Callable[[], Iterator[np.ndarray]], most_voxels: float) -> np.ndarray:
    """Return whether each background component belongs to a hole; components are numbered from slab to slab."""
    sizes, is_open, pairs = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    first, last_YX = 0, None
    for slab in slabs():
        gaps, number = ndi.label(np.asarray(slab) == 0)
        sizes.append(np.bincount(gaps.ravel(), minlength=number + 1)[1:])
        at_side = np.zeros(number + 1, bool)
        for face in _faces(gaps)[2:]:
            at_side[np.unique(face)] = True
        numbered_YX = np.where(gaps[0] > 0, gaps[0] + first, 0)  # from 1 over all slabs
        if last_YX is None:
            at_side[np.unique(gaps[0])] = True
        else:
            touching = (last_YX > 0) & (numbered_YX > 0)
            pairs.append(np.unique(np.stack([last_YX[touching], numbered_YX[touching]]), axis=1) - 1)
        is_open.append(at_side[1:])
        last_YX = np.where(gaps[-1] > 0, gaps[-1] + first, 0)
        first += number
    if last_YX is None or not first:
        return np.zeros(0, bool)
    opened = np.concatenate(is_open)
    opened[np.unique(last_YX[last_YX > 0]) - 1] = True
    one, two = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), int)
    graph = coo_array((np.ones(len(one), bool), (one, two)), shape=(first, first))
    _, part_of = connected_components(graph, directed=False)
    size = np.bincount(part_of, weights=np.concatenate(sizes))
    reached = np.bincount(part_of, weights=opened) > 0
    return np.asarray((~reached & (size <= most_voxels))[part_of])


def _faces(volume_ZYX: np.ndarray) -> list[np.ndarray]:
    """Return the six faces of an array, those along z first."""
    return [np.take(volume_ZYX, end, axis) for axis in range(3) for end in (0, -1)]
