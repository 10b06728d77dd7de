"""Which organelles a simulated picture shows: contrast across the surface of each part, in the measured index."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.ndimage as ndi

from cytovox.shells import SHELL_UM, shells_of
from cytovox.simulation.optics import Spacing

#: Contrast over the standard deviation below which a part is regarded as unseen.
MIN_VISIBILITY = 0.7
#: Radius in µm of a ball below which a part is regarded as unseen, since its shape cannot be resolved.
MIN_RADIUS_UM: Mapping[str, float] = {"nucleus": 0.0, "nucleolus": 0.45, "lipid": 0.4}


def unseen_parts(
    ri_ZYX: np.ndarray, masks: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], spacing_um: Spacing
) -> dict[str, np.ndarray]:
    """Return the voxels of the parts of each organelle that a picture hardly shows.

    Parameters
    ----------
    ri_ZYX : float array, (Z, Y, X)
        Refractive index as measured.
    masks : dict of str to bool array, (Z, Y, X)
        True masks of membrane, nucleus, nucleolus and lipid.
    labels : dict of str to integer array, (Z, Y, X)
        Parts of an organelle that touch, such as the nuclei of neighbouring cells, one label each. Other organelles are
        divided into connected components.
    spacing_um : (float, float, float)
        Voxel size, z, y, x.

    Returns
    -------
    dict of str to bool array, (Z, Y, X)
        Organelles without unseen parts are left out.
    """
    around = {
        "nucleus": masks["membrane"] & ~masks["nucleus"] & ~masks["lipid"],
        "nucleolus": masks["nucleus"] & ~masks["nucleolus"],
        "lipid": masks["membrane"] & ~masks["lipid"] & ~masks["nucleolus"],
    }
    inside = {**masks, "nucleus": masks["nucleus"] & ~masks["nucleolus"]}
    reach = [int(np.ceil(SHELL_UM / s)) for s in spacing_um]
    found = {}
    for name, outside in around.items():
        parts = labels[name] if name in labels else ndi.label(masks[name])[0]
        unseen = np.zeros(parts.shape, bool)
        for label, box in enumerate(ndi.find_objects(parts), start=1):
            if box is None:
                continue
            wide = tuple(slice(max(0, b.start - r), b.stop + r) for b, r in zip(box, reach, strict=True))
            part = parts[wide] == label
            radius = np.cbrt(3 * part.sum() * np.prod(spacing_um) / (4 * np.pi))
            shells = shells_of(ri_ZYX[wide], part & inside[name][wide], outside[wide] & ~part, spacing_um)
            if radius < MIN_RADIUS_UM[name] or not abs(shells.contrast) >= MIN_VISIBILITY:
                unseen[wide] |= part
        if unseen.any():
            found[name] = unseen
    return found
