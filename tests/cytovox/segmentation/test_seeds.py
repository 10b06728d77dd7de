"""Balls that stand apart, touch by a corner, share a neck, or are too small to be a nucleus."""

import numpy as np
import pytest

from cytovox.segmentation.seeds import nucleus_seeds

SPACING = (0.5, 0.25, 0.25)
SHAPE = (32, 80, 120)


def ball(centre_um, radius_um, shape=SHAPE):
    axes = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, SPACING, strict=True)), indexing="ij")
    return sum((a - c) ** 2 for a, c in zip(axes, centre_um, strict=True)) <= radius_um**2


def test_each_nucleus_is_a_seed_of_its_own():
    first, second = ball((6, 8, 6), 4), ball((8, 8, 20), 4)
    seeds = nucleus_seeds(first | second, SPACING)
    assert seeds.dtype == np.int32
    assert np.array_equal(seeds, 1 * first + 2 * second)


def test_nuclei_that_touch_by_a_corner_are_one():
    mask = np.zeros((8, 8, 8), bool)
    mask[1:4, 1:4, 1:4] = mask[4:7, 4:7, 4:7] = True
    assert nucleus_seeds(mask, SPACING, min_volume_um3=0).max() == 1


def test_what_is_too_small_is_no_nucleus_and_leaves_no_gap_in_the_labels():
    speck, nucleus = ball((4, 4, 3), 0.8), ball((8, 10, 18), 4)
    seeds = nucleus_seeds(speck | nucleus, SPACING)
    assert np.array_equal(seeds, 1 * nucleus)
    by_voxels = nucleus_seeds(speck | nucleus, SPACING, min_volume_um3=0, min_voxels=int(speck.sum()))
    assert by_voxels.max() == 2
    assert nucleus_seeds(speck | nucleus, SPACING, min_volume_um3=0, min_voxels=int(speck.sum()) + 1).max() == 1


@pytest.mark.parametrize("axis", [1, 2])
def test_two_that_share_a_neck_are_distinguished_if_asked(axis):
    centres = [[8, 10, 15], [8, 10, 15]]
    centres[0][axis] -= 3.4
    centres[1][axis] += 3.4
    balls = [ball(centre, 4) for centre in centres]
    assert nucleus_seeds(balls[0] | balls[1], SPACING).max() == 1
    seeds = nucleus_seeds(balls[0] | balls[1], SPACING, split_depth_um=0.5)
    assert seeds.max() == 2
    assert np.array_equal(seeds > 0, balls[0] | balls[1])
    for label in (1, 2):
        assert max((b & (seeds == label)).sum() / b.sum() for b in balls) > 0.95


@pytest.mark.parametrize("split_depth_um", [0.3, 0.5, 1.0])
def test_a_single_nucleus_stays_whole_even_at_the_border(split_depth_um):
    z, y, x = np.meshgrid(*(np.arange(n) * s for n, s in zip(SHAPE, SPACING, strict=True)), indexing="ij")
    long = ((z - 8) / 3) ** 2 + ((y - 10) / 3.5) ** 2 + ((x - 14) / 8) ** 2 <= 1
    assert nucleus_seeds(long, SPACING, split_depth_um=split_depth_um).max() == 1
    assert nucleus_seeds(ball((0, 10, 0), 5), SPACING, split_depth_um=split_depth_um).max() == 1


def test_a_nucleus_that_is_thinner_than_the_neck_asked_for_is_kept():
    thin = np.zeros(SHAPE, bool)
    thin[10:12, 20:60, 20:60] = True  # 1 µm thick
    assert nucleus_seeds(thin, SPACING, split_depth_um=2.0).max() == 1


def test_no_nuclei_make_no_seeds():
    assert nucleus_seeds(np.zeros(SHAPE, bool), SPACING, split_depth_um=0.5).max() == 0
