"""Normalise the refractive index for a network."""

import numpy as np
import torch

from cytovox.errors import InputError

#: The range of refractive index that is mapped to 0..1 (Choi et al. 2021).
RI_MIN, RI_MAX = 1.337, 1.390


class NormaliseRI:
    """Clip refractive index to a range and map it linearly to 0..1.

    Parameters
    ----------
    ri_min, ri_max : float
        Indices that are mapped to 0 and 1; values outside are clipped.

    References
    ----------
    Choi et al. 2021, bioRxiv 2021.05.23.445351.
    """

    def __init__(self, ri_min: float = RI_MIN, ri_max: float = RI_MAX) -> None:
        if not 0 < ri_min < ri_max:
            raise InputError(f"normalisation: ri_min {ri_min} and ri_max {ri_max}: expected 0 < ri_min < ri_max")
        self.ri_min, self.ri_max = float(ri_min), float(ri_max)

    def __call__(self, ri: np.ndarray) -> np.ndarray:
        """Return a normalised tomogram.

        Parameters
        ----------
        ri : array, any shape and dtype
            Refractive index, 1.33 to 1.45. It is not modified.

        Returns
        -------
        float32 array
            Same shape, 0 to 1.

        Raises
        ------
        InputError
            The tomogram holds NaN.
        """
        image = np.array(ri, dtype=np.float32)
        self.check(image)
        image -= np.float32(self.ri_min)
        image *= np.float32(1 / (self.ri_max - self.ri_min))
        return np.clip(image, 0, 1, out=image)

    def on_device(self, ri: torch.Tensor) -> torch.Tensor:
        """Normalise a tomogram in place on its device, with exactly the values of `__call__` and without the check.

        Parameters
        ----------
        ri : float32 tensor, any shape
            Refractive index, 1.33 to 1.45, checked with `check`. It is overwritten.

        Returns
        -------
        float32 tensor
            The same tensor, 0 to 1.
        """
        return ri.sub_(self.ri_min).mul_(1 / (self.ri_max - self.ri_min)).clamp_(0, 1)

    def check(self, ri: np.ndarray) -> None:
        """Check that a tomogram holds no NaN.

        Raises
        ------
        InputError
            It holds NaN.
        """
        if ri.size and np.isnan(ri.min()):
            raise InputError("tomogram: holds NaN; expected a refractive index in every voxel: fix or crop the file")
