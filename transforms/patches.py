"""Random training patches: one window read from the volume, then MONAI's rotation, crop and flips."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    BorderPad,
    CenterSpatialCropd,
    Compose,
    MapTransform,
    RandFlipd,
    Randomizable,
    RandRotated,
    Resize,
    SpatialCrop,
    Transform,
)

from cytovox.errors import InputError
from cytovox.organelles import UNDRAWN

Shape = tuple[int, int, int]


def annotated_centres(
    mask_KZYX: np.ndarray, labelled_K: np.ndarray, limit: int = 10_000, seed: int = 0
) -> np.ndarray | None:
    """Return up to `limit` random voxels that are annotated for a labelled organelle, as `foreground_centres` does.

    Parameters
    ----------
    mask_KZYX : uint8 array of 0, 1 and `UNDRAWN`, (K, Z, Y, X)
        One mask per organelle.
    labelled_K : bool array, (K,)
        Whether the organelle has a mask.
    limit, seed : int
        See `foreground_centres`.

    Returns
    -------
    int32 array, (N, 3), or None
        Coordinates z, y, x; None if every voxel is annotated for some organelle, or no organelle is labelled.
    """
    annotated_ZYX = np.zeros(mask_KZYX.shape[1:], bool)
    for mask_ZYX in mask_KZYX[labelled_K]:
        annotated_ZYX |= mask_ZYX != UNDRAWN
    if annotated_ZYX.all() or not labelled_K.any():
        return None
    return foreground_centres(annotated_ZYX[None], limit, seed)[0]


def foreground_centres(mask_KZYX: np.ndarray, limit: int = 10_000, seed: int = 0) -> list[np.ndarray]:
    """Return up to `limit` random voxels of each organelle, as centres of patches.

    Parameters
    ----------
    mask_KZYX : bool or uint8 array, (K, Z, Y, X)
        One mask per organelle.
    limit : int
        Largest number of voxels per organelle, sampled without replacement.
    seed : int
        The same seed draws the same voxels.

    Returns
    -------
    list of K int32 arrays, (N, 3)
        Coordinates z, y, x; N = 0 where the organelle is absent or unlabelled.
    """
    centres = []
    for k, mask_ZYX in enumerate(mask_KZYX):
        flat = np.flatnonzero(mask_ZYX)
        if len(flat) > limit:
            rng = np.random.default_rng((seed, k))
            flat = flat[np.sort(rng.choice(len(flat), limit, replace=False))]
        centres.append(np.stack(np.unravel_index(flat, mask_ZYX.shape), axis=1).astype(np.int32))
    return centres


class RandWindowd(Randomizable, MapTransform):
    """Crop the window of one random patch and scale it, so that small organelles are not missed.

    With probability `p_foreground` an organelle is chosen uniformly among those present, and one of its voxels lies at
    a random place inside the patch; else the patch lies anywhere. A rotation near the volume's border can move that
    voxel out of the patch. A volume smaller than the patch lies in the patch's middle. Where patches are rotated
    afterwards, the window is larger than the patch in y and x, so that every rotated patch lies inside it. Outside the
    volume its edge voxels are repeated.

    A volume of which only a part is annotated has the key `annotated`: every patch then has one of these voxels at a
    random place inside it, if it does not have a voxel of an organelle, and may lie partly outside the volume.

    Reads `image`, an array (1, Z, Y, X); `mask`, an array (K, Z, Y, X); `labelled`, a bool array (K,); `centres`, the
    list that `foreground_centres` returns; and, if there is one, `annotated`, an array (N, 3) of voxels z, y, x.
    Memory-mapped volumes are read only inside the window. `image` and `mask` become MetaTensors whose padding and
    scaling are pending operations (see MONAI's lazy resampling): they are applied together with the transforms that
    follow. `labelled` becomes a tensor, `centres` and `annotated` are dropped, other keys pass.

    Parameters
    ----------
    patch : three ints
        Size (z, y, x) in voxels.
    p_foreground : float
        Fraction of patches that contain a chosen voxel of a labelled organelle.
    p_scale : float
        Probability of scaling.
    scale_range : two floats
        Magnification, drawn log-uniformly, the same along z, y and x to within a voxel of the window: at 2 an object
        looks twice as large.
    rotated : bool
        Whether the window is rotated about z afterwards.
    centred : bool
        Whether the window lies in the middle of the volume.
    stacked : bool
        `image` becomes the channels of image and masks, float32 (1 + K, Z, Y, X), and `mask` is dropped; where the
        window has voxels without annotation, K more channels are 1 there. Resampling them at once is faster.
    """

    # Not MONAI's RandCropByLabelClassesd and RandZoomd: they take 1.3 (every patch scaled) to 9 times (64x128x128,
    # copied) as long for a patch, because they crop the window of the least zoom (docs/benchmarks.md, patch_speed);
    # the chosen voxel is always in the middle, many crops touch the volume's border, and scales are uniform.

    def __init__(
        self,
        patch: Sequence[int],
        p_foreground: float = 2 / 3,
        p_scale: float = 0.5,
        scale_range: tuple[float, float] = (0.5, 2.0),
        rotated: bool = True,
        centred: bool = False,
        stacked: bool = False,
    ) -> None:
        super().__init__(("image", "mask"))
        if len(patch) != 3 or min(patch) < 1:
            raise InputError(f"patch {list(patch)}: expected three sizes in voxels, z, y, x, at least 1")
        if not 0 < scale_range[0] <= scale_range[1]:
            raise InputError(f"scale_range {list(scale_range)}: expected two factors, 0 < smallest <= largest")
        self.patch = np.array([int(n) for n in patch])
        self.p_foreground, self.p_scale, self.rotated = p_foreground, p_scale, rotated
        self.centred, self.stacked = centred, stacked
        self.log_scale = (math.log(scale_range[0]), math.log(scale_range[1]))
        diagonal = math.hypot(*self.patch[1:]) if rotated else 0.0
        self.margin = np.array([0, *(max(0, math.ceil((diagonal - n) / 2)) for n in self.patch[1:])])
        self.scale, self.organelle, self.centre = 1.0, -1, np.zeros(3)

    def randomize(self, data: Mapping[Hashable, Any]) -> None:
        """Choose the scale and centre of the next window, and the index of its organelle; -1 for none."""
        scaled, chance, which, voxel = self.R.uniform(size=4)
        place, log_scale = self.R.uniform(size=3), self.R.uniform(*self.log_scale)
        self.scale, self.organelle = math.exp(log_scale) if scaled < self.p_scale else 1.0, -1
        volume, reach = np.array(data["image"].shape[1:]), self.patch / self.scale  # in voxels of the volume
        low, high = (reach - 1) / 2, volume - (reach + 1) / 2
        fits = (low <= high) & (not self.centred)
        self.centre = np.where(fits, low - 0.5 + place * (high - low + 1), (volume - 1) / 2)
        present = [k for k, centres in enumerate(data["centres"]) if len(centres) and data["labelled"][k]]
        centres = data.get("annotated")
        if present and chance < self.p_foreground and not self.centred:
            self.organelle = present[int(which * len(present))]
            centres = data["centres"][self.organelle]
        if self.centred or centres is None:
            return
        shown = centres[int(voxel * len(centres))]
        offset = np.floor(place * self.patch) - (self.patch - 1) / 2  # of the shown voxel from the patch's middle
        radius = (self.patch[1:].min() - 1) / 2 if self.rotated else math.inf  # largest that is inside at any angle
        offset[1:] *= min(1, radius / max(math.hypot(*offset[1:]), 1e-9))
        self.centre = np.where(fits, np.clip(shown - offset / self.scale, low, high), (volume - 1) / 2)
        if self.rotated and "annotated" in data:  # at the volume's border, too, it stays inside at any angle
            offset[1:] = (shown - self.centre)[1:] * self.scale
            self.centre[1:] = shown[1:] - offset[1:] / self.scale * min(1, radius / max(math.hypot(*offset[1:]), 1e-9))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize(data)
        result = {key: value for key, value in data.items() if key not in ("centres", "annotated")}
        result["labelled"] = torch.as_tensor(np.array(data["labelled"], dtype=bool))
        window = np.ceil(self.patch / self.scale).astype(int) + 2 * np.ceil(self.margin / self.scale).astype(int)
        if self.scale > 1:  # voxels of the patch whose centres lie beyond those of the window's
            window += 2
        start = np.floor(self.centre - (window - 1) / 2 + 0.5).astype(int)
        after = start + window - data["image"].shape[1:]
        pads = np.maximum(np.stack([-start, after], axis=1), 0).ravel().tolist()
        crop = SpatialCrop(roi_start=start, roi_end=start + window)
        parts = {key: crop(result.pop(key)) for key in self.keys}
        if self.stacked:
            parts = {"image": torch.cat([parts["image"], *_channels(parts["mask"])])}
        for key, part in parts.items():
            part = BorderPad(pads, mode="edge")(part, lazy=True)
            if self.scale != 1:
                part = Resize(np.round(window * self.scale).astype(int))(part, lazy=True)
            result[key] = part
        return result


def _channels(mask_KZYX: torch.Tensor) -> list[torch.Tensor]:
    """Return masks of 0 and 1, and, if there are voxels without annotation, where they are."""
    undrawn_KZYX = mask_KZYX == UNDRAWN
    if not undrawn_KZYX.any():
        return [mask_KZYX]
    return [torch.where(undrawn_KZYX, 0, mask_KZYX), undrawn_KZYX]


def rand_patch(
    patch: Sequence[int],
    p_foreground: float = 2 / 3,
    p_scale: float = 0.5,
    p_rotate: float = 0.5,
    p_flip: float = 0.5,
    scale_range: tuple[float, float] = (0.5, 2.0),
    centred: bool = False,
    nearest_mask: bool = False,
    then: Sequence[Transform] = (),
) -> Compose:
    """Return the transform that cuts one random patch: scaled, rotated about z and flipped.

    z is never swapped with x or y: the missing cone of the optics lies along it. All steps are one resampling of
    the patch; a patch that is neither scaled nor rotated is an exact copy.

    Parameters
    ----------
    patch, p_foreground, p_scale, scale_range, centred
        See `RandWindowd`, which also lists the keys that are read.
    p_rotate, p_flip : float
        Probability of a rotation, and of a flip along each single axis.
    nearest_mask : bool
        Masks hold labels: each voxel takes that of the nearest one. Else they are interpolated like the image.
    then : sequence of transforms
        Later transforms. With `nearest_mask` they get `image` and `mask` as float32 MetaTensors, (1, *patch) and
        (K, *patch), else `image` with all these channels, (1 + K, *patch). Their affine leads from voxels of the patch
        to voxels of the volume.

    Raises
    ------
    InputError
        A size below 1, an invalid range, or a probability outside 0..1.
    """
    for name, p in {"foreground": p_foreground, "scale": p_scale, "rotate": p_rotate, "flip": p_flip}.items():
        if not 0 <= p <= 1:
            raise InputError(f"p_{name} {p}: expected a probability, 0 to 1")
    modes = {"image": "bilinear", "mask": "nearest"} if nearest_mask else {"image": "bilinear"}
    keys = tuple(modes)
    return Compose(
        [
            RandWindowd(patch, p_foreground, p_scale, scale_range, p_rotate > 0, centred, stacked=not nearest_mask),
            RandRotated(keys, range_x=math.pi, prob=p_rotate),  # range_x rotates about the first axis, z
            CenterSpatialCropd(keys, patch),
            *(RandFlipd(keys, p_flip, axis) for axis in range(3)),
            *then,
        ],
        lazy=True,
        overrides={
            key: {"mode": mode, "padding_mode": "border", "dtype": torch.float32} for key, mode in modes.items()
        },
    )


class OrganellePatch(Compose):
    """Transform that cuts a random patch; from a partly annotated volume, one that has an annotated voxel.

    Scaling and rotation sample between the voxels of the volume, and can miss a thin annotation. A patch without an
    annotated voxel of a labelled organelle is cut again, up to `TRIES` times, then without scaling and rotation.

    Parameters
    ----------
    patch : three ints
        Size (z, y, x) in voxels.
    **settings
        As of `rand_patch`.
    """

    TRIES = 4

    def __init__(self, patch: Sequence[int], **settings: Any) -> None:
        self.plain = rand_patch(patch, then=[SplitMasks()], **{**settings, "p_scale": 0.0, "p_rotate": 0.0})
        steps = rand_patch(patch, then=[SplitMasks()], **settings)
        super().__init__(steps.transforms, lazy=True, overrides=steps.overrides)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> "OrganellePatch":
        """See `monai.transforms.Randomizable`."""
        super().set_random_state(seed, state)
        self.plain.set_random_state(int(self.R.randint(2**32, dtype=np.uint32)))
        return self

    def __call__(
        self, input_: Any, start: int = 0, end: int | None = None, threading: bool = False, lazy: bool | None = None
    ) -> Any:
        """Return the patch of a dictionary with the keys of `RandWindowd`; options as of `Compose`."""
        result = super().__call__(input_, start, end, threading, lazy)
        if "annotated" not in input_:
            return result
        for _ in range(self.TRIES - 1):
            if has_annotation(result):
                return result
            result = super().__call__(input_, start, end, threading, lazy)
        return result if has_annotation(result) else self.plain(input_)


def has_annotation(data: Mapping[Hashable, Any]) -> bool:
    """Return whether any voxel of `mask` (K, Z, Y, X) is annotated for an organelle of `labelled` (K,)."""
    return bool((data["mask"][data["labelled"]] != UNDRAWN).any())


def rand_organelle_patch(patch: Sequence[int], **settings: Any) -> OrganellePatch:
    """Return the transform that cuts one random patch out of an image and the masks of its organelles.

    Parameters
    ----------
    patch, **settings
        As of `rand_patch`.

    Returns
    -------
    OrganellePatch
        Returns plain tensors: `image` float32 (1, *patch), `mask` uint8 (K, *patch), 1 where the interpolated mask is
        at least one half of what is annotated and `UNDRAWN` where at least half of a voxel has no annotation, and
        `labelled` bool (K,). If the sample has the key `annotated`, the patch has an annotated voxel.
    """
    return OrganellePatch(patch, **settings)


class SplitMasks(Transform):
    """Split the channels of `image` into the image, the first, and masks: 1 where a channel is at least one half.

    K channels beyond the K masks mark voxels without annotation. Where a part of a voxel has none, the mask is 1 if the
    organelle fills at least half of the other part.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        stack, organelles = data["image"].as_tensor(), len(data["labelled"])
        inside_KZYX, undrawn_KZYX = stack[1 : 1 + organelles], stack[1 + organelles :]
        if not len(undrawn_KZYX):
            return {**data, "image": stack[:1], "mask": (inside_KZYX >= 0.5).to(torch.uint8)}
        mask_KZYX = (inside_KZYX >= 0.5 * (1 - undrawn_KZYX)).to(torch.uint8)
        mask_KZYX[undrawn_KZYX >= 0.5] = UNDRAWN
        return {**data, "image": stack[:1], "mask": mask_KZYX}
