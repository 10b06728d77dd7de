"""Reliability of calibrated probabilities, and of probabilities with a known error."""

import math

import numpy as np
import pytest

from cytovox.metrics.reliability import Reliability


def test_calibrated_probabilities_lie_on_the_diagonal():
    rng = np.random.default_rng(0)
    diagram = Reliability(bins=10)
    for _ in range(3):
        probability = rng.random((20, 64, 64))
        diagram.add(probability, rng.random(probability.shape) < probability)
    assert diagram.count_B.sum() == 3 * 20 * 64 * 64
    assert diagram.observed_B == pytest.approx(diagram.predicted_B, abs=0.02)
    assert diagram.predicted_B == pytest.approx(np.arange(10) / 10 + 0.05, abs=0.01)
    assert diagram.calibration_error() < 0.01


def test_merging_two_halves_equals_the_whole():
    rng = np.random.default_rng(2)
    probability, truth = rng.random((4, 8, 8)), rng.random((4, 8, 8)) < 0.5
    whole, first, second = Reliability(), Reliability(), Reliability()
    whole.add(probability, truth)
    first.add(probability[:2], truth[:2])
    second.add(probability[2:], truth[2:])
    first.merge(second)
    assert np.array_equal(first.count_B, whole.count_B)
    assert np.array_equal(first.observed_B, whole.observed_B)
    assert np.allclose(first.predicted_B, whole.predicted_B)


def test_overconfidence_is_read_off_in_the_doubtful_bins_only():
    diagram = Reliability(bins=5)
    diagram.add(np.full((2, 10, 10), 0.7), np.arange(200).reshape(2, 10, 10) % 2 == 0)
    diagram.add(np.zeros((50, 10, 10)), np.zeros((50, 10, 10), bool))
    assert diagram.calibration_error() == pytest.approx(0.2)
    assert diagram.count_B.tolist() == [5000, 0, 0, 200, 0]
    assert np.isnan(diagram.observed_B).tolist() == [False, True, True, False, True]


def test_certain_voxels_fall_in_the_first_and_the_last_bin_and_leave_no_doubt():
    truth = np.zeros((2, 4, 4), bool)
    truth[1] = True
    diagram = Reliability()
    diagram.add(truth.astype(np.float32), truth)
    assert (diagram.count_B[0], diagram.count_B[-1]) == (16, 16)
    assert (diagram.inside_B[0], diagram.inside_B[-1]) == (0, 16)
    assert math.isnan(diagram.calibration_error())


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_values_outside_0_to_1_are_refused(wrong: float):
    with pytest.raises(ValueError, match="not logits"):
        Reliability().add(np.full((1, 2, 2), wrong), np.zeros((1, 2, 2), bool))
    with pytest.raises(ValueError, match="of one shape"):
        Reliability().add(np.zeros((1, 2, 2)), np.zeros((2, 2, 2), bool))
