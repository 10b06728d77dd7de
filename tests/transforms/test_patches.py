import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose

from cytovox.errors import InputError
from transforms.patches import RandWindowd, foreground_centres, rand_organelle_patch, rand_patch

quick = settings(deadline=None, max_examples=25)
sizes = st.tuples(*[st.integers(1, 14)] * 3)


def sample(shape: tuple[int, int, int] = (16, 40, 40), seed: int = 0) -> dict:
    """Noise, one large organelle, one of a single voxel, one empty, one unlabelled."""
    mask = np.zeros((4, *shape), np.uint8)
    mask[0, :, shape[1] // 4 :] = 1
    mask[1, shape[0] // 2, shape[1] - 1, 0] = 1
    image = np.random.default_rng(seed).random((1, *shape), dtype=np.float32)
    labelled = np.array([True, True, True, False])
    return {"image": image, "mask": mask, "labelled": labelled, "centres": foreground_centres(mask), "case": "a"}


def of(image: np.ndarray, mask: np.ndarray) -> dict:
    """A sample of these, to cut patches of anywhere."""
    return {"image": image, "mask": mask, "labelled": np.ones(len(mask), bool), "centres": [[]] * len(mask)}


def waves(shape: tuple[int, int, int]) -> np.ndarray:
    z, y, x = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    return (np.sin(z / 5) + np.cos(y / 7 + x / 9) + np.sin(x / 6))[None].astype(np.float32)


def window_of(patches: Compose) -> RandWindowd:
    """The transform that draws place and scale."""
    return patches.transforms[0]


def angle_of(patches: Compose) -> float:
    """The last rotation."""
    turn = patches.transforms[1]
    return turn.rand_rotate.x if turn._do_transform else 0.0


def middle_of_patch(image: torch.Tensor) -> np.ndarray:
    """Voxel of the volume that a patch's middle shows."""
    middle = [*((n - 1) / 2 for n in image.shape[1:]), 1]
    return (image.affine.numpy() @ middle)[:3]


@quick
@given(sizes, sizes, st.integers(0, 999), st.sampled_from([0.0, 0.5]))
def test_a_crop_is_exact_to_the_bit_flipped_or_not_inside_or_out(shape, patch, seed, p_flip):
    rng = np.random.default_rng(0)
    image, mask = rng.random((1, *shape), dtype=np.float32), rng.integers(0, 2, (3, *shape), dtype=np.uint8)
    data = of(image, mask) | {"centres": foreground_centres(mask)}
    cut = rand_patch(patch, p_scale=0, p_rotate=0, p_flip=p_flip).set_random_state(seed)(data)
    affine = cut["image"].affine.numpy()
    assert np.array_equal(np.abs(affine[:3, :3]), np.eye(3))
    index = []
    for axis, (n, size) in enumerate(zip(patch, shape, strict=True)):
        places = affine[axis, axis] * np.arange(n) + affine[axis, 3]
        assert np.array_equal(places, np.round(places))
        index.append(np.clip(places.astype(int), 0, size - 1))
    expected = np.concatenate([image, mask])[(slice(None), *np.ix_(*index))]
    np.testing.assert_array_equal(cut["image"], expected)
    labels = rand_patch(patch, p_scale=0, p_rotate=0, p_flip=p_flip, nearest_mask=True).set_random_state(seed)(data)
    np.testing.assert_array_equal(np.concatenate([labels["image"], labels["mask"]]), expected)


def test_flips_mirror_single_axes_half_of_the_time():
    image = np.arange(27, dtype=np.float32).reshape(1, 3, 3, 3)
    patches = rand_organelle_patch((3, 3, 3), p_scale=0, p_rotate=0).set_random_state(0)
    mirrored = np.zeros(3)
    for _ in range(400):
        cut = patches(of(image, np.zeros((1, 3, 3, 3), np.uint8)))["image"].numpy()
        flips = [axis for axis in range(3) if np.take(cut[0], 0, axis).sum() > np.take(cut[0], 2, axis).sum()]
        np.testing.assert_array_equal(cut[0], np.flip(image[0], flips))
        mirrored[flips] += 1
    assert mirrored / 400 == pytest.approx([0.5] * 3, abs=0.08)


def test_a_rotation_is_about_z_by_the_drawn_angle_and_keeps_what_lies_outside_the_patch():
    """A ball 20 voxels beside the patch's middle: it lies where the angle says, and at its own depth."""
    shape, ball = (20, 64, 64), np.array([12.0, 32.0, 50.0])
    z, y, x = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    image = np.exp(-((z - ball[0]) ** 2 + (y - ball[1]) ** 2 + (x - ball[2]) ** 2) / 6)[None].astype(np.float32)
    mask = (image > 0.5).astype(np.uint8)
    patches = rand_patch((18, 48, 48), p_scale=0, p_rotate=1, p_flip=0).set_random_state(0)
    angles, seen = [], 0
    for _ in range(40):
        cut = patches(of(image, mask))
        angles.append(angle_of(patches))
        offset = ball - middle_of_patch(cut["image"])
        cos, sin = math.cos(angles[-1]), math.sin(angles[-1])
        # MONAI maps backward: the patch's axes are the volume's, rotated by the angle from y to x
        expected = np.array([offset[0], cos * offset[1] + sin * offset[2], cos * offset[2] - sin * offset[1]])
        expected += (np.array(cut["image"].shape[1:]) - 1) / 2
        if (expected < 5).any() or (expected > np.array([12, 42, 42])).any():
            continue
        seen += 1
        for part in cut["image"].numpy():  # the image and its mask
            found = np.array([(g * part).sum() / part.sum() for g in np.indices(part.shape)])
            assert found == pytest.approx(expected, abs=0.15)
    assert seen > 5
    assert min(angles) < -2.5
    assert max(angles) > 2.5


@pytest.mark.parametrize("scale", [2.0, 0.5, 1.3])
def test_magnification_makes_a_cube_larger_by_its_factor_along_every_axis(scale):
    mask = np.zeros((1, 48, 48, 48), np.uint8)
    mask[:, 18:30, 18:30, 18:30] = 1
    patches = rand_organelle_patch((36, 36, 36), p_scale=1, p_rotate=0, scale_range=(scale, scale), centred=True)
    cut = patches(of(mask.astype(np.float32), mask))
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        assert int(cut["mask"][0].amax(others).sum()) == pytest.approx(12 * scale, abs=1)
        assert float(cut["image"][0].amax(others).sum()) == pytest.approx(12 * scale, abs=1)


@pytest.mark.parametrize("rotated", [0, 1])
def test_interpolation_is_linear_between_voxels(rotated):
    """A plane that rises along all axes stays a plane, wherever the patch lies inside the volume."""
    z, y, x = np.indices((40, 60, 60))
    plane = (z + 2 * y - 3 * x)[None].astype(np.float32)
    patches = rand_patch((8, 16, 16), p_scale=1, p_rotate=rotated, scale_range=(1.2, 2)).set_random_state(2)
    for _ in range(10):
        cut = patches(of(plane, np.zeros((1, 40, 60, 60), np.uint8)))["image"]
        affine = cut.affine.numpy()
        places = np.tensordot(affine[:3, :3], np.indices(cut.shape[1:]), 1) + affine[:3, 3][:, None, None, None]
        inside = (places >= 0).all(0) & (places <= np.array([39, 59, 59])[:, None, None, None]).all(0)
        expected = places[0] + 2 * places[1] - 3 * places[2]
        np.testing.assert_allclose(cut.numpy()[0][inside], expected[inside], atol=2e-3)


def test_image_and_masks_turn_together():
    field = waves((24, 48, 48))
    mask = (field > 0.3).astype(np.uint8)
    patches = rand_organelle_patch((12, 24, 24), p_scale=1, p_rotate=1).set_random_state(5)
    for _ in range(20):
        result = patches(of(field, mask) | {"centres": foreground_centres(mask)})
        same = (result["image"] > 0.3) == result["mask"].bool()
        assert same.float().mean() > 0.97
        assert same[(result["image"] - 0.3).abs() > 0.3].all()


def test_labels_are_never_interpolated():
    labels = np.where(np.indices((1, 16, 40, 40))[3] > 18, 300, 5).astype(np.uint16)
    data = of(labels.astype(np.float32), labels)
    patches = rand_patch((8, 16, 16), p_scale=1, p_rotate=1, nearest_mask=True).set_random_state(0)
    seen = {value for _ in range(20) for value in patches(data)["mask"].unique().tolist()}
    assert seen == {5.0, 300.0}


def test_z_is_never_swapped_with_another_axis():
    shape = (20, 40, 40)
    depth = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None, None], shape)[None].copy()
    mask = np.ones((1, *shape), np.uint8)
    patches = rand_organelle_patch((8, 16, 16), p_scale=1, p_rotate=1).set_random_state(0)
    for _ in range(20):
        image = patches(of(depth, mask) | {"centres": foreground_centres(mask, 50)})["image"][0]
        assert (image - image[:, :1, :1]).abs().max() < 1e-3


