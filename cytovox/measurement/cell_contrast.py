"""How much a cell's refractive index differs from that of its surroundings."""

import numpy as np
import scipy.ndimage as ndi

#: Width of the shell in the plane that the surroundings are measured in, in µm.
SHELL_UM = 1.5
#: Voxels that a shell needs to tell something.
MIN_VOXELS = 20


def cell_contrasts(
    ri_ZYX: np.ndarray, cells_ZYX: np.ndarray, spacing_um: tuple[float, float, float], shell_um: float = SHELL_UM
) -> dict[int, float]:
    """Compute each cell's mean refractive index less the median of its surroundings.

    The surroundings are what lies within `shell_um` of the cell in y and x and in no cell. Above and below, the missing
    cone of tomography draws the cell out into its surroundings, so they are left out.

    Parameters
    ----------
    ri_ZYX : float array, (Z, Y, X)
        Refractive index.
    cells_ZYX : integer array, (Z, Y, X)
        One label a cell, 0 is the background.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    shell_um : float
        Width of the shell in µm.

    Returns
    -------
    dict of label -> float
        nan where fewer than `MIN_VOXELS` of the surroundings are seen.
    """
    steps = [0, *(max(1, round(shell_um / step)) for step in spacing_um[1:])]
    found = {}
    for label, box in enumerate(ndi.find_objects(cells_ZYX), start=1):
        if box is None:
            continue
        wide = tuple(
            slice(max(0, part.start - step), min(size, part.stop + step))
            for part, step, size in zip(box, steps, cells_ZYX.shape, strict=True)
        )
        cells, ri = cells_ZYX[wide], ri_ZYX[wide]
        inside = cells == label
        near = ndi.maximum_filter(inside.view(np.uint8), size=[2 * step + 1 for step in steps], mode="constant")
        around = ri[(near > 0) & (cells == 0)]
        enough = around.size >= MIN_VOXELS
        found[label] = float(ri[inside].mean(dtype=np.float64) - np.median(around)) if enough else float("nan")
    return found
