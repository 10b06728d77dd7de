"""Contrast between both sides of a mask's surface: how visible the mask is in a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.ndimage as ndi

#: Depth in µm on both sides of a surface that counts.
SHELL_UM = 1.2


@dataclass(frozen=True, eq=False)
class Shells:
    """Voxels within `SHELL_UM` of a surface, on both of its sides."""

    inner_um_ZYX: np.ndarray
    """Distance of the voxels inside to the surface in µm, 0 outside."""
    outer_um_ZYX: np.ndarray
    """Distance of the voxels outside to the surface in µm, 0 inside."""
    inside_N: np.ndarray
    """Values inside, float64."""
    outside_N: np.ndarray
    """Values outside, float64."""

    @cached_property
    def difference(self) -> float:
        """Mean of the values inside minus that outside; nan with fewer than two voxels on a side."""
        if min(len(self.inside_N), len(self.outside_N)) < 2:
            return math.nan
        return float(self.inside_N.mean() - self.outside_N.mean())

    @cached_property
    def contrast(self) -> float:
        """Difference over the root of the mean of both variances (d'); infinite if the values do not vary."""
        if math.isnan(self.difference) or self.difference == 0:
            return self.difference
        deviation = math.sqrt((self.inside_N.var() + self.outside_N.var()) / 2)
        return self.difference / deviation if deviation else math.copysign(math.inf, self.difference)


def shells_of(
    values_ZYX: np.ndarray, inside_ZYX: np.ndarray, outside_ZYX: np.ndarray, spacing_um: tuple[float, float, float]
) -> Shells:
    """Return the voxels on both sides of a mask's surface.

    Parameters
    ----------
    values_ZYX : float array, (Z, Y, X)
        Picture, such as the refractive index.
    inside_ZYX : bool array, (Z, Y, X)
        Mask, without voxels that do not count.
    outside_ZYX : bool array, (Z, Y, X)
        Voxels around it that count, such as those of the cytoplasm.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    """
    inner, outer = (
        np.asarray(ndi.distance_transform_edt(mask, sampling=spacing_um)) for mask in (inside_ZYX, ~inside_ZYX)
    )
    near = inside_ZYX & (inner <= SHELL_UM), outside_ZYX & (outer <= SHELL_UM)
    return Shells(inner, outer, *(values_ZYX[side].astype(np.float64) for side in near))
