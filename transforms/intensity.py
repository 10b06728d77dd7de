"""From refractive index to what a network reads."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, Transform

from formats.errors import InputError

#: The range of refractive index that is mapped to 0..1 (Choi et al. 2021).
RI_MIN, RI_MAX = 1.337, 1.390


class NormaliseRI(Transform):
    """Clip refractive index to a range and map it linearly to 0..1.

    Parameters
    ----------
    ri_min, ri_max : float
        The indices that become 0 and 1; everything outside is clipped.

    References
    ----------
    Choi et al. 2021, bioRxiv 2021.05.23.445351.
    """

    def __init__(self, ri_min: float = RI_MIN, ri_max: float = RI_MAX) -> None:
        if not 0 < ri_min < ri_max:
            raise InputError(f"normalisation: ri_min {ri_min} and ri_max {ri_max}: expected 0 < ri_min < ri_max")
        self.ri_min = float(ri_min)
        self.ri_max = float(ri_max)

    def __call__(self, ri: np.ndarray) -> np.ndarray:
        """Normalise one tomogram.

        Parameters
        ----------
        ri : array, any shape and number type
            Refractive index, 1.33 to 1.45. It is left as it is.

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
        """Normalise a checked tomogram (`check`) in place, on the device where it lies; the same values to the bit.

        Parameters
        ----------
        ri : float32 tensor, any shape
            Refractive index, 1.33 to 1.45. It is overwritten.

        Returns
        -------
        float32 tensor
            The same tensor, 0 to 1.
        """
        return ri.sub_(self.ri_min).mul_(1 / (self.ri_max - self.ri_min)).clamp_(0, 1)

    def check(self, ri: np.ndarray) -> None:
        """Refuse a tomogram that holds NaN.

        Raises
        ------
        InputError
            It does.
        """
        if ri.size and np.isnan(ri.min()):
            raise InputError("tomogram: holds NaN; expected a refractive index in every voxel: mend or crop the file")


class NormaliseRId(MapTransform):
    """`NormaliseRI` for dictionaries: every key is replaced by its normalised array."""

    def __init__(self, keys: KeysCollection = "image", ri_min: float = RI_MIN, ri_max: float = RI_MAX) -> None:
        super().__init__(keys)
        self.normalise = NormaliseRI(ri_min, ri_max)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.normalise(result[key])
        return result


class RandRIShiftd(Randomizable, MapTransform):
    """Jitter a normalised tomogram as another medium or another calibration would.

    The contrast is scaled first, the offset added then, and the result clipped to 0..1 again. What lay below `ri_min`
    was clipped away before, so a positive offset lifts the whole background by the same amount.

    Parameters
    ----------
    keys : str or list of str
        Normalised float32 images.
    max_offset : float
        The added offset is uniform within +- this refractive index. 0 adds none.
    max_contrast : float
        The contrast is multiplied by a factor uniform within 1 +- this. 0 leaves it.
    ri_min, ri_max : float
        The range that the normalisation mapped to 0..1.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        max_offset: float = 0.0,
        max_contrast: float = 0.0,
        ri_min: float = RI_MIN,
        ri_max: float = RI_MAX,
    ) -> None:
        super().__init__(keys)
        if max_offset < 0 or not 0 <= max_contrast < 1:
            raise InputError(
                f"RI jitter: max_offset {max_offset}, max_contrast {max_contrast}: expected max_offset >= 0 "
                "and 0 <= max_contrast < 1"
            )
        self.max_offset = max_offset / (ri_max - ri_min)
        self.max_contrast = max_contrast
        self.offset, self.contrast = 0.0, 1.0

    def randomize(self, data: Any = None) -> None:
        """Draw the offset and the contrast of the next call."""
        offset, contrast = self.R.uniform(-1, 1, size=2)
        self.offset = float(offset) * self.max_offset
        self.contrast = 1 + float(contrast) * self.max_contrast

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        self.randomize()
        if self.offset == 0 and self.contrast == 1:
            return result
        for key in self.key_iterator(result):
            image = torch.as_tensor(result[key]) * self.contrast + self.offset
            result[key] = image.clamp_(0, 1)
        return result
