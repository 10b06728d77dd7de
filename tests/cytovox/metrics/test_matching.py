"""Cells matched to cells: known answers, and MONAI's and a brute-force count on random labels."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics.panoptic_quality import compute_panoptic_quality

from cytovox.metrics.matching import average_precision, count_merges, count_splits, detect, match_by_dice, overlaps


def line(*runs):
    """Labels along a line: (label, length) after (label, length)."""
    return np.concatenate([np.full(length, label) for label, length in runs])


def random_labels(seed, cells, shape=(4, 12, 12)):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, cells + 1, shape)
    return np.repeat(np.repeat(labels, 2, axis=1), 2, axis=2)


def test_the_same_labels_under_other_names_agree_fully():
    truth = line((0, 3), (1, 5), (2, 7), (9, 2))
    other = line((0, 3), (40, 5), (3, 7), (1, 2))
    found = overlaps(truth, other)
    pairs = match_by_dice(found)
    assert dict(zip(pairs.truth_M, pairs.predicted_M, strict=True)) == {1: 40, 2: 3, 9: 1}
    assert pairs.matched_only == pairs.unmatched_as_zero == 1
    assert set(average_precision(found).values()) == {1.0}
    assert detect(found).panoptic_quality == 1
    assert count_splits(found) == count_merges(found) == 0


def test_a_missed_and_an_invented_cell_count_as_zero():
    truth = line((1, 10), (2, 10), (0, 10))
    predicted = line((1, 8), (0, 12), (7, 10))
    pairs = match_by_dice(overlaps(truth, predicted))
    assert pairs.matched_only == pytest.approx(16 / 18)
    assert pairs.unmatched_as_zero == pytest.approx(16 / 18 / 3)
    assert (pairs.unmatched_truth, pairs.unmatched_predicted) == (1, 1)
    at = detect(overlaps(truth, predicted), 0.75)
    assert (at.true_positives, at.false_positives, at.false_negatives) == (1, 1, 1)
    assert at.average_precision == pytest.approx(1 / 3)
    assert at.panoptic_quality == pytest.approx(0.8 * 0.5)
    assert detect(overlaps(truth, predicted), 0.85).panoptic_quality == 0


def test_the_best_pairs_are_not_the_greedy_ones():
    # taking the best pair first (true 1 with predicted 2, Dice .8) leaves true 2 with nothing
    truth = line((1, 10), (2, 10))
    predicted = line((1, 4), (2, 6 + 10))
    pairs = match_by_dice(overlaps(truth, predicted))
    assert dict(zip(pairs.truth_M, pairs.predicted_M, strict=True)) == {1: 1, 2: 2}
    assert pairs.score_M == pytest.approx([8 / 14, 20 / 26])


def test_splits_and_merges_are_counted_once_a_cell():
    truth = line((1, 30), (2, 10), (3, 10), (4, 10))
    predicted = line((1, 10), (2, 10), (3, 10), (4, 20), (5, 10))
    found = overlaps(truth, predicted)
    assert (count_splits(found), count_merges(found)) == (1, 1)


def test_a_crumb_makes_no_split():
    truth = line((1, 100))
    assert count_splits(overlaps(truth, line((1, 91), (2, 9)))) == 0
    assert count_splits(overlaps(truth, line((1, 90), (2, 10)))) == 1


def test_without_cells_there_is_no_score():
    nothing = overlaps(np.zeros((2, 3, 4), int), np.zeros((2, 3, 4), int))
    assert np.isnan(match_by_dice(nothing).unmatched_as_zero)
    assert np.isnan(detect(nothing).average_precision)
    assert count_splits(nothing) == 0
    missed = overlaps(np.ones((2, 3, 4), int), np.zeros((2, 3, 4), int))
    assert match_by_dice(missed).unmatched_as_zero == 0
    assert np.isnan(match_by_dice(missed).matched_only)
    assert detect(missed).average_precision == detect(missed).panoptic_quality == 0


def test_what_are_no_labels_is_refused():
    with pytest.raises(ValueError, match="of one shape"):
        overlaps(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="0 or larger"):
        overlaps(np.array([-1, 0]), np.array([0, 1]))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5))
def test_no_other_pairs_have_more_dice(seed, n_truth, n_predicted):
    found = overlaps(random_labels(seed, n_truth), random_labels(seed + 1, n_predicted))
    dice = found.dice_TP if len(found.truth_T) <= len(found.predicted_P) else found.dice_TP.T
    best = max(
        sum(dice[i, j] for i, j in enumerate(chosen)) for chosen in permutations(range(dice.shape[1]), dice.shape[0])
    )
    assert match_by_dice(found).score_M.sum() == pytest.approx(best)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 8), st.floats(0, 0.4), st.sampled_from([0.5001, 0.7001]))
def test_quality_agrees_with_monai(seed, cells, noise, threshold):
    # thresholds that no IoU hits: MONAI leaves out a pair on the threshold, StarDist (and this) counts it
    rng = np.random.default_rng(seed)
    truth = random_labels(seed, cells)[0]
    changed = rng.random(truth.shape) < noise
    predicted = np.where(changed, rng.integers(0, cells + 1, truth.shape), truth)
    ours = detect(overlaps(truth, predicted), threshold)
    theirs = compute_panoptic_quality(
        torch.as_tensor(predicted), torch.as_tensor(truth), metric_name="pq", match_iou_threshold=threshold,
        output_confusion_matrix=True,
    )  # fmt: skip
    tp, fp, fn, iou = (float(v) for v in theirs)
    assert (ours.true_positives, ours.false_positives, ours.false_negatives) == (tp, fp, fn)
    if tp:
        assert ours.segmentation_quality == pytest.approx(iou / tp, rel=1e-4)
