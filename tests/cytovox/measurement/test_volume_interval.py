"""Intervals on volumes, where the answer is known."""

import numpy as np
import pytest

from cytovox.measurement.volume_interval import FLOOR, agreement, member_labels, volume_intervals


def image(*sizes):
    return np.concatenate([np.full(n, label, np.int32) for label, n in sizes]).reshape(1, 1, -1)


CELLS = image((1, 40), (2, 20), (0, 20))


def test_members_are_found_by_overlap_whatever_their_labels():
    assert member_labels(CELLS, image((9, 38), (0, 4), (4, 38))) == {1: 9, 2: 4}
    assert member_labels(CELLS, image((3, 40), (0, 40))) == {1: 3, 2: 0}


def test_the_deviation_is_that_of_the_members_and_a_floor():
    found = volume_intervals(CELLS, [image((1, 44), (2, 16), (0, 20)), image((5, 36), (6, 24), (0, 20))], 2.0, 1.5)
    assert found[1].volume_um3 == 80
    assert found[1].deviation_um3 == pytest.approx(8 + FLOOR * 80)
    assert found[1].high_um3 - found[1].low_um3 == pytest.approx(3 * found[1].deviation_um3)
    assert found[2].low_um3 == pytest.approx(40 - 1.5 * (8 + FLOOR * 40))


def test_the_interval_is_three_and_a_half_deviations_to_each_side():
    """The factor that benchmarks.measurements --part uncertainty found to hold 90 % of volumes."""
    found = volume_intervals(CELLS, [image((1, 44), (2, 16), (0, 20)), image((5, 36), (6, 24), (0, 20))], 1.0)
    assert found[1].deviation_um3 == pytest.approx(4 + 0.02 * 40)
    assert (found[1].low_um3, found[1].high_um3) == pytest.approx((40 - 3.5 * 4.8, 40 + 3.5 * 4.8))


def test_a_cell_that_no_member_has_is_sure_of_nothing():
    found = volume_intervals(CELLS, [image((1, 40), (0, 40))], 1.0)
    assert found[2].low_um3 == 0
    assert found[2].high_um3 > 40


def test_agreement_is_the_share_of_predictions():
    found = agreement(CELLS, [image((7, 30), (8, 30), (0, 20))])
    assert found[0, 0, 0] == 1
    assert found[0, 0, 35] == 0.5
    assert found[0, 0, 50] == 1
    assert found[0, 0, 70] == 0
    assert agreement(CELLS, []).max() == 1
