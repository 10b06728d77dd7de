import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from cytovox.errors import InputError
from cytovox.preprocess.resampling import ResampleTo, common_grid, resize_linear, resize_mask
from transforms.spatial import ResampleToCommonGridd

shapes = st.tuples(*[st.integers(1, 12)] * 3)
quick = settings(deadline=None, max_examples=40)


def smooth(shape: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    """A field of a few long waves over the volume's extent, the same field at any sampling, (1, Z, Y, X)."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[(np.arange(n) + 0.5) / n for n in shape], indexing="ij")
    field = sum(
        np.cos(2 * np.pi * (f * a + p)) for a, f, p in zip(axes, rng.uniform(0.5, 1, 3), rng.random(3), strict=True)
    )
    return torch.from_numpy(np.asarray(field, dtype=np.float32))[None]


def test_a_spacing_gives_the_size_that_keeps_the_field_of_view():
    shape, spacing_um = common_grid((96, 96, 97), (0.139, 0.139, 0.139), ResampleTo(spacing_um=(0.2, 0.1, 0.139)))
    assert shape == (67, 133, 97)  # 13.344 um / 0.2 = 66.7, / 0.1 = 133.4
    assert spacing_um == pytest.approx((13.344 / 67, 13.344 / 133, 0.139))
    assert spacing_um[2] == 0.139


def test_a_grid_gives_the_papers_size_whatever_the_input():
    shape, spacing_um = common_grid((210, 800, 800), (0.2, 0.1, 0.1), ResampleTo(grid=(128, 512, 512)))
    assert shape == (128, 512, 512)
    assert spacing_um == pytest.approx((42 / 128, 80 / 512, 80 / 512))


@quick
@given(shapes, st.tuples(*[st.floats(0.05, 5)] * 3), st.tuples(*[st.floats(0.05, 5)] * 3))
def test_the_field_of_view_never_changes_and_no_axis_vanishes(shape, spacing_um, wanted):
    new_shape, new_spacing_um = common_grid(shape, spacing_um, ResampleTo(spacing_um=wanted))
    assert min(new_shape) >= 1
    for n, s, m, t, w in zip(shape, spacing_um, new_shape, new_spacing_um, wanted, strict=True):
        assert m * t == pytest.approx(n * s)
        assert abs(m - n * s / w) <= 0.5 + 1e-9 or m == 1


@pytest.mark.parametrize("spacing_um", [(0, 1, 1), (1, -1, 1), (1, 1, math.nan), (1, 1, math.inf), (1, 1)])
def test_a_spacing_that_is_no_length_is_refused(spacing_um):
    with pytest.raises(InputError, match="spacing_um"):
        common_grid((8, 8, 8), spacing_um, ResampleTo(grid=(8, 8, 8)))
    with pytest.raises(InputError, match="spacing_um"):
        ResampleTo(spacing_um=spacing_um)


def test_millimetres_taken_for_micrometres_are_caught_before_memory_is():
    with pytest.raises(InputError, match="check the unit"):
        common_grid((96, 96, 96), (139.0, 139.0, 139.0), ResampleTo(spacing_um=(0.2, 0.2, 0.2)))


@pytest.mark.parametrize("fields", [{}, {"spacing_um": (1, 1, 1), "grid": (8, 8, 8)}, {"grid": (8, 0, 8)}])
def test_a_common_grid_has_exactly_one_sound_definition(fields):
    with pytest.raises(InputError, match="resample"):
        ResampleTo(**fields)


def test_lists_of_a_config_are_as_good_as_tuples():
    assert ResampleTo(grid=[8, 8, 8]) == ResampleTo(grid=(8, 8, 8))  # type: ignore[arg-type]


@quick
@given(shapes)
def test_an_unchanged_size_returns_the_very_same_array(shape):
    image, mask = torch.rand((2, *shape)), np.random.default_rng(0).integers(0, 2, (3, *shape), dtype=np.uint8)
    assert resize_linear(image, shape) is image
    assert resize_mask(mask, shape) is mask


@quick
@given(shapes, shapes)
def test_a_constant_stays_constant_up_to_every_face(shape, target):
    resized = resize_linear(torch.full((1, *shape), 0.625), target)
    assert resized.shape == (1, *target)
    torch.testing.assert_close(resized, torch.full((1, *target), 0.625))
    assert resize_mask(np.ones((2, *shape), np.uint8), target).all()
    assert not resize_mask(np.zeros((2, *shape), bool), target).any()


@quick
@given(shapes, shapes)
def test_where_every_axis_grows_it_is_torchs_trilinear_interpolation(shape, more):
    target = tuple(n + m for n, m in zip(shape, more, strict=True))
    image = torch.rand((2, *shape))
    expected = interpolate(image[None], size=target, mode="trilinear", align_corners=False)[0]
    torch.testing.assert_close(resize_linear(image, target), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("width", [(1, 1), (1, 2), (2, 1), (3, 1), (1, 3)])
def test_a_volume_one_voxel_wide_is_resampled_like_any_other(axis, width):
    line = torch.tensor([0.2, 0.9]).view([2 if a == axis else 1 for a in range(4)])
    target = [3 if a == axis else 1 for a in (1, 2)]
    resized = resize_linear(line.expand(-1, -1, -1, width[0]).contiguous(), (*target, width[1]))
    assert resized.shape == (1, *target, width[1])
    for column in resized.movedim(-1, 0):
        torch.testing.assert_close(column.flatten(), torch.tensor([0.2, 0.55, 0.9]))


@pytest.mark.parametrize("target", [(6, 40, 40), (24, 11, 17), (5, 9, 12), (20, 33, 10)])
def test_a_linear_ramp_stays_that_ramp_in_physical_coordinates(target):
    shape = (12, 24, 24)
    ramp = torch.from_numpy(np.add.outer(np.arange(12) / 12, np.add.outer(np.arange(24) / 24, np.arange(24) / 24)))
    first = 0.5 / 12 + 0.5 / 24 + 0.5 / 24
    z, y, x = np.meshgrid(*[(np.arange(n) + 0.5) / n for n in target], indexing="ij")
    expected = z + y + x - first
    inside = (abs(z - 0.5) < 0.3) & (abs(y - 0.5) < 0.3) & (abs(x - 0.5) < 0.3)
    assert ramp.shape == shape
    resized = resize_linear(ramp.float()[None], target)[0].numpy()
    np.testing.assert_allclose(resized[inside], expected[inside], atol=0.1 / 24)  # a tenth of a voxel


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_shrinking_averages_what_is_too_fine_for_the_new_grid(axis):
    stripes = torch.zeros((1, 24, 24, 24))
    stripes.movedim(axis, 0)[::2] = 1  # a wave of two voxels, on a grid three times coarser
    target = [24, 24, 24]
    target[axis - 1] = 8
    inner = resize_linear(stripes, target).movedim(axis, 0)[1:-1]
    assert (inner - 0.5).abs().max() < 0.06  # the triangle's five voxels hold 5/9 or 4/9 of it
    aliased = interpolate(stripes[None], size=target, mode="trilinear")[0]
    assert (aliased.min(), aliased.max()) == (0, 1)


@pytest.mark.parametrize("target", [(20, 48, 50), (48, 40, 64), (15, 17, 19)])
def test_a_smooth_field_survives_the_round_trip(target):
    field = smooth((30, 32, 34))
    back = resize_linear(resize_linear(field, target), (30, 32, 34))
    inner = (slice(None), *[slice(3, -3)] * 3)
    assert (back - field)[inner].abs().max() < 0.06
    assert (back - field).abs().mean() < 0.03


@quick
@given(st.tuples(*[st.integers(1, 4)] * 3), st.tuples(*[st.integers(1, 3)] * 3), st.integers(0, 99))
def test_a_mask_shrunk_by_whole_factors_holds_a_voxel_iff_half_its_block_is_set(target, factor, seed):
    shape = [n * f for n, f in zip(target, factor, strict=True)]
    mask = np.random.default_rng(seed).integers(0, 2, (2, *shape), dtype=np.uint8)
    (tz, ty, tx), (fz, fy, fx) = target, factor
    share = mask.reshape(2, tz, fz, ty, fy, tx, fx).mean(axis=(2, 4, 6))
    resized = resize_mask(mask, target)
    assert resized.dtype == np.uint8
    np.testing.assert_array_equal(resized, share >= 0.5 - 1e-9)


def test_a_mask_shrunk_by_a_broken_factor_is_weighed_by_exact_overlap():
    mask = np.array([1, 1, 0, 0, 1], dtype=bool).reshape(1, 1, 1, 5)  # three voxels of 5/3: 5/3, 1/3, 1 of them set
    np.testing.assert_array_equal(resize_mask(mask, (1, 1, 3))[0, 0, 0], [True, False, True])


@pytest.mark.parametrize("factor", [1.7, 0.6])
def test_a_ball_keeps_its_volume_on_any_grid(factor):
    z, y, x = np.meshgrid(*[np.arange(32) - 15.5] * 3, indexing="ij")
    ball = (z**2 + y**2 + x**2 <= 11**2)[None]
    n = round(32 * factor)
    resized = resize_mask(ball, (n, n, n))
    assert resized.dtype == bool
    assert resized.mean() == pytest.approx(ball.mean(), rel=0.02)


def test_image_masks_and_spacing_of_a_dictionary_move_together(tmp_path):
    np.save(tmp_path / "image.npy", np.random.default_rng(0).random((1, 8, 8, 8), dtype=np.float32))
    image = np.load(tmp_path / "image.npy", mmap_mode="r")
    data = {"image": image, "mask": np.ones((4, 8, 8, 8), np.uint8), "spacing_um": (0.4, 0.1, 0.1), "case": "a"}
    result = ResampleToCommonGridd(ResampleTo(spacing_um=(0.2, 0.2, 0.2)))(data)
    assert result["image"].shape == (1, 16, 4, 4)
    assert result["mask"].shape == (4, 16, 4, 4)
    assert result["spacing_um"] == pytest.approx((0.2, 0.2, 0.2))
    assert result["case"] == "a"
    same = ResampleToCommonGridd(ResampleTo(grid=(8, 8, 8)))({"image": image, "spacing_um": (0.4, 0.1, 0.1)})
    np.testing.assert_array_equal(same["image"], image)


@pytest.mark.parametrize("way", ["spacing_um", "grid"])
def test_a_config_s_words_choose_one_of_the_two_grids(way):
    chosen = ResampleTo.chosen(way, [0.5, 0.25, 0.2], [8, 16, 32])
    assert chosen == (ResampleTo(grid=(8, 16, 32)) if way == "grid" else ResampleTo(spacing_um=(0.5, 0.25, 0.2)))
