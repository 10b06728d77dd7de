"""Training samples of the cells task: the inputs of each of the two networks, from a patch of a labelled field."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.ndimage as ndi
import torch
from monai.transforms import Compose, Randomizable, Transform

from transforms.patches import rand_patch


def rand_cell_patch(patch: Sequence[int], *, whole: bool = False, **settings: Any) -> Compose:
    """Return the transform that cuts one random patch out of a labelled field: scaled, rotated about z and flipped.

    Parameters
    ----------
    patch : three ints
        Size (z, y, x) in voxels.
    whole : bool
        Whether the patch is the whole field: it is rotated and scaled about its centre, and not shifted.
    **settings
        Probabilities and range of scales, as of `transforms.patches.rand_patch`.

    Returns
    -------
    monai.transforms.Compose
        Has the keys of `CellPatch`, but `image` and `mask` are those of the whole field, and there
        is a key `centres` (`transforms.patches.foreground_centres`). Labels are resampled by nearest neighbour.
    """
    return rand_patch(patch, centred=whole, nearest_mask=True, then=[CellPatch()], **settings)


class CellPatch(Transform):
    """Separate the masks of a patch, and transform the centres of nuclei to its coordinates.

    Reads `image`, a float32 MetaTensor (1, *patch), whose affine maps voxels of the patch to voxels of the field;
    `mask`, (3, *patch): membrane, nucleus, labels of cells; `labelled`, bool (3,), whether each of them is annotated;
    `nuclei`, float (N, 4): label, then z, y, x in voxels, of the nuclei's centres in the whole field; `spacing_um`,
    (3,).

    Returns `image` float32 (1, *patch), `membrane` and `nucleus` uint8 (*patch), `cells` int64 (*patch), `nuclei`
    float32 (N, 4) with the centres in µm from the centre of the patch's first voxel, including those outside the patch,
    and `spacing_um` float32 (3,). Without a membrane mask, `membrane` is the union of the cells.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[str, Any]:
        membrane, nucleus, cells = data["mask"].as_tensor().to(torch.int64)
        if not data["labelled"][0]:
            membrane = cells
        nuclei = np.asarray(data["nuclei"], np.float64)
        to_patch = np.linalg.inv(data["image"].affine.numpy())
        places = (nuclei[:, 1:] @ to_patch[:3, :3].T + to_patch[:3, 3]) * np.asarray(data["spacing_um"])
        return {
            "image": data["image"].as_tensor().contiguous(),
            "membrane": (membrane != 0).to(torch.uint8),
            "nucleus": (nucleus != 0).to(torch.uint8),
            "cells": cells,
            "nuclei": torch.from_numpy(np.concatenate([nuclei[:, :1], places], axis=1).astype(np.float32)),
            "spacing_um": torch.from_numpy(np.asarray(data["spacing_um"], np.float32)),
        }


class RandSoften(Randomizable, Transform):
    """Turn masks into simulated probabilities of a network, and remove inputs at random.

    `membrane` and `nucleus` become probabilities: the mask's edges are moved by a smooth random field and blurred. With
    probability `p_binary` they stay masks, and with `p_no_ri` the image is all 0, to train for masks alone.

    Parameters
    ----------
    p_binary, p_no_ri : float
        Probabilities.
    shift_voxels : float
        Standard deviation in voxels of the shift of edges.
    """

    def __init__(self, p_binary: float, p_no_ri: float, shift_voxels: float = 0.7) -> None:
        self.p_binary, self.p_no_ri, self.shift = p_binary, p_no_ri, shift_voxels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        binary, hidden = self.R.uniform(size=2)
        rough = {name: self._rough(data["image"].shape[1:]) for name in ("membrane", "nucleus")}
        for name, field in rough.items():
            mask = data[name].numpy() != 0
            if binary < self.p_binary:
                result[name] = torch.from_numpy(mask.astype(np.float32))
                continue
            reach = 3.0
            outside, inside = (ndi.distance_transform_edt(side) for side in (~mask, mask))
            depth = np.clip(np.where(mask, inside - 0.5, 0.5 - outside), -reach, reach)
            depth = depth + self.shift * field if mask.any() else depth
            result[name] = torch.from_numpy((1 / (1 + np.exp(-2 * depth))).astype(np.float32))
        if hidden < self.p_no_ri:
            result["image"] = torch.zeros_like(data["image"])
        return result

    def _rough(self, shape: Sequence[int]) -> np.ndarray:
        """Return a smooth random field of unit standard deviation, with a correlation length of about six voxels."""
        coarse = self.R.normal(size=[max(2, -(-n // 6)) for n in shape])
        zoomed = ndi.zoom(coarse, [n / m for n, m in zip(shape, coarse.shape, strict=True)], order=1)
        return np.asarray(zoomed / max(float(zoomed.std()), 1e-6))


class RandOneNucleus(Randomizable, Transform):
    """Choose a random nucleus, and split the nuclei into it and all others (Choi et al. 2021).

    Adds `positive` and `negative`, float32 (*patch): the nucleus' probabilities inside the one, and inside all others;
    and `target`, float32 (*patch): 1 in the chosen nucleus' cell. Nuclei are distinguished by the cells they lie in. A
    patch without a nucleus has empty maps and an empty target.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        chance = self.R.uniform()
        cells, solid = data["cells"], data["nucleus"] >= 0.5
        labels = torch.unique(cells[solid])
        labels = labels[labels > 0]
        chosen = int(labels[int(chance * len(labels))]) if len(labels) else -1
        own = cells == chosen
        others = (cells > 0) & ~own
        return {
            **data,
            "positive": data["nucleus"] * own,
            "negative": data["nucleus"] * others,
            "target": own.float(),
        }
