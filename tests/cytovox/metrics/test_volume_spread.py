"""CRPS by its closed form, coverage of forecasts known to be calibrated, and conformal intervals by their ranks."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from cytovox.metrics.volume_spread import (
    central_interval,
    conformal_interval,
    conformal_scores,
    conformal_volumes,
    crps,
    joined,
    log_residuals,
    sampled_scores,
    samples_needed,
    spread_rows,
)


def gaussian_crps(y: float, mu: float, sigma: float) -> float:
    """Gneiting and Raftery 2007, eq. 5."""
    z = (y - mu) / sigma
    return sigma * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / math.sqrt(math.pi))


@pytest.mark.parametrize("y", [1000.0, 1150.0, 700.0])
def test_the_crps_of_a_gaussian_has_its_closed_form(y: float):
    samples = norm.ppf((np.arange(20_000) + 0.5) / 20_000, 1000, 100)
    for fair in (True, False):
        assert crps(samples[None], np.array([y]), fair=fair)[0] == pytest.approx(gaussian_crps(y, 1000, 100), rel=2e-3)


def test_the_fair_crps_of_few_samples_is_unbiased():
    rng = np.random.default_rng(0)
    samples, truth = rng.normal(0, 1, (40_000, 3)), np.zeros(40_000)
    assert crps(samples, truth).mean() == pytest.approx(gaussian_crps(0, 0, 1), abs=0.01)
    # three samples lack a third of the spread 2 / sqrt(pi), of which the score takes half
    assert crps(samples, truth, fair=False).mean() == pytest.approx(
        gaussian_crps(0, 0, 1) + 1 / 3 / math.sqrt(math.pi), abs=0.01
    )


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=7), st.floats(-1e3, 1e3))
def test_the_sorted_formula_is_the_double_sum(samples: list[float], y: float):
    x = np.array(samples)
    pairs = np.abs(x[:, None] - x).sum() / 2
    for fair, count in ((True, len(x) * (len(x) - 1)), (False, len(x) ** 2)):
        assert crps(x[None], np.array([y]), fair=fair)[0] == pytest.approx(
            np.abs(x - y).mean() - pairs / count, abs=1e-9
        )


def test_the_crps_of_one_sample_is_its_distance():
    assert crps(np.array([[3.0]]), np.array([5.0])).tolist() == [2.0]


def test_coverage_of_exchangeable_samples_is_the_level():
    rng = np.random.default_rng(1)
    centre = rng.uniform(500, 3000, (20_000, 1))
    draws = rng.lognormal(np.log(centre), 0.3, (20_000, 20))
    scores = sampled_scores(draws[:, :19], draws[:, 19])
    assert scores.covered_N.mean() == pytest.approx(0.9, abs=0.007)
    narrow = sampled_scores(np.sqrt(draws[:, :19] * centre), draws[:, 19])
    assert narrow.covered_N.mean() < 0.7


@pytest.mark.parametrize("samples", [19, 20, 25, 38, 39, 64, 100])
@pytest.mark.parametrize("level", [0.9, 0.8])
def test_the_interval_has_the_stated_coverage_and_at_least_the_level(samples, level):
    rng = np.random.default_rng(samples)
    draws = rng.lognormal(7, 0.4, (20_000, samples + 1))
    found = central_interval(draws[:, :samples], level)
    covered = ((found.low_N <= draws[:, -1]) & (draws[:, -1] <= found.high_N)).mean()
    assert found.coverage >= level - 1e-12
    assert covered == pytest.approx(found.coverage, abs=0.008)
    # no narrower interval between ranks would do
    assert found.coverage - 2 / (samples + 1) < level


def test_plain_quantiles_of_twenty_samples_would_cover_too_little():
    rng = np.random.default_rng(7)
    draws = rng.lognormal(7, 0.4, (20_000, 21))
    low, high = np.quantile(draws[:, :20], [0.05, 0.95], axis=1)
    plain = ((low <= draws[:, 20]) & (draws[:, 20] <= high)).mean()
    assert plain < 0.84
    assert sampled_scores(draws[:, :20], draws[:, 20]).covered_N.mean() >= 0.9 - 0.008


def test_nineteen_samples_give_their_extremes_and_thirty_nine_the_second_from_each_end():
    for s, (low, high), coverage in ((19, (0, 18), 0.9), (20, (0, 19), 19 / 21), (39, (1, 37), 0.9)):
        got = central_interval(np.random.default_rng(2).permutation(s)[None].astype(float))
        assert (got.low_N[0], got.high_N[0]) == (low, high)
        assert got.coverage == pytest.approx(coverage)


def test_fewer_samples_than_the_level_needs_give_no_interval():
    assert [samples_needed(level) for level in (0.5, 0.8, 0.9, 0.95)] == [3, 9, 19, 39]
    for level in (0.5, 0.8, 0.9, 0.95):
        enough = samples_needed(level)
        assert central_interval(np.zeros((1, enough)), level).coverage == pytest.approx(level)
        assert np.isnan(central_interval(np.zeros((1, enough - 1)), level).low_N).all()
    scores = sampled_scores(np.arange(1.0, 19.0)[None], np.array([9.0]))
    assert np.isnan([scores.covered_N[0], scores.width_N[0]]).all()
    assert np.isfinite(scores.crps_N).all()
    with pytest.raises(ValueError, match="0 < level < 1"):
        central_interval(np.zeros((1, 30)), 1.0)


def test_conformal_intervals_scale_with_the_prediction_and_cover_new_cells():
    rng = np.random.default_rng(3)
    truth = rng.uniform(500, 3000, 20_000)
    predicted = truth * rng.lognormal(0.1, 0.25, 20_000)  # biased: the residuals take that out
    residuals = log_residuals(predicted[:199], truth[:199])
    low, high = conformal_interval(predicted[199:], residuals)
    assert high / low == pytest.approx(np.full(len(low), math.exp(residuals[189] - residuals[9])))
    scores = conformal_scores(predicted[199:], truth[199:], residuals)
    assert scores.covered_N.mean() == pytest.approx(0.9, abs=0.04)


def test_split_conformal_coverage_averages_to_its_level_over_calibration_sets():
    rng = np.random.default_rng(4)
    covered = []
    for _ in range(300):
        ratio = rng.lognormal(0, 0.3, 119)
        residuals = log_residuals(1000 / ratio[:19], np.full(19, 1000.0))
        covered += conformal_scores(1000 / ratio[19:], np.full(100, 1000.0), residuals).covered_N.tolist()
    assert np.mean(covered) == pytest.approx(0.9, abs=0.02)


def test_too_few_residuals_leave_the_interval_open():
    residuals = np.log(np.linspace(0.5, 2, 18))
    assert [end[0] for end in conformal_interval(np.array([100.0]), residuals)] == [0, math.inf]
    lower_level = conformal_interval(np.array([100.0]), residuals, level=0.8)
    assert [end[0] for end in lower_level] == pytest.approx([50, 200])


def test_the_conformal_score_of_known_relative_errors_is_their_lognormal_spread():
    residuals = norm.ppf((np.arange(4000) + 0.5) / 4000, 0, 0.01)
    scores = conformal_scores(np.array([1000.0]), np.array([1005.0]), residuals)
    assert scores.crps_N[0] == pytest.approx(gaussian_crps(1005, 1000, 10), rel=0.02)
    assert scores.relative_crps_N[0] == scores.crps_N[0] / 1005
    assert scores.width_N[0] == pytest.approx(2 * 1.645 * 10 / 1005, rel=0.02)


def test_an_empty_prediction_counts_as_one_voxel():
    assert log_residuals(np.array([0.0]), np.array([math.e])) == pytest.approx([1])
    assert conformal_volumes(np.array([0.0]), np.array([0.0, 1.0])).tolist() == [[1.0, pytest.approx(math.e)]]


def test_rows_put_the_sharper_forecast_below_the_reference():
    rng = np.random.default_rng(5)
    truth = rng.uniform(800, 1200, 60)
    sharp = sampled_scores(truth[:, None] + rng.normal(0, 30, (60, 1)) + rng.normal(0, 30, (60, 39)), truth)
    blunt = sampled_scores(truth[:, None] + rng.normal(0, 90, (60, 1)) + rng.normal(0, 90, (60, 39)), truth)
    first, second = spread_rows({"blunt": blunt, "sharp": sharp}, "blunt", resamples=200)
    assert "crps_change" not in first
    assert second["crps_change_high"] < -0.4
    assert second["coverage_low"] < second["coverage"] <= second["coverage_high"]
    assert second["coverage"] == sharp.covered_N.mean()


def test_folds_join_in_their_order():
    parts = [sampled_scores(np.full((n, 2), 10.0), np.full(n, 10.0 + n)) for n in (2, 3)]
    assert joined(parts).crps_N.tolist() == [2, 2, 3, 3, 3]


def test_true_volumes_of_zero_and_other_numbers_of_cells_are_refused():
    with pytest.raises(ValueError, match="not above 0"):
        sampled_scores(np.ones((2, 3)), np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="2 cells for 3"):
        log_residuals(np.ones(2), np.ones(3))
