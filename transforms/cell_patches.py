"""Training samples of cells: a patch of a labelled field, as each of the two networks sees it."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.ndimage as ndi
import torch
from monai.transforms import Randomizable, Transform

from transforms.patches import Placement, RandOrganellePatchd, crop, warp

Shape = tuple[int, int, int]


class RandCellPatch(Randomizable, Transform):
    """Cut one random patch out of a labelled field: scaled, turned about z and flipped.

    Reads `image`, float32 (1, Z, Y, X); `mask`, integers (3, Z, Y, X): membrane, nucleus, labels of cells; `labelled`,
    bool (3,), whether each of them was drawn; `centres`, as of `transforms.patches.foreground_centres`; `nuclei`,
    float (N, 4): label, then z, y, x in voxels, of the nuclei's centres in the whole field; `spacing_um`, (3,).

    Returns `image` float32 (1, *patch), `membrane` and `nucleus` uint8 (*patch), `cells` int64 (*patch), `nuclei`
    float32 (N, 4) with the centres in µm from the centre of the patch's first voxel, those outside of it, too, and
    `spacing_um` float32 (3,).

    Parameters
    ----------
    patch, p_foreground, p_scale, p_rotate, p_flip, scale_range
        As of `transforms.patches.RandOrganellePatchd`.
    whole : bool
        The patch is the whole field, which has its size: it is turned and scaled about its middle, and not moved.
    """

    def __init__(self, patch: Sequence[int], *, whole: bool = False, **chances: Any) -> None:
        self.place = RandOrganellePatchd(patch, **chances)
        self.whole = whole

    def set_random_state(self, seed: int | None = None, state: Any = None) -> "RandCellPatch":
        """As every MONAI transform."""
        self.place.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[str, Any]:
        self.place.randomize(data)
        placement, patch = self.place.placement, self.place.patch
        if self.whole:
            middle = tuple((n - 1) / 2 for n in data["image"].shape[1:])
            placement = Placement(middle, placement.scale, placement.angle, placement.flip)
        nothing = np.zeros((0, *data["image"].shape[1:]), np.uint8)
        cut = crop if placement.is_crop else warp
        image, _ = cut(data["image"], nothing, placement, patch)
        labels = sample_labels(np.asarray(data["mask"]), placement, patch)
        spacing = torch.from_numpy(np.asarray(data["spacing_um"], np.float32))
        return {
            "image": image,
            **_drawn(labels, data),
            "nuclei": _moved(data, placement, patch),
            "spacing_um": spacing,
        }


def sample_labels(labels_KZYX: np.ndarray, placement: Placement, patch: Shape) -> np.ndarray:
    """Labels where a patch looks, each voxel that of the nearest one: array (K, *patch), borders repeated."""
    offset_z, offset_y, offset_x = (np.arange(n) - (n - 1) / 2 for n in patch)
    matrix, shape = placement.matrix, labels_KZYX.shape[1:]

    def nearest(places: np.ndarray, size: int) -> np.ndarray:
        return np.clip(np.floor(places + 0.5), 0, size - 1).astype(np.int64)

    z = nearest(placement.centre[0] + matrix[0, 0] * offset_z, shape[0])
    plane = matrix[1:, 1, None, None] * offset_y[:, None] + matrix[1:, 2, None, None] * offset_x
    y = nearest(placement.centre[1] + plane[0], shape[1])
    x = nearest(placement.centre[2] + plane[1], shape[2])
    return np.asarray(labels_KZYX[:, z[:, None, None], y[None], x[None]])


def _drawn(labels_KZYX: np.ndarray, data: Mapping[Hashable, Any]) -> dict[str, torch.Tensor]:
    """Membrane, nucleus and cells; a membrane that nobody drew is what the cells fill."""
    membrane, nucleus, cells = labels_KZYX
    if not data["labelled"][0]:
        membrane = cells > 0
    return {
        "membrane": torch.from_numpy((membrane != 0).astype(np.uint8)),
        "nucleus": torch.from_numpy((nucleus != 0).astype(np.uint8)),
        "cells": torch.from_numpy(cells.astype(np.int64)),
    }


def _moved(data: Mapping[Hashable, Any], placement: Placement, patch: Shape) -> torch.Tensor:
    nuclei = np.asarray(data["nuclei"], np.float64)
    offset = (nuclei[:, 1:] - np.asarray(placement.centre)) @ np.linalg.inv(placement.matrix).T
    places = (offset + (np.asarray(patch) - 1) / 2) * np.asarray(data["spacing_um"])
    return torch.from_numpy(np.concatenate([nuclei[:, :1], places], axis=1).astype(np.float32))


class RandSoften(Randomizable, Transform):
    """Make drawn masks look like what a network says of them, and hide inputs at random.

    `membrane` and `nucleus` become probabilities: the mask's edges are moved by a smooth random field and blurred. With
    probability `p_binary` they stay masks, and with `p_no_ri` the image is all 0, so that masks alone serve.

    Parameters
    ----------
    p_binary, p_no_ri : float
        Probabilities.
    shift_voxels : float
        Deviation of the edges' shift.
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
        """A smooth field of unit deviation, about six voxels a bump."""
        coarse = self.R.normal(size=[max(2, -(-n // 6)) for n in shape])
        zoomed = ndi.zoom(coarse, [n / m for n, m in zip(shape, coarse.shape, strict=True)], order=1)
        return np.asarray(zoomed / max(float(zoomed.std()), 1e-6))


class RandOneNucleus(Randomizable, Transform):
    """Choose a random nucleus, and split the nuclei into it and all others (Choi et al. 2021).

    Adds `positive` and `negative`, float32 (*patch): the nucleus' probabilities inside the one, and inside all others;
    and `target`, float32 (*patch): 1 in the chosen nucleus' cell. Nuclei are told apart by the cells they lie in. A
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
