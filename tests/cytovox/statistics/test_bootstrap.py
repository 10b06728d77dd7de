"""Intervals with known answers: the mean of a sample, draws within strata, and what is not a number."""

import math

import numpy as np
import pytest

from cytovox.statistics.bootstrap import Interval, difference, interval, mean_of


def test_the_interval_of_a_mean_is_its_normal_approximation():
    values = np.random.default_rng(0).normal(3, 2, 400)
    got = interval(mean_of(values), 400, resamples=4000)
    half = 1.96 * values.std() / math.sqrt(400)
    assert got.value == values.mean()
    assert (got.low, got.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_a_constant_has_no_width_and_a_single_cell_neither():
    assert interval(mean_of([2.0] * 9), 9, resamples=50) == Interval(2.0, 2.0, 2.0)
    assert interval(mean_of([5.0]), 1, resamples=50) == Interval(5.0, 5.0, 5.0)


def test_strata_keep_their_sizes_in_every_resample():
    strata = np.array(["rare"] * 2 + ["common"] * 30)
    assert interval(lambda cells: float((cells < 2).sum()), 32, strata=strata, resamples=200) == Interval(2, 2, 2)
    free = interval(lambda cells: float((cells < 2).sum()), 32, resamples=200)
    assert free.low == 0
    assert free.high > 2


def test_a_paired_difference_sees_the_same_cells_in_both():
    values = np.random.default_rng(1).normal(0, 50, 30)
    shifted = difference(mean_of(values + 0.5), mean_of(values), 30, resamples=200)
    assert (shifted.value, shifted.low, shifted.high) == pytest.approx((0.5, 0.5, 0.5))
    alone = interval(mean_of(values), 30, resamples=200)
    assert alone.low <= 0 <= alone.high


def test_the_seed_names_the_interval_and_the_level_widens_it():
    values = np.random.default_rng(2).random(20)
    by_seed = [interval(mean_of(values), 20, seed=seed, resamples=300) for seed in (4, 4, 5)]
    assert by_seed[0] == by_seed[1] != by_seed[2]
    narrow = interval(mean_of(values), 20, seed=4, resamples=300, level=0.5)
    assert by_seed[0].low < narrow.low < narrow.high < by_seed[0].high


def test_nan_cells_are_left_out_of_a_mean():
    assert interval(mean_of([1.0, math.nan, 1.0, 1.0, 1.0]), 5, resamples=500) == Interval(1, 1, 1)


def test_a_statistic_that_mostly_has_no_value_gets_no_interval():
    got = interval(lambda cells: 1.0 if len(set(cells.tolist())) == 4 else math.nan, 4, resamples=200)
    assert got.value == 1
    assert math.isnan(got.low)
    assert math.isnan(got.high)


def test_no_cells_no_value():
    assert math.isnan(interval(mean_of([]), 0).value)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="level"):
        interval(mean_of([1.0]), 1, level=1.0)
    with pytest.raises(ValueError, match="3 strata for 2 cells"):
        interval(mean_of([1.0, 2.0]), 2, strata=["a", "b", "c"])
