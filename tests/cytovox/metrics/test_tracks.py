"""Tracks whose scores can be counted by hand."""

import sys

import numpy as np
import pytest

from cytovox.errors import InputError
from cytovox.metrics.tracks import score_tracks


def time_lapse(*frames):
    return [np.repeat(np.array(frame, np.int32), 4).reshape(1, 1, -1) for frame in frames]


TRUTH = time_lapse([1, 2, 0], [1, 2, 0], [1, 2, 0], [1, 2, 0])


def test_without_motmetrics_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "motmetrics", None)
    with pytest.raises(InputError, match=r"pip install 'cytovox\[tracking\]'$") as error:
        score_tracks(TRUTH, TRUTH)
    assert (error.value.exit_code, "\n" in str(error.value)) == (2, False)


def test_the_truth_has_no_fault_whatever_its_labels():
    pytest.importorskip("motmetrics")
    for same in (TRUTH, time_lapse(*[[7, 3, 0]] * 4)):
        scores = score_tracks(TRUTH, same)
        assert (scores.idf1, scores.mota) == (1, 1)
        assert (scores.switches, scores.fragmentations, scores.misses, scores.false_positives) == (0, 0, 0, 0)


def test_tracks_that_swap_half_way_are_two_switches():
    pytest.importorskip("motmetrics")
    scores = score_tracks(TRUTH, time_lapse([1, 2, 0], [1, 2, 0], [2, 1, 0], [2, 1, 0]))
    assert scores.switches == 2
    assert scores.mota == pytest.approx(1 - 2 / 8)
    assert scores.idf1 == pytest.approx(0.5)


def test_a_missed_frame_is_a_miss_and_a_fragmentation_and_a_ghost_a_false_positive():
    pytest.importorskip("motmetrics")
    scores = score_tracks(TRUTH, time_lapse([1, 2, 0], [0, 2, 0], [1, 2, 9], [1, 2, 0]))
    assert (scores.misses, scores.fragmentations, scores.false_positives, scores.switches) == (1, 1, 1, 0)
    assert scores.mota == pytest.approx(1 - 2 / 8)


def test_time_lapses_of_another_length_are_refused():
    with pytest.raises(ValueError, match="time-lapses of one length"):
        score_tracks(TRUTH, TRUTH[:2])
