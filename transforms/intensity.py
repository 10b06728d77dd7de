"""Refractive index normalised, and jittered as another medium or calibration would, in MONAI's dictionaries."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable

from cytovox.errors import InputError
from cytovox.preprocess.intensity import RI_MAX, RI_MIN, NormaliseRI


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
