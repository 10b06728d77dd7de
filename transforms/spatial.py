"""Image and masks of a MONAI dictionary brought onto one common voxel grid."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform

from cytovox.preprocess.resampling import ResampleTo, common_grid, resize_annotated, resize_linear


class ResampleToCommonGridd(MapTransform):
    """Resample the image and masks of a dictionary to the common grid.

    Reads and rewrites `image_key`, a float32 array (C, Z, Y, X); `mask_key`, a uint8 or bool array (K, Z, Y, X) of 0, 1
    and `UNDRAWN`, if there is one; and `spacing_key`, three lengths in µm (z, y, x).

    Parameters
    ----------
    resample : ResampleTo
        The common grid.
    image_key, mask_key, spacing_key : str
        Where the three are found.
    """

    def __init__(
        self,
        resample: ResampleTo,
        image_key: str = "image",
        mask_key: str = "mask",
        spacing_key: str = "spacing_um",
    ) -> None:
        super().__init__((image_key, mask_key), allow_missing_keys=True)
        self.resample = resample
        self.image_key, self.mask_key, self.spacing_key = image_key, mask_key, spacing_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        image_CZYX = np.asarray(result[self.image_key], dtype=np.float32)
        shape, spacing_um = common_grid(image_CZYX.shape[1:], result[self.spacing_key], self.resample)
        result[self.spacing_key] = spacing_um
        if shape != image_CZYX.shape[1:]:
            source = torch.from_numpy(np.require(image_CZYX, requirements=["C", "W"]))
            result[self.image_key] = resize_linear(source, shape).numpy()
        if self.mask_key in result:
            result[self.mask_key] = resize_annotated(np.asarray(result[self.mask_key]), shape)
        return result
