"""Sizes that a network cannot take are refused with ones that it can."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.errors import InputError
from cytovox.networks.sizes import check_size, nearest_sizes, size_errors


def test_an_odd_size_is_answered_with_the_legal_ones_on_either_side():
    assert size_errors((64, 100, 128), (16, 16, 16), (48, 48, 48)) == [
        "100 voxels along y: expected a multiple of 16, at least 48; use 96 or 112"
    ]


def test_a_size_that_is_too_small_is_answered_with_the_least():
    assert nearest_sizes(20, 16, 48) == [48]
    assert nearest_sizes(20, 16, 40) == [48]


def test_every_axis_is_named_in_one_line():
    with pytest.raises(InputError, match=r"^some_net: 1 voxels along z: .*; 3 voxels along x: .*") as caught:
        check_size("some_net", (1, 8, 3), (4, 4, 4), (4, 4, 4))
    assert "\n" not in str(caught.value)


def test_two_axes_are_no_volume():
    assert "three axes" in size_errors((64, 64), (1, 1, 1), (1, 1, 1))[0]


@given(st.integers(0, 400), st.sampled_from([1, 2, 3, 8, 16]), st.integers(1, 100))
@settings(deadline=None, max_examples=60)
def test_what_is_recommended_is_legal_and_nothing_legal_is_nearer(size, divisor, minimum):
    legal = [n for n in range(1, 600) if n % divisor == 0 and n >= minimum]
    near = nearest_sizes(size, divisor, minimum)
    assert set(near) <= set(legal)
    assert min(abs(n - size) for n in near) == min(abs(n - size) for n in legal)
    assert bool(size_errors((size,) * 3, (divisor,) * 3, (minimum,) * 3)) == (size not in legal)
