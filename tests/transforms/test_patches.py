import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose
from scipy.ndimage import map_coordinates

from cytovox.errors import InputError
from transforms.patches import Placement, RandOrganellePatchd, crop, foreground_centres, warp

quick = settings(deadline=None, max_examples=40)
sizes = st.tuples(*[st.integers(1, 14)] * 3)


def sample(shape: tuple[int, int, int] = (16, 40, 40), seed: int = 0) -> dict:
    """Noise, one large organelle, one of a single voxel, one empty, one unlabelled."""
    mask = np.zeros((4, *shape), np.uint8)
    mask[0, :, shape[1] // 4 :] = 1
    mask[1, shape[0] // 2, shape[1] - 1, 0] = 1
    image = np.random.default_rng(seed).random((1, *shape), dtype=np.float32)
    labelled = np.array([True, True, True, False])
    return {"image": image, "mask": mask, "labelled": labelled, "centres": foreground_centres(mask), "case": "a"}


def waves(shape: tuple[int, int, int]) -> np.ndarray:
    z, y, x = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    return (np.sin(z / 5) + np.cos(y / 7 + x / 9) + np.sin(x / 6))[None].astype(np.float32)


@quick
@given(sizes, sizes, st.tuples(*[st.booleans()] * 3), st.tuples(*[st.integers(-3, 16)] * 3))
def test_a_crop_is_exact_to_the_bit_flipped_or_not_inside_or_out(shape, patch, flip, start):
    rng = np.random.default_rng(0)
    image, mask = rng.random((1, *shape), dtype=np.float32), rng.integers(0, 2, (3, *shape), dtype=np.uint8)
    start = tuple(min(max(s, 1 - n), m - 1) for s, n, m in zip(start, patch, shape, strict=True))
    centre = tuple(s + (n - 1) / 2 for s, n in zip(start, patch, strict=True))
    cut_image, cut_mask = crop(image, mask, Placement(centre, flip=flip), patch)
    index = [np.clip(np.arange(s, s + n), 0, m - 1) for s, n, m in zip(start, patch, shape, strict=True)]
    index = [i[::-1] if f else i for i, f in zip(index, flip, strict=True)]
    np.testing.assert_array_equal(cut_image, image[(slice(None), *np.ix_(*index))])
    np.testing.assert_array_equal(cut_mask, mask[(slice(None), *np.ix_(*index))])
    assert cut_image.is_contiguous()
    assert cut_mask.is_contiguous()
    warped_image, warped_mask = warp(image, mask, Placement(centre, flip=flip), patch)
    torch.testing.assert_close(warped_image, cut_image, atol=1e-4, rtol=0)
    assert torch.equal(warped_mask, cut_mask)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_turn_about_z_is_numpys(turns):
    rng = np.random.default_rng(turns)
    image, mask = rng.random((1, 5, 12, 12), dtype=np.float32), rng.integers(0, 2, (2, 5, 12, 12), dtype=np.uint8)
    placement = Placement((2.0, 5.5, 5.5), angle=turns * math.pi / 2)
    turned_image, turned_mask = warp(image, mask, placement, (5, 12, 12))
    np.testing.assert_allclose(turned_image, np.rot90(image, -turns, axes=(2, 3)), atol=1e-4)
    np.testing.assert_array_equal(turned_mask, np.rot90(mask, -turns, axes=(2, 3)))


@pytest.mark.parametrize(("scale", "slope"), [(2.0, 0.5), (0.5, 2.0), (1.25, 0.8)])
def test_magnification_flattens_a_ramp_by_its_factor_along_every_axis(scale, slope):
    for axis in range(3):
        ramp = np.moveaxis(np.broadcast_to(np.arange(40, dtype=np.float32), (40, 40, 40)), -1, axis)[None]
        image, _ = warp(ramp, ramp.astype(np.uint8), Placement((19.5, 19.5, 19.5), scale), (8, 8, 8))
        step = np.diff(image[0].numpy(), axis=axis)
        np.testing.assert_allclose(step, slope, atol=1e-4)
        assert float(image.mean()) == pytest.approx(19.5, abs=1e-3)


@quick
@given(
    st.tuples(*[st.integers(4, 18)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.floats(0.5, 2),
    st.floats(-math.pi, math.pi),
    st.tuples(*[st.booleans()] * 3),
    st.tuples(*[st.floats(0, 1)] * 3),
)
def test_separable_sampling_is_scipys_trilinear_interpolation(shape, patch, scale, angle, flip, where):
    image = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    centre = tuple(w * (n - 1) for w, n in zip(where, shape, strict=True))
    placement = Placement(centre, scale, angle, flip)
    offsets = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in patch], indexing="ij")).reshape(3, -1)
    turn = np.array([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
    source = np.array(centre)[:, None] + turn @ (offsets * np.where(flip, -1, 1)[:, None]) / scale
    expected = map_coordinates(image[0].astype(float), source, order=1, mode="nearest").reshape(patch)
    result, _ = warp(image, np.zeros((1, *shape), np.uint8), placement, patch)
    np.testing.assert_allclose(result[0], expected, atol=2e-4)


def test_image_and_masks_turn_together():
    field = waves((24, 48, 48))
    mask = (field > 0.3).astype(np.uint8)
    patches = RandOrganellePatchd((12, 24, 24), p_scale=1, p_rotate=1).set_random_state(5)
    data = {"image": field, "mask": mask, "labelled": np.array([True]), "centres": foreground_centres(mask)}
    for _ in range(20):
        result = patches(data)
        same = (result["image"] > 0.3) == result["mask"].bool()
        assert same.float().mean() > 0.97
        assert same[(result["image"] - 0.3).abs() > 0.3].all()


def test_z_is_never_swapped_with_another_axis():
    shape = (20, 40, 40)
    depth = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None, None], shape)[None]
    mask = np.ones((1, *shape), np.uint8)
    patches = RandOrganellePatchd((8, 16, 16), p_scale=1, p_rotate=1).set_random_state(0)
    data = {"image": depth, "mask": mask, "labelled": np.array([True]), "centres": foreground_centres(mask, 50)}
    for _ in range(20):
        image = patches(data)["image"][0]
        assert (image - image[:, :1, :1]).abs().max() < 1e-3


@quick
@given(sizes, sizes, st.integers(0, 999), st.sampled_from([0.0, 0.5, 1.0]))
def test_every_patch_has_exactly_its_size_whatever_the_volumes(shape, patch, seed, p):
    patches = RandOrganellePatchd(patch, p_scale=p, p_rotate=p).set_random_state(seed)
    result = patches(sample(shape))
    assert result["image"].shape == (1, *patch)
    assert result["mask"].shape == (4, *patch)
    assert (result["image"].dtype, result["mask"].dtype, result["labelled"].dtype) == (
        torch.float32,
        torch.uint8,
        torch.bool,
    )
    assert result["image"].is_contiguous()
    assert result["mask"].is_contiguous()
    assert 0 <= result["image"].min() <= result["image"].max() <= 1
    assert set(result["mask"].unique().tolist()) <= {0, 1}
    assert "centres" not in result
    assert result["case"] == "a"


@quick
@given(sizes, sizes, st.integers(0, 999), st.booleans(), st.booleans())
def test_the_drawn_organelle_is_always_inside_the_patch(shape, patch, seed, scaled, turned):
    data = sample(shape)
    patches = RandOrganellePatchd(patch, p_foreground=1, p_scale=scaled, p_rotate=turned).set_random_state(seed)
    for _ in range(5):
        patches.randomize(data)
        placement = patches.placement
        assert placement.organelle in (0, 1)
        offsets = np.linalg.solve(placement.matrix, (data["centres"][placement.organelle] - placement.centre).T).T
        assert (np.abs(offsets) <= np.array(patch) / 2 + 1e-9).all(axis=1).any()


def test_a_single_voxel_is_met_as_often_as_promised():
    data = sample((16, 64, 64))
    patches = RandOrganellePatchd((8, 16, 16), p_foreground=2 / 3, p_scale=0, p_rotate=0).set_random_state(1)
    seen, drawn = 0, 0
    for _ in range(1500):
        result = patches(data)
        drawn += patches.placement.organelle == 1
        seen += bool(result["mask"][1].any())
    assert drawn / 1500 == pytest.approx(1 / 3, abs=0.04)  # two of four organelles are present and labelled
    assert seen >= drawn


def test_an_unlabelled_or_absent_organelle_is_never_drawn_and_nothing_at_all_is_no_error():
    data = sample()
    data["mask"][3] = 1  # a mask nobody vouches for
    data["centres"] = foreground_centres(data["mask"])
    patches = RandOrganellePatchd((8, 16, 16), p_foreground=1).set_random_state(0)
    assert {patches(data) and patches.placement.organelle for _ in range(60)} == {0, 1}
    data["centres"] = [np.zeros((0, 3), np.int32)] * 4
    assert patches(data)["image"].shape == (1, 8, 16, 16)
    assert patches.placement.organelle is None


def test_uniform_crops_reach_every_place_and_never_leave_the_volume():
    image = np.arange(6 * 6 * 6, dtype=np.float32).reshape(1, 6, 6, 6)
    data = {"image": image, "mask": np.zeros((1, 6, 6, 6), np.uint8), "labelled": [True], "centres": [[]]}
    patches = RandOrganellePatchd((5, 5, 5), p_scale=0, p_rotate=0, p_flip=0).set_random_state(0)
    firsts = {float(patches(data)["image"][0, 0, 0, 0]) for _ in range(200)}
    assert firsts == {float(36 * z + 6 * y + x) for z in (0, 1) for y in (0, 1) for x in (0, 1)}


def test_a_volume_smaller_than_the_patch_lies_whole_in_its_middle():
    image = np.random.default_rng(0).random((1, 4, 5, 6), dtype=np.float32)
    data = {"image": image, "mask": np.zeros((1, 4, 5, 6), np.uint8), "labelled": [True], "centres": [[]]}
    patches = RandOrganellePatchd((8, 8, 8), p_scale=0, p_rotate=0, p_flip=0).set_random_state(0)
    result = patches(data)["image"]
    np.testing.assert_array_equal(result[:, 2:6, 1:6, 1:7], image)
    np.testing.assert_array_equal(result[0, :2, 1, 1], np.repeat(image[0, 0, 0, 0], 2))


def test_the_same_seed_cuts_the_same_patch():
    data = sample()
    patches = RandOrganellePatchd((8, 16, 16))

    def draw(seed: int) -> torch.Tensor:
        patches.set_random_state(seed)
        return torch.stack([patches(data)["image"] for _ in range(6)])

    assert torch.equal(draw(7), draw(7))
    assert not torch.equal(draw(7), draw(8))
    composed = Compose([RandOrganellePatchd((8, 16, 16))])
    first = composed.set_random_state(7)(data)["image"]
    assert torch.equal(first, composed.set_random_state(7)(data)["image"])


def test_scales_are_log_uniform_within_their_range_and_happen_as_often_as_set():
    data = sample((8, 8, 8))
    patches = RandOrganellePatchd((4, 4, 4), p_scale=0.25, p_rotate=0.75).set_random_state(0)
    placements = []
    for _ in range(2000):
        patches.randomize(data)
        placements.append(patches.placement)
    scales = np.array([p.scale for p in placements if p.scale != 1])
    assert len(scales) / 2000 == pytest.approx(0.25, abs=0.03)
    assert np.mean([p.angle != 0 for p in placements]) == pytest.approx(0.75, abs=0.03)
    assert 0.5 <= scales.min() < 0.52
    assert 1.92 < scales.max() <= 2
    assert (scales < 1).mean() == pytest.approx(0.5, abs=0.07)
    assert np.mean([p.flip for p in placements], axis=0) == pytest.approx([0.5] * 3, abs=0.04)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_a_memory_map_is_read_like_an_array_and_only_where_needed(tmp_path, p):
    data = sample((16, 64, 64))
    np.save(tmp_path / "image.npy", data["image"])
    np.save(tmp_path / "mask.npy", data["mask"])
    mapped = {key: np.load(tmp_path / f"{key}.npy", mmap_mode="r") for key in ("image", "mask")}
    patches = RandOrganellePatchd((8, 8, 8), p_scale=p, p_rotate=p)
    expected = patches.set_random_state(3)(data)
    result = patches.set_random_state(3)(data | mapped)
    for key in ("image", "mask"):
        assert torch.equal(result[key], expected[key])

    class Counted(np.ndarray):
        largest = 0

        def __getitem__(self, index):
            part = np.asarray(self)[index]
            Counted.largest = max(Counted.largest, part.size)
            return part

    patches.set_random_state(3)(data | {"image": data["image"].view(Counted)})
    assert 0 < Counted.largest <= 20**3  # 16 x 64 x 64 would be 65 536


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
        RandOrganellePatchd(**({"patch": (8, 8, 8)} | setting))
