"""The volume that every reader returns."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.errors import InputError
from cytovox.io.spacing import StoredSpacing, match_spacing
from cytovox.io.values import as_labels, check_finite, unscaled_ri
from cytovox.io.volume import Volume, to_tczyx


@settings(deadline=None, max_examples=40)
@given(st.permutations("tczyx"), st.integers(0, 3))
def test_any_order_of_axes_comes_out_as_t_c_z_y_x(order: list[str], dropped: int) -> None:
    axes = "".join(letter for letter in order if letter not in "tcz"[:dropped])
    sizes = dict(zip("tczyx", (2, 3, 4, 5, 6), strict=True))
    rng = np.random.default_rng(0)
    array = rng.random([sizes[a] for a in axes])
    result = to_tczyx(array, axes)
    index = {letter: sizes[letter] - 1 for letter in axes}
    assert result.shape == tuple(sizes[a] if a in axes else 1 for a in "tczyx")
    assert result[tuple(index.get(a, 0) for a in "tczyx")] == array[tuple(index[a] for a in axes)]


def test_a_frame_is_float32_and_found_by_its_channels_name() -> None:
    array = np.arange(2 * 2 * 2 * 3 * 4, dtype=np.uint16).reshape(2, 2, 2, 3, 4)
    volume = Volume.from_array(array, "tczyx", (1, 0.5, 0.5), ("RI", "CH0"), times_s=(0, 5))
    assert volume.shape == (2, 2, 2, 3, 4)
    assert volume.frame(1, "CH0").dtype == np.float32
    np.testing.assert_array_equal(volume.frame(1, "CH0"), array[1, 1])
    np.testing.assert_array_equal(volume.frame(), array[0, 0])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).frame(1, 1), array[1, 1])


def test_a_missing_channel_or_frame_is_named_with_those_there_are() -> None:
    volume = Volume.from_array(np.zeros((2, 2, 2)), "zyx", (1, 1, 1))
    with pytest.raises(InputError, match="no channel GFP: it has RI"):
        volume.frame(0, "GFP")
    with pytest.raises(InputError, match="no frame 1: it has 1"):
        volume.frame(1)


@pytest.mark.parametrize("spacing", [(1, 1), (0, 1, 1), (1, float("nan"), 1), (-1, 1, 1), None, "abc"])
def test_a_spacing_that_is_none_is_refused(spacing: object) -> None:
    with pytest.raises(InputError, match="three positive lengths"):
        Volume.from_array(np.zeros((2, 2, 2)), "zyx", spacing)  # type: ignore[arg-type]


def test_spacings_are_compared_as_files_round_them() -> None:
    def match(*lengths_um: float) -> tuple[str, ...]:
        return match_spacing("m.nii", StoredSpacing.of(lengths_um), (0.874, 0.1626, 0.1626), "t.tif")

    assert match(0.87, 0.163, 0.163) == ()
    for lengths_um, how in (((874, 162.6, 162.6), "um where mm"), ((0.000874, 0.0001626, 0.0001626), "mm where um")):
        (note,) = match(*lengths_um)
        assert f"written in {how} is expected" in note
    for lengths_um in ((0.874, 0.1626, 162.6), (0.1626, 0.1626, 0.874)):
        with pytest.raises(InputError, match="save it with the tomogram's voxel size"):
            match(*lengths_um)


def test_voxels_that_are_not_finite_are_counted_and_the_first_is_named() -> None:
    frame = np.full((3, 4, 5), 1.34, dtype=np.float32)
    check_finite(frame, Path("a.TCF"))
    frame[1, 2, 3] = np.nan
    frame[2, 0, 0] = np.inf
    frame[2, 0, 1] = -np.inf
    with pytest.raises(InputError, match=r"a\.TCF frame 0: 3 of 60 voxels .* z, y, x = \(1, 2, 3\)"):
        check_finite(frame, "a.TCF frame 0")


def test_index_times_ten_thousand_is_recognised_and_grey_levels_are_left() -> None:
    scaled = np.array([[[0, 13370, 14500]]], dtype=np.uint16)
    np.testing.assert_allclose(unscaled_ri(scaled), [[[0, 1.337, 1.45]]], rtol=1e-6)
    for grey in (np.array([[[0, 12, 255]]], np.uint8), np.array([[[0, 300, 15000]]], np.uint16)):
        np.testing.assert_array_equal(unscaled_ri(grey), grey)
    np.testing.assert_array_equal(unscaled_ri(np.zeros((1, 1, 1), np.uint16)), 0)


def test_labels_are_whole_numbers_whatever_type_they_were_stored_in() -> None:
    for stored in (np.bool_, np.uint8, np.int16, np.float32, np.float64):
        labels = as_labels(np.array([0, 1, 1]).astype(stored), "m.nii")
        assert labels.dtype.kind in "iu"
        np.testing.assert_array_equal(labels, [0, 1, 1])
    np.testing.assert_array_equal(as_labels(np.array([-3.0, 70000.0]), "m.nii"), [-3, 70000])
    with pytest.raises(InputError, match=r"m\.nii: 2 voxels hold no whole number, such as 0\.5"):
        as_labels(np.array([0, 0.5, np.nan]), "m.nii")
