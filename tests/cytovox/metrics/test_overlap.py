"""Dice, its spread, and the best single window of refractive index."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.metrics.overlap import RIWindow, RIWindowFit, best_window, dice, dice_per_organelle, spread
from cytovox.organelles import COLOURS, ORGANELLES


def test_two_masks_that_share_half_have_a_dice_of_one_half():
    pred = np.array([[[1, 1, 0, 0]]], bool)
    truth = np.array([[[0, 1, 1, 0]]], bool)
    assert dice(pred, truth) == pytest.approx(0.5)


def test_equal_masks_have_one_and_disjoint_masks_have_none():
    mask = np.zeros((2, 3, 4), bool)
    mask[0] = True
    assert dice(mask, mask) == 1
    assert dice(mask, ~mask) == 0


def test_empty_against_empty_is_no_score_and_empty_against_something_is_zero():
    empty, full = np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool)
    assert np.isnan(dice(empty, empty))
    assert dice(empty, full) == dice(full, empty) == 0


def test_masks_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="of one shape"):
        dice(np.ones((1, 2, 2)), np.ones((1, 2, 3)))
    with pytest.raises(ValueError, match="of one shape"):
        dice_per_organelle(np.ones((4, 1, 2, 2)), np.ones((3, 1, 2, 2)))


def test_an_unlabelled_organelle_has_no_score_however_its_mask_looks():
    masks = np.ones((4, 1, 2, 2), bool)
    scores = dice_per_organelle(masks, masks, np.array([True, False, True, False]))
    assert np.array_equal(np.isnan(scores), [False, True, False, True])
    assert scores[0] == scores[2] == 1
    assert np.array_equal(dice_per_organelle(masks, masks), np.ones(4))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_dice_is_symmetric_and_between_zero_and_one(seed, share_a, share_b):
    rng = np.random.default_rng(seed)
    a, b = rng.random((3, 4, 5)) < share_a, rng.random((3, 4, 5)) < share_b
    one, other = dice(a, b), dice(b, a)
    assert (np.isnan(one) and np.isnan(other)) or (one == other and 0 <= one <= 1)


def test_the_spread_of_one_to_five_is_known_and_leaves_out_nan():
    result = spread([3, float("nan"), 1, 2, 5, 4])
    assert (result.n, result.mean, result.minimum, result.q1, result.median, result.q3, result.maximum) == (
        5,
        3,
        1,
        2,
        3,
        4,
        5,
    )
    assert result.sd == pytest.approx(2.5**0.5)


def test_the_spread_of_one_case_has_no_deviation_and_of_none_no_mean():
    assert np.isnan(spread([0.5]).sd)
    assert spread([0.5]).median == 0.5
    nothing = spread([float("nan")])
    assert nothing.n == 0
    assert np.isnan(nothing.mean)


def brute_force(inside, everything):
    """The best run of bins, the slow and plain way."""
    best = (0, 1, -1.0)
    for low, high in itertools.combinations(range(inside.shape[1] + 1), 2):
        scores = [
            2 * hits[low:high].sum() / (taken[low:high].sum() + hits.sum())
            for hits, taken in zip(inside, everything, strict=True)
        ]
        if np.mean(scores) > best[2] + 1e-12:
            best = (low, high, np.mean(scores))
    return best


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 12))
def test_the_fast_search_finds_what_brute_force_finds(seed, cases, bins):
    rng = np.random.default_rng(seed)
    inside = rng.integers(0, 6, (cases, bins))
    inside[:, 0] += 1
    everything = inside + rng.integers(0, 6, (cases, bins))
    low, high, score = best_window(inside, everything)
    assert score == pytest.approx(brute_force(inside, everything)[2])
    again = [2 * i[low:high].sum() / (e[low:high].sum() + i.sum()) for i, e in zip(inside, everything, strict=True)]
    assert np.mean(again) == pytest.approx(score)


def test_organelles_parted_by_their_index_are_found_exactly():
    ri = np.full((4, 8, 8), 1.337, np.float32)
    nucleus, lipid = np.zeros(ri.shape, bool), np.zeros(ri.shape, bool)
    nucleus[1:3, 2:5, 2:5], lipid[3, 6:, 6:] = True, True
    ri[nucleus], ri[lipid] = 1.3605, 1.5
    fit = RIWindowFit()
    fit.add(ri, {"nucleus": nucleus, "lipid": lipid, "membrane": ri < 1.35})
    windows = fit.fit()
    assert windows["nucleus"].dice == windows["lipid"].dice == windows["membrane"].dice == 1
    assert windows["nucleus"].ri_low <= 1.3605 < windows["nucleus"].ri_high
    assert windows["lipid"].ri_high == np.inf
    assert windows["membrane"].ri_low == -np.inf
    assert np.array_equal(windows["nucleus"].mask(ri), nucleus)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]))
def test_the_score_of_a_window_is_the_dice_of_its_mask(seed, dtype):
    rng = np.random.default_rng(seed)
    fit, cases = RIWindowFit(bin_width=1e-3), []
    for _ in range(3):
        truth = rng.random((3, 6, 6)) < 0.3
        truth[0, 0, 0] = True
        ri = (rng.normal(1.36, 0.01, truth.shape) + 0.012 * truth).astype(dtype)
        ri.flat[::7] = np.round(ri.flat[::7], 3)  # values that lie on the edges
        cases.append((ri, truth))
        fit.add(ri, {"nucleus": truth})
    window = fit.fit()["nucleus"]
    assert window.n == 3
    assert np.mean([dice(window.mask(ri), truth) for ri, truth in cases]) == pytest.approx(window.dice)


def test_a_case_without_the_organelle_does_not_count():
    ri, truth = np.full((2, 4, 4), 1.34), np.zeros((2, 4, 4), bool)
    truth[0, 0] = True
    ri[truth] = 1.38
    fit = RIWindowFit()
    fit.add(ri, {"nucleus": truth})
    fit.add(np.full((2, 4, 4), 1.38), {"nucleus": np.zeros((2, 4, 4), bool)})
    fit.add(np.full((2, 4, 4), 1.38), {"nucleus": None})
    fit.add(np.full((2, 4, 4), 1.38), {})
    window = fit.fit()["nucleus"]
    assert (window.n, window.dice) == (1, 1)
    unknown = fit.fit()["lipid"]
    assert unknown.n == 0
    assert np.isnan([unknown.ri_low, unknown.ri_high, unknown.dice]).all()
    assert not unknown.mask(ri).any()


def test_two_halves_of_a_test_set_merge_to_the_fit_of_the_whole():
    rng = np.random.default_rng(0)
    whole, halves = RIWindowFit(), (RIWindowFit(), RIWindowFit())
    for k in range(4):
        truth = rng.random((2, 6, 6)) < 0.3
        ri = rng.normal(1.36, 0.01, truth.shape) + 0.01 * truth
        whole.add(ri, {"lipid": truth})
        halves[k % 2].add(ri, {"lipid": truth})
    halves[0].merge(halves[1])
    one, other = halves[0].fit()["lipid"], whole.fit()["lipid"]
    assert (one.ri_low, one.ri_high, one.n) == (other.ri_low, other.ri_high, other.n)
    assert one.dice == pytest.approx(other.dice)


def test_a_volume_with_nan_or_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        RIWindowFit().add(np.full((1, 2, 2), np.nan), {})
    with pytest.raises(ValueError, match="nucleus: the mask"):
        RIWindowFit().add(np.ones((1, 2, 2)), {"nucleus": np.ones((1, 2, 3))})
    with pytest.raises(ValueError, match="two bins"):
        RIWindowFit(ri_min=1.4, ri_max=1.4)


def test_twenty_cases_of_six_hundred_bins_are_searched_within_a_second():
    rng = np.random.default_rng(0)
    inside = rng.integers(0, 100, (20, 602))
    everything = inside + rng.integers(0, 1000, (20, 602))
    best_window(inside[:, :20], everything[:, :20])
    start = time.process_time()
    best_window(inside, everything)
    assert time.process_time() - start < 1


def test_every_organelle_has_a_colour_of_its_own():
    assert set(COLOURS) == set(ORGANELLES)
    assert len(set(COLOURS.values())) == len(ORGANELLES)
    assert RIWindow("lipid", 1.37, 1.4, 0.5, 1).mask(np.array([1.37, 1.4])).tolist() == [True, False]
