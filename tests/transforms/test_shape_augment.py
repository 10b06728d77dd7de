"""Augmentation of image, mask and object with the same random transform."""

from __future__ import annotations

import os
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose

from cytovox.errors import InputError
from cytovox.preprocess.shape_fields import SLICE, signed_distance
from transforms.shape_augment import (
    AugmentationParams,
    RandMirrorZd,
    RandRotateInFramed,
    apply_augmentation,
    augment_distance,
    keep_inside,
    rand_shape,
)

SIDE = 64


def ellipsoid(semi: tuple[float, float, float], centre: tuple[float, float, float] = (32, 31.5, 31.5)) -> torch.Tensor:
    axes = np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij")
    rho = sum(((a - c) / s) ** 2 for a, c, s in zip(axes, centre, semi, strict=True))
    return torch.from_numpy((rho < 1).astype(np.float32))


def sample(obj_ZYX: torch.Tensor) -> dict[str, torch.Tensor]:
    mask_YX = obj_ZYX[SLICE]
    return {"image": (0.2 + 0.5 * mask_YX)[None], "mask": mask_YX[None].clone(), "obj": obj_ZYX[None]}


def params_of(augment: Compose) -> AugmentationParams:
    """Parameters of the last call."""
    (rotation,) = (step for step in augment.transforms if isinstance(step, RandRotateInFramed))
    return rotation.params


def lopsided() -> torch.Tensor:
    """A body with a bump on one side, a thin wall on another and a hole: no rotation or flip leaves it unchanged."""
    obj = ellipsoid((12, 16, 10)).numpy().copy()
    obj[30:36, 20:24, 38:50] = 1
    obj[24:44, 44:56, 31] = 1
    obj[30:34, 30:34, 28:32] = 0
    return torch.from_numpy(obj)


def test_default_parameters_change_nothing() -> None:
    obj = lopsided()
    for before, after in zip(
        sample(obj).values(),
        apply_augmentation(AugmentationParams(), *(v[0] for v in sample(obj).values())),
        strict=True,
    ):
        assert torch.equal(before[0], after)


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (AugmentationParams(angle=np.pi), lambda o: o.flip(1, 2)),
        (AugmentationParams(angle=np.pi / 2), lambda o: torch.rot90(o, 1, (2, 1))),
        (AugmentationParams(shift_YX=(3, -2)), lambda o: torch.roll(o, (3, -2), (1, 2))),
    ],
)
def test_known_transforms_move_every_voxel_to_its_place(turn: AugmentationParams, expected: object) -> None:
    obj = lopsided()
    image, mask, turned = apply_augmentation(turn, obj[SLICE], obj[SLICE], obj)
    assert torch.equal(turned, expected(obj))  # type: ignore[operator]
    assert torch.equal(mask, turned[SLICE])
    assert torch.allclose(image, mask, atol=1e-4)


def test_a_flip_along_z_keeps_slice_32() -> None:
    obj = lopsided()
    obj[40, 30, 30] = 0
    given_sample = {"obj": obj[None], "distance": 2 * obj[None]}
    mirrored = RandMirrorZd(("obj", "distance"), 1.0)(given_sample)
    assert torch.equal(mirrored["obj"][0, SLICE], obj[SLICE])
    assert all(torch.equal(mirrored["obj"][0, 64 - z], obj[z]) for z in range(1, 64))
    assert torch.equal(mirrored["distance"], 2 * mirrored["obj"])
    obj[0, 30, 30] = 1  # has no mirror image
    assert torch.equal(RandMirrorZd(("obj",), 1.0)({"obj": obj[None]})["obj"][0], obj)


def test_flips_are_exact_and_have_probability_one_half_along_each_axis() -> None:
    obj = lopsided()
    obj[40, 30, 30] = 0
    augment = rand_shape(**NOTHING | {"flip": True, "flip_z": True})
    augment.set_random_state(0)
    expected = {
        (z, y, x): torch.cat([obj[:1], obj[1:].flip(0)] if z else [obj]).flip([a for a, f in ((1, y), (2, x)) if f])
        for z, y, x in product((False, True), repeat=3)
    }
    seen = []
    for _ in range(240):
        mirrored = augment(sample(obj))
        (flips,) = (flips for flips, other in expected.items() if torch.equal(mirrored["obj"][0], other))
        assert torch.equal(mirrored["mask"][0], mirrored["obj"][0, SLICE])
        assert torch.equal(mirrored["image"][0], 0.2 + 0.5 * mirrored["mask"][0])
        seen.append(flips)
    assert np.mean(seen, axis=0) == pytest.approx([0.5] * 3, abs=0.1)
    assert len(set(seen)) == 8


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    semi=st.tuples(st.floats(3, 31), st.floats(3, 31), st.floats(3, 31)),
    elastic=st.sampled_from([0.0, 2.0]),
)
def test_mask_and_object_agree_after_any_augmentation(
    seed: int, semi: tuple[float, float, float], elastic: float
) -> None:
    augment = rand_shape(elastic=elastic, elastic_probability=1.0, zoom=(0.7, 1.4), shift=8)
    augment.set_random_state(seed=seed)
    turned = augment(sample(ellipsoid(semi)))
    assert torch.equal(turned["obj"][0, SLICE], turned["mask"][0])
    assert set(turned["obj"].unique().tolist()) == {0.0, 1.0}
    assert turned["image"].shape == (1, SIDE, SIDE)
    assert 0 <= turned["image"].min() <= turned["image"].max() <= 1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), semi=st.tuples(st.floats(8, 28), st.floats(10, 31), st.floats(10, 31)))
