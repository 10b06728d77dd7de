"""Centre offsets with a known answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.segmentation.centre_offsets import assign_offsets, centres_um, resolve_ambiguous, split_nuclei

SPACING = (0.6, 0.3, 0.4)


def ball(shape, centre_um, radius_um, spacing=SPACING):
    grid = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij", sparse=True)
    return sum((g - c) ** 2 for g, c in zip(grid, centre_um, strict=True)) <= radius_um**2


def two_nuclei(shape=(20, 60, 60)):
    seeds = np.zeros(shape, np.int32)
    seeds[ball(shape, (6, 6, 6), 3)] = 4
    seeds[ball(shape, (6, 6, 16), 3)] = 9
    return seeds


def places(shape, spacing=SPACING):
    return np.stack(
        np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij"), axis=-1
    )


def test_centres_are_in_micrometres_and_keep_their_labels():
    labels, centres, volumes = centres_um(two_nuclei(), SPACING)
    assert labels.tolist() == [4, 9]
    np.testing.assert_allclose(centres, [[6, 6, 6], [6, 6, 16]], atol=0.1)
    np.testing.assert_allclose(volumes, 4 / 3 * np.pi * 27, rtol=0.05)
    assert len(centres_um(np.zeros((2, 2, 2), np.int32), SPACING)[0]) == 0


def test_a_vote_means_the_nearest_nucleus_and_a_far_one_none():
    offsets = np.array([[6, 6, 7.0], [6, 6, 14], [6, 6, 10.9], [6, 30, 6]])
    labels, margin = assign_offsets(offsets, two_nuclei(), SPACING)
    assert labels.tolist() == [4, 9, 4, 0]
    assert margin[0] == pytest.approx(8, abs=0.2)
    assert margin[2] == pytest.approx(0.2, abs=0.2)


def test_without_a_second_nucleus_there_is_no_doubt_and_without_any_no_cell():
    seeds = np.where(two_nuclei() == 4, 1, 0).astype(np.int32)
    labels, margin = assign_offsets(np.array([[6, 6, 6.0]]), seeds, SPACING)
    assert (labels.tolist(), margin.tolist()) == ([1], [np.inf])
    assert assign_offsets(np.zeros((3, 3)), np.zeros((4, 4, 4), np.int32), SPACING)[0].tolist() == [0, 0, 0]


def test_nuclei_that_touch_are_distinguished_by_their_votes():
    shape = (20, 60, 60)
    first, second = ball(shape, (6, 6, 7), 3), ball(shape, (6, 6, 12.5), 3)
    both = np.where(first | second, 1, 0).astype(np.int32)
    offsets = np.zeros((*shape, 3), np.float32)
    offsets[first] = (6, 6, 7)
    offsets[second & ~first] = (6, 6, 12.5)
    noise = np.random.default_rng(0).normal(0, 0.5, offsets.shape).astype(np.float32)
    found = split_nuclei(both, offsets + noise, SPACING)
    assert found.max() == 2
    assert np.array_equal(found > 0, both > 0)
    agree = np.mean(found[first & ~second] == found[ball(shape, (6, 6, 7), 1)][0])
    assert agree > 0.99


def test_one_nucleus_stays_one_whatever_the_noise():
    shape = (20, 60, 60)
    seeds = ball(shape, (6, 6, 7), 3).astype(np.int32)
    offsets = np.random.default_rng(0).normal((6, 6, 7), 0.8, (*shape, 3))
    assert split_nuclei(seeds, offsets, SPACING).max() == 1


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31))
def test_cells_are_connected_hold_their_nucleus_and_lie_in_what_was_claimed(seed):
    rng = np.random.default_rng(seed)
    shape = (8, 20, 20)
    seeds = np.zeros(shape, np.int32)
    for label in (1, 2, 3):
        z, y, x = (int(rng.integers(0, n - 3)) for n in shape)
        seeds[z : z + 3, y : y + 3, x : x + 3] = label
    claimed = rng.integers(0, 4, shape).astype(np.int32)
    import scipy.ndimage as ndi

    cells = resolve_ambiguous(claimed, np.full(shape, 9.0), seeds, (1, 1, 1))
    assert np.all(cells[seeds > 0] == seeds[seeds > 0])
    assert not cells[(claimed == 0) & (seeds == 0)].any()
    for label in np.unique(seeds)[1:]:
        pieces, number = ndi.label(cells == label, structure=np.ones((3, 3, 3)))
        rooted = np.unique(pieces[seeds == label])
        assert number == len(rooted)


def test_doubts_are_settled_by_the_form_of_the_mask():
    # a bar with a waist: the offsets assign the waist to the wrong side, with a small margin
    mask = np.zeros((7, 9, 40), bool)
    mask[:, :, 1:39] = True
    mask[:, :3, 19:21] = mask[:, 6:, 19:21] = False
    seeds = np.zeros(mask.shape, np.int32)
    seeds[2:5, 3:6, 8:11], seeds[2:5, 3:6, 29:32] = 1, 2
    x = np.arange(40)
    labels = np.where(mask, np.where(x < 26, 1, 2), 0).astype(np.int32)
    margin = np.broadcast_to(np.where((x > 13) & (x < 27), 0.5, 9.0), mask.shape)
    found = resolve_ambiguous(labels, margin, seeds, (1, 1, 1), doubt_um=3)
    assert set(np.unique(found[mask & (x < 18)])) == {1}
    assert set(np.unique(found[mask & (x > 22)])) == {2}
    assert not found[~mask].any()
