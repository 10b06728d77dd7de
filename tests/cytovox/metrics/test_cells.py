"""One image in a row, cells that nobody could find, and means over images."""

import numpy as np
import pytest

from cytovox.metrics.cells import by_cell_line, score_cells, summary


def line(*runs):
    return np.concatenate([np.full(length, label) for label, length in runs])


TRUTH = line((1, 10), (2, 10), (3, 10), (0, 10))


def test_a_perfect_image_scores_one_everywhere():
    scores = score_cells(TRUTH, TRUTH)
    assert (scores.dice, scores.dice_matched, scores.pq, scores.sq, scores.rq) == (1, 1, 1, 1, 1)
    assert (scores.ap_50, scores.ap_60, scores.ap_70, scores.ap_80, scores.ap_90) == (1, 1, 1, 1, 1)
    assert (scores.splits, scores.merges, scores.cells, scores.predicted, scores.left_out) == (0, 0, 3, 3, 0)


def test_precision_falls_with_the_threshold():
    predicted = line((1, 10), (2, 8), (0, 2), (3, 6), (0, 14))  # IoU 1, .8, .6
    scores = score_cells(TRUTH, predicted)
    assert (scores.ap_50, scores.ap_60) == (1, 1)
    assert (scores.ap_70, scores.ap_80) == pytest.approx((2 / 4, 2 / 4))
    assert scores.ap_90 == pytest.approx(1 / 5)
    assert scores.sq == pytest.approx((1 + 0.8 + 0.6) / 3)


def test_a_cell_that_nobody_could_find_counts_neither_way():
    missed = score_cells(TRUTH, line((1, 10), (2, 10), (0, 20)), left_out=[3])
    assert (missed.dice, missed.cells, missed.left_out) == (1, 2, 1)
    # found after all: no false positive
    found = score_cells(TRUTH, TRUTH, left_out=[3])
    assert (found.dice, found.ap_50, found.predicted) == (1, 1, 2)
    # a neighbour that takes some of it over is too large by that, but has merged nothing
    taken = score_cells(TRUTH, line((1, 10), (2, 16), (0, 14)), left_out=[3])
    assert taken.dice == pytest.approx((1 + 2 * 10 / (10 + 16)) / 2)
    assert taken.merges == 0
    # what lies in the background is a false positive still
    stray = score_cells(TRUTH, line((1, 10), (2, 10), (0, 8), (4, 12)), left_out=[3])
    assert stray.predicted == 3
    assert stray.dice == pytest.approx(2 / 3)


def test_a_cell_to_leave_out_must_be_there():
    with pytest.raises(ValueError, match=r"left_out: \[9\] not among"):
        score_cells(TRUTH, TRUTH, left_out=[1, 9])


def test_means_and_intervals_are_over_images():
    perfect, empty = score_cells(TRUTH, TRUTH), score_cells(TRUTH, np.zeros_like(TRUTH))
    found = summary([perfect, empty, perfect, empty])
    assert found["dice"].value == 0.5
    assert found["dice"].low < 0.5 < found["dice"].high
    assert found["dice_matched"].value == 1  # an image without a pair has none
    lines = by_cell_line([perfect, empty, perfect, empty], ["HeLa", "A549", "HeLa", "A549"])
    assert list(lines) == ["HeLa", "A549"]
    assert lines["HeLa"]["dice"].low == lines["HeLa"]["dice"].high == 1
    assert lines["A549"]["pq"].value == 0
    # drawn within their lines, every resample has two of each
    assert summary([perfect, empty, perfect, empty], ["HeLa", "A549"] * 2)["dice"].low == 0.5


def test_an_image_without_cells_has_no_score():
    nothing = score_cells(np.zeros(5, int), np.zeros(5, int))
    assert np.isnan(nothing.dice)
    assert summary([nothing, score_cells(TRUTH, TRUTH)])["dice"].value == 1
