"""Difference of refractive index between a cell and its surroundings."""

import numpy as np
import scipy.ndimage as ndi

#: Width in the plane of the shell around a cell that counts as its surroundings, in µm.
SHELL_UM = 1.5
#: Smallest number of voxels of a shell whose median is used.
MIN_VOXELS = 20


def cell_contrast(
    ri_ZYX: np.ndarray,
    cells_ZYX: np.ndarray,
    label: int,
    box: tuple[slice, ...],
    spacing_um: tuple[float, float, float],
    shell_um: float = SHELL_UM,
) -> float:
    """Compute a cell's mean refractive index minus the median of its surroundings.

    The surroundings are the voxels within `shell_um` of the cell in y and x that belong to no cell. Voxels above and
    below are left out: the missing cone of tomography elongates the cell along z.

    Parameters
    ----------
    ri_ZYX : float array, (Z, Y, X)
        Refractive index.
    cells_ZYX : integer array, (Z, Y, X)
        One label per cell, 0 is the background.
    label : int
        Label of the cell.
    box : slices, (z, y, x)
        Bounding box of the cell.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    shell_um : float
        Width of the shell in µm.

    Returns
    -------
    float
        nan if the surroundings have fewer than `MIN_VOXELS` voxels.
    """
    steps = [0, *(max(1, round(shell_um / step)) for step in spacing_um[1:])]
    wide = tuple(
        slice(max(0, part.start - step), min(size, part.stop + step))
        for part, step, size in zip(box, steps, cells_ZYX.shape, strict=True)
    )
    cells, ri = cells_ZYX[wide], ri_ZYX[wide]
    inside = cells == label
    near = ndi.maximum_filter(inside.view(np.uint8), size=[2 * step + 1 for step in steps], mode="constant")
    around = ri[(near > 0) & (cells == 0)]
    return float(ri[inside].mean(dtype=np.float64) - np.median(around)) if around.size >= MIN_VOXELS else float("nan")
