"""Balls that touch, part at their neck, one to a nucleus; what has no nucleus is nobody's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from cytovox.segmentation.watershed import seeded_watershed, unassigned

SPACING = (0.5, 0.25, 0.25)
SHAPE = (32, 80, 120)


def ball(centre_um, radius_um):
    axes = np.meshgrid(*(np.arange(n) * s for n, s in zip(SHAPE, SPACING, strict=True)), indexing="ij")
    return sum((a - c) ** 2 for a, c in zip(axes, centre_um, strict=True)) <= radius_um**2


def test_two_cells_part_where_the_mask_is_narrow():
    # of different sizes, so that halfway between the nuclei is not where they part
    large, small = ball((8, 10, 9), 7), ball((8, 10, 19.5), 4.5)
    seeds = 1 * ball((8, 10, 9), 2) + 2 * ball((8, 10, 20), 2)
    cells = seeded_watershed(large | small, seeds, SPACING)
    assert cells.dtype == np.int32
    assert np.array_equal(cells > 0, large | small)
    apart = large ^ small  # what is surely of one of them
    assert (cells == 1)[apart & large].mean() > 0.99
    assert (cells == 2)[apart & small].mean() > 0.99


def test_a_landscape_of_walls_is_followed():
    mask, seeds = np.ones((4, 6, 20), bool), np.zeros((4, 6, 20), int)
    seeds[:, :, 0], seeds[:, :, 19] = 3, 8
    walls = np.zeros(mask.shape)
    walls[:, :, 4] = 1.0
    cells = seeded_watershed(mask, seeds, SPACING, walls)
    assert set(np.unique(cells[:, :, :4])) == {3}
    assert set(np.unique(cells[:, :, 5:])) == {8}


def test_what_has_no_nucleus_is_nobodys_and_is_reported():
    first, second = ball((8, 10, 7), 5), ball((8, 10, 22), 5)
    cells = seeded_watershed(first | second, 1 * ball((8, 10, 7), 2), SPACING)
    assert np.array_equal(cells, 1 * first)
    assert np.array_equal(unassigned(first | second, cells), second)


def test_a_nucleus_outside_of_the_mask_is_a_cell_still():
    seeds = 5 * ball((8, 10, 7), 2)
    cells = seeded_watershed(np.zeros(SHAPE, bool), seeds, SPACING)
    assert np.array_equal(cells, seeds)
    assert not seeded_watershed(ball((8, 10, 7), 2), np.zeros(SHAPE, int), SPACING).any()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        seeded_watershed(np.ones((2, 3, 4)), np.ones((2, 3, 5), int), SPACING)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_every_cell_holds_its_seed_and_hangs_together(seed, count):
    rng = np.random.default_rng(seed)
    mask = rng.random((6, 10, 10)) < 0.6
    seeds = np.zeros(mask.shape, int)
    for k in range(1, count + 1):
        seeds[tuple(rng.integers(0, n) for n in mask.shape)] = k
    cells = seeded_watershed(mask, seeds, (1.0, 1.0, 1.0))
    assert np.array_equal(cells[seeds > 0], seeds[seeds > 0])
    for k in np.unique(seeds[seeds > 0]):
        assert label(cells == k, structure=np.ones((3, 3, 3)))[1] == 1
    # no part of the mask that touches a cell is left over
    whole, _ = label(mask | (seeds > 0), structure=np.ones((3, 3, 3)))
    assert set(np.unique(whole[(cells == 0) & mask])).isdisjoint(np.unique(whole[seeds > 0]))
