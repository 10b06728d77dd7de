"""MONAI dictionary transforms that normalise the refractive index, and vary it like another medium or calibration."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import (
    EnsureTyped,
    MapTransform,
    RandScaleIntensityd,
    RandShiftIntensityd,
    ScaleIntensityRanged,
    Transform,
)

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


def rand_ri_jitter(
    keys: KeysCollection = "image",
    max_offset: float = 0.0,
    max_contrast: float = 0.0,
    ri_min: float = RI_MIN,
    ri_max: float = RI_MAX,
) -> list[Transform]:
    """Return the MONAI transforms that change a normalised tomogram as another medium or calibration would.

    The contrast is scaled first, then the offset is added, and the result is clipped to 0..1 again. Values below
    `ri_min` were clipped by the normalisation, so a positive offset raises the whole background by the same amount.

    Parameters
    ----------
    keys : str or list of str
        Normalised float32 images, (C, Z, Y, X).
    max_offset : float
        Largest offset in refractive index; the offset is uniform between minus and plus this value. 0: none.
    max_contrast : float
        Largest relative change of the contrast; the factor is uniform within 1 +- this value. 0: none.
    ri_min, ri_max : float
        The range that the normalisation mapped to 0..1.

    Returns
    -------
    list of monai.transforms.Transform
        Empty where both limits are 0. The images become plain float32 tensors.

    Raises
    ------
    InputError
        A negative limit, or a contrast of 1 or more.
    """
    if max_offset < 0 or not 0 <= max_contrast < 1:
        raise InputError(
            f"RI jitter: max_offset {max_offset}, max_contrast {max_contrast}: expected max_offset >= 0 "
            "and 0 <= max_contrast < 1"
        )
    if max_offset == 0 and max_contrast == 0:
        return []
    offset = max_offset / (ri_max - ri_min)
    return [
        RandScaleIntensityd(keys, factors=max_contrast, prob=1.0),
        RandShiftIntensityd(keys, offsets=offset, prob=1.0),
        ScaleIntensityRanged(keys, 0.0, 1.0, 0.0, 1.0, clip=True),
        EnsureTyped(keys, track_meta=False),  # a MetaTensor would be slow to collate and to send from a worker
    ]