@quick
@given(sizes, sizes, st.integers(0, 999), st.sampled_from([0.0, 0.5, 1.0]))
def test_every_patch_has_exactly_its_size_whatever_the_volumes(shape, patch, seed, p):
    patches = rand_organelle_patch(patch, p_scale=p, p_rotate=p).set_random_state(seed)
    result = patches(sample(shape))
    assert result["image"].shape == (1, *patch)
    assert result["mask"].shape == (4, *patch)
    assert (result["image"].dtype, result["mask"].dtype, result["labelled"].dtype) == (
        torch.float32,
        torch.uint8,
        torch.bool,
    )
    assert all(type(result[key]) is torch.Tensor for key in ("image", "mask", "labelled"))
    assert 0 <= result["image"].min() <= result["image"].max() <= 1 + 1e-6
    assert set(result["mask"].unique().tolist()) <= {0, 1}
    assert "centres" not in result
    assert result["case"] == "a"


def shows_organelle(patches: Compose, data: dict) -> bool:
    """Return whether the next patch contains a voxel of the organelle that was drawn."""
    image = patches(data)["image"]
    organelle = window_of(patches).organelle
    assert organelle in (0, 1)
    homogeneous = np.pad(data["centres"][organelle], ((0, 0), (0, 1)), constant_values=1).T
    shown = np.linalg.inv(image.affine.numpy()) @ homogeneous
    # windows begin at whole voxels of the volume: half of one is up to one voxel of the patch
    resampled = window_of(patches).scale != 1 or angle_of(patches) != 0
    slack = 0.5 + 0.5 * max(1, window_of(patches).scale) + 1e-3 if resampled else 0
    size = np.array(image.shape[1:])
    return bool((np.abs(shown[:3].T - (size - 1) / 2) - size / 2 <= slack).all(axis=1).any())