def test_the_volume_scales_with_the_cube_of_the_zoom_and_no_cell_is_cut(
    seed: int, semi: tuple[float, float, float]
) -> None:
    augment = rand_shape(zoom=(0.7, 1.4), shift=8)
    augment.set_random_state(seed=seed)
    obj = ellipsoid(semi)
    turned = augment(sample(obj))["obj"]
    assert float(turned.sum() / obj.sum()) == pytest.approx(params_of(augment).zoom ** 3, rel=0.06)


def test_image_and_mask_are_transformed_equally() -> None:
    obj = ellipsoid((10, 20, 6))
    augment = rand_shape(intensity_scale=0, intensity_offset=0, noise=0, elastic=1.5, elastic_probability=1)
    for seed in range(10):
        augment.set_random_state(seed=seed)
        turned = augment(sample(obj))
        assert torch.equal((turned["image"] > 0.45).float(), turned["mask"])


def test_a_wall_of_one_voxel_stays_connected_after_rotation() -> None:
    obj = torch.zeros(SIDE, SIDE, SIDE)
    obj[12:52, 16:48, 31] = 1
    for degrees in range(0, 91, 9):
        for shift in (0.0, 0.3, 0.5):
            turn = AugmentationParams(angle=np.radians(degrees), shift_YX=(shift, shift))
            _, mask, turned = apply_augmentation(turn, obj[SLICE], obj[SLICE], obj)
            assert scipy.ndimage.label(mask.numpy(), np.ones((3, 3)))[1] == 1
            assert turned.sum() > 0.65 * obj.sum()


def test_shift_and_zoom_are_limited_so_that_the_cell_stays_inside() -> None:
    obj = ellipsoid((10, 28, 12))
    turn = keep_inside(AugmentationParams(shift_YX=(9, 9)), obj[SLICE], obj)
    assert turn.shift_YX == pytest.approx((4, 9), abs=0.6)
    corner = torch.zeros(SIDE, SIDE, SIDE)
    corner[20:40, 1:63, 1:63] = 1
    kept = keep_inside(AugmentationParams(angle=np.pi / 4), corner[SLICE], corner)
    assert kept.zoom == pytest.approx(1 / np.sqrt(2), rel=0.05)
    _, _, turned = apply_augmentation(kept, corner[SLICE], corner[SLICE], corner)
    assert float(turned.sum() / corner.sum()) == pytest.approx(kept.zoom**3, rel=0.06)


def test_intensity_augmentation_changes_the_image_only() -> None:
    obj = lopsided()
    augment = rand_shape(rotate=False, flip=False, flip_z=False, zoom=(1, 1), shift=0, noise=0)
    augment.set_random_state(seed=3)
    turned = augment(sample(obj))
    assert torch.equal(turned["obj"][0], obj)
    levels = torch.unique(turned["image"])
    assert len(levels) == 2
    assert float(levels[1] - levels[0]) == pytest.approx(0.5, rel=0.1)
    assert not torch.equal(turned["image"], sample(obj)["image"])


def test_without_flip_z_the_upper_side_stays_up() -> None:
    obj = ellipsoid((20, 12, 12))
    obj[:SLICE] = 0
    augment = rand_shape(flip_z=False)
    augment.set_random_state(seed=0)
    for _ in range(20):
        assert augment(sample(obj))["obj"][0, : SLICE - 1].sum() == 0


NOTHING = {
    "rotate": False, "flip": False, "flip_z": False, "zoom": (1.0, 1.0), "shift": 0.0, "intensity_scale": 0.0,
    "intensity_offset": 0.0, "noise": 0.0,
}  # fmt: skip