@quick
@given(sizes, sizes, st.integers(0, 999), st.booleans())
def test_the_drawn_organelle_is_always_inside_a_patch_that_is_not_rotated(shape, patch, seed, scaled):
    data = sample(shape)
    patches = rand_patch(patch, p_foreground=1, p_scale=scaled, p_rotate=0).set_random_state(seed)
    assert all(shows_organelle(patches, data) for _ in range(3))


@quick
@given(st.integers(0, 999), st.booleans())
def test_the_drawn_organelle_is_always_inside_a_rotated_patch_that_is_away_from_the_border(seed, scaled):
    data = sample((16, 64, 64))
    data["mask"][:] = 0
    data["mask"][1, 8, 30:34, 30:34] = 1
    data["centres"] = foreground_centres(data["mask"])
    patches = rand_patch((8, 16, 16), p_foreground=1, p_scale=scaled, p_rotate=1).set_random_state(seed)
    assert all(shows_organelle(patches, data) for _ in range(3))


def test_patches_never_leave_a_volume_that_is_large_enough():
    data = sample((32, 80, 80))
    patches = rand_patch((8, 16, 16), p_foreground=1, p_scale=1, p_rotate=0).set_random_state(0)
    for _ in range(100):
        patches(data)
        window = window_of(patches)
        reach = (window.patch / window.scale - 1) / 2
        assert (window.centre >= reach - 1e-9).all()
        assert (window.centre <= np.array([31, 79, 79]) - reach + 1e-9).all()


def test_a_single_voxel_is_met_as_often_as_promised():
    data = sample((16, 64, 64))
    patches = rand_organelle_patch((8, 16, 16), p_foreground=2 / 3, p_scale=0, p_rotate=0).set_random_state(1)
    seen, drawn = 0, 0
    for _ in range(600):
        result = patches(data)
        drawn += window_of(patches).organelle == 1
        seen += bool(result["mask"][1].any())
    assert drawn / 600 == pytest.approx(1 / 3, abs=0.06)  # two of four organelles are present and labelled
    assert seen >= drawn


def test_an_unlabelled_or_absent_organelle_is_never_drawn_and_nothing_at_all_is_no_error():
    data = sample()
    data["mask"][3] = 1  # a mask nobody vouches for
    data["centres"] = foreground_centres(data["mask"])
    patches = rand_organelle_patch((8, 16, 16), p_foreground=1).set_random_state(0)
    assert {patches(data) and window_of(patches).organelle for _ in range(60)} == {0, 1}
    data["centres"] = [np.zeros((0, 3), np.int32)] * 4
    assert patches(data)["image"].shape == (1, 8, 16, 16)
    assert window_of(patches).organelle == -1


def test_uniform_crops_reach_every_place_equally_often_and_never_leave_the_volume():
    image = np.arange(6 * 6 * 6, dtype=np.float32).reshape(1, 6, 6, 6)
    window = RandWindowd((5, 5, 5), p_scale=0, rotated=False).set_random_state(0)
    data = of(image, np.zeros((1, 6, 6, 6), np.uint8))
    firsts = [float(window(data)["image"].as_tensor()[0, 0, 0, 0]) for _ in range(800)]
    expected = {float(36 * z + 6 * y + x) for z in (0, 1) for y in (0, 1) for x in (0, 1)}
    assert set(firsts) == expected
    assert min(firsts.count(first) for first in expected) > 65  # 100 on average