def test_without_augmentation_a_cell_that_fills_the_volume_is_unchanged() -> None:
    given = sample(torch.ones(SIDE, SIDE, SIDE))
    augment = rand_shape(**NOTHING)
    augment.set_random_state(0)
    for key, value in augment(given).items():
        assert torch.equal(value, given[key])


def test_mirror_yz_flips_y_and_z_independently_with_its_probability() -> None:
    augment, obj = rand_shape(**NOTHING, mirror_yz=1 / 3), lopsided()
    obj[40, 30, 30] = 0
    augment.set_random_state(1)
    seen = []
    for _ in range(600):
        mirrored = augment(sample(obj))["obj"][0]
        y = not torch.equal(mirrored[SLICE], obj[SLICE])
        assert torch.equal(mirrored[SLICE], obj[SLICE].flip(0) if y else obj[SLICE])
        seen.append((not torch.equal(mirrored, obj.flip(1) if y else obj), y))
    assert np.mean(seen, axis=0) == pytest.approx((1 / 3, 1 / 3), abs=0.06)
    assert np.mean([a and b for a, b in seen]) == pytest.approx(1 / 9, abs=0.04)


def test_elastic_deformation_alone_changes_the_object() -> None:
    augment = rand_shape(**NOTHING, elastic=2.0, elastic_probability=1.0)
    augment.set_random_state(2)
    given = sample(lopsided())
    assert not torch.equal(augment(given)["obj"], given["obj"])


def test_a_seed_determines_the_augmentation() -> None:
    augment, obj = rand_shape(elastic=1.0), lopsided()
    drawn = []
    for seed in (1, 1, 2):
        augment.set_random_state(seed=seed)
        drawn.append(augment(sample(obj)))
    assert all(torch.equal(drawn[0][k], drawn[1][k]) for k in drawn[0])
    assert not torch.equal(drawn[0]["obj"], drawn[2]["obj"])


def test_an_invalid_zoom_is_refused() -> None:
    with pytest.raises(InputError, match="zoom"):
        rand_shape(zoom=(1.1, 0.9))


def test_a_sample_is_augmented_within_50_milliseconds() -> None:
    augment, given_ = rand_shape(elastic=1.0, elastic_probability=1.0), sample(lopsided())
    times = []
    for _ in range(30):
        begin = time.process_time()
        augment(given_)
        times.append(time.process_time() - begin)
    assert np.median(times) < 0.05  # 7 ms on a quiet core


@pytest.mark.real_data
@pytest.mark.skipif("CYTOVOX_DATA" not in os.environ, reason="CYTOVOX_DATA names no folder of real data")
def test_real_masks_agree_with_their_objects_after_augmentation() -> None:
    augment = rand_shape()
    augment.set_random_state(seed=0)
    for path in sorted((Path(os.environ["CYTOVOX_DATA"]) / "rbc" / "obj").iterdir())[::10]:
        obj = torch.from_numpy((tifffile.imread(path) > 127).astype(np.float32))
        mask = torch.from_numpy((tifffile.imread(path.parents[1] / "mask" / path.name) > 127).astype(np.float32))
        for _ in range(3):
            turned = augment({"image": mask[None], "mask": mask[None], "obj": obj[None]})
            a, b = turned["mask"][0] > 0, turned["obj"][0, SLICE] > 0
            assert (a & b).sum() / (a | b).sum() > 0.97
            assert float(turned["obj"].sum() / obj.sum()) == pytest.approx(params_of(augment).zoom ** 3, rel=0.08)


@pytest.mark.parametrize(
    "turn",
    [
        AugmentationParams(angle=0.7),
        AugmentationParams(zoom=1.2),
        AugmentationParams(zoom=0.85, shift_YX=(2.0, -3.0), angle=2.0),
    ],
)
def test_transformed_distances_are_those_of_the_transformed_object(turn: AugmentationParams) -> None:
    obj = ellipsoid((14, 18, 9), (34, 30, 32))
    turned = apply_augmentation(turn, obj[SLICE], obj[SLICE], obj)[2].numpy() > 0
    found = augment_distance(turn, torch.from_numpy(signed_distance(obj.numpy() > 0))).numpy()
    near = np.abs(signed_distance(turned)) < 6
    assert np.abs(found - signed_distance(turned))[near].mean() < 0.35
    assert ((found > 0) ^ turned).sum() < 0.03 * turned.sum()


def test_distances_of_a_sample_have_the_same_random_transform() -> None:
    obj = lopsided()
    given_sample = {**sample(obj), "distance": torch.from_numpy(signed_distance(obj.numpy() > 0))[None]}
    augment = rand_shape()
    augment.set_random_state(seed=3)
    turned = augment(given_sample)
    agreed = ((turned["distance"] > 0) == (turned["obj"] > 0.5)).float().mean()
    assert agreed > 0.995