def test_the_shown_voxel_lies_anywhere_in_the_patch():
    mask = np.zeros((1, 40, 40, 40), np.uint8)
    mask[0, 20, 20, 20] = 1
    data = of(mask.astype(np.float32), mask) | {"centres": foreground_centres(mask)}
    patches = rand_organelle_patch((4, 4, 4), p_foreground=1, p_scale=0, p_rotate=0, p_flip=0).set_random_state(0)
    places = {tuple(patches(data)["mask"][0].nonzero()[0].tolist()) for _ in range(600)}
    assert len(places) > 60  # of 64


def test_a_volume_smaller_than_the_patch_lies_whole_in_its_middle():
    image = np.random.default_rng(0).random((1, 4, 5, 6), dtype=np.float32)
    for p_rotate in (0, 1e-9):  # a window with a margin for rotations, too
        patches = rand_organelle_patch((8, 8, 8), p_scale=0, p_rotate=p_rotate, p_flip=0).set_random_state(0)
        result = patches(of(image, np.zeros((1, 4, 5, 6), np.uint8)))["image"]
        np.testing.assert_array_equal(result[:, 2:6, 1:6, 1:7], image)
        np.testing.assert_array_equal(result[0, :2, 1, 1], np.repeat(image[0, 0, 0, 0], 2))


def test_the_same_seed_cuts_the_same_patch():
    data = sample()
    patches = rand_organelle_patch((8, 16, 16))

    def draw(seed: int) -> torch.Tensor:
        patches.set_random_state(seed)
        return torch.stack([patches(data)["image"] for _ in range(6)])

    assert torch.equal(draw(7), draw(7))
    assert not torch.equal(draw(7), draw(8))


def test_scales_are_log_uniform_within_their_range_and_happen_as_often_as_set():
    data = sample((8, 8, 8))
    window = RandWindowd((4, 4, 4), p_scale=0.25).set_random_state(0)
    scales = []
    for _ in range(2000):
        window.randomize(data)
        scales.append(window.scale)
    drawn = np.array([scale for scale in scales if scale != 1])
    assert len(drawn) / 2000 == pytest.approx(0.25, abs=0.03)
    assert 0.5 <= drawn.min() < 0.52
    assert 1.92 < drawn.max() <= 2
    assert (drawn < 1).mean() == pytest.approx(0.5, abs=0.07)


def test_rotations_happen_as_often_as_set():
    patches = rand_patch((2, 4, 4), p_scale=0, p_rotate=0.75).set_random_state(0)
    data = sample((4, 8, 8))
    assert np.mean([bool(patches(data)) and angle_of(patches) != 0 for _ in range(300)]) == pytest.approx(0.75, abs=0.1)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_a_memory_map_is_read_like_an_array_and_only_where_needed(tmp_path, p):
    data = sample((16, 64, 64))
    np.save(tmp_path / "image.npy", data["image"])
    np.save(tmp_path / "mask.npy", data["mask"])
    mapped = {key: np.load(tmp_path / f"{key}.npy", mmap_mode="c") for key in ("image", "mask")}
    patches = rand_organelle_patch((8, 8, 8), p_scale=p, p_rotate=p)
    expected = patches.set_random_state(3)(data)
    result = patches.set_random_state(3)(data | mapped)
    for key in ("image", "mask"):
        assert torch.equal(result[key], expected[key])
    window = RandWindowd((8, 8, 8), p_scale=p).set_random_state(3)(data | mapped)
    for key in ("image", "mask"):
        part = window[key].as_tensor()
        assert part.numel() < 0.5 * data[key].size
        start = mapped[key].ctypes.data
        assert start <= part.data_ptr() < start + mapped[key].nbytes  # not a copy


def test_centres_are_capped_true_voxels_and_repeat_with_their_seed():
    mask = np.zeros((3, 6, 7, 8), np.uint8)
    mask[0] = 1
    mask[1, 2, 3, 4] = 1
    many, one, none = foreground_centres(mask, limit=50, seed=1)
    assert many.shape == (50, 3)
    assert len(np.unique(many, axis=0)) == 50
    assert one.tolist() == [[2, 3, 4]]
    assert none.shape == (0, 3)
    np.testing.assert_array_equal(many, foreground_centres(mask, 50, 1)[0])
    assert not np.array_equal(many, foreground_centres(mask, 50, 2)[0])


@pytest.mark.parametrize(
    "setting",
    [{"patch": (0, 8, 8)}, {"patch": (8, 8)}, {"p_flip": 1.5}, {"p_foreground": -0.1}, {"scale_range": (2.0, 0.5)}],
)
def test_impossible_settings_are_refused(setting):
    with pytest.raises(InputError):
        rand_organelle_patch(**({"patch": (8, 8, 8)} | setting))
