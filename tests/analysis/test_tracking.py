"""Tracks of cells whose true tracks are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.tracking import Sighting, TrackingRules, track_cells


def seen(frame, label, y, x, volume=1000.0, z=5.0):
    return Sighting(frame, label, (z, y, x), volume)


def test_two_cells_that_pass_keep_their_tracks_whatever_their_labels():
    film = [seen(t, 1 + (t % 2), 0, 3 * t) for t in range(6)] + [seen(t, 2 - (t % 2), 30, 3 * t) for t in range(6)]
    found = track_cells(film)
    assert len(found.tracks) == 2
    for t in range(6):
        assert found.track_of[(t, 1 + (t % 2))] == found.track_of[(0, 1)]


def test_a_gap_is_closed_and_counted():
    film = [seen(t, 1, 0, t) for t in (0, 1, 3, 4)]
    (track,) = track_cells([*film, seen(2, 9, 90, 90)]).tracks[:1]
    assert (track.first_frame, track.last_frame, track.sightings) == (0, 4, 4)
    cut = track_cells([*film, seen(2, 9, 90, 90)], TrackingRules(max_gap=0))
    assert [one.sightings for one in cut.tracks] == [2, 1, 2]


def test_a_frame_in_which_nobody_was_seen_is_a_gap():
    found = track_cells([seen(t, 1, 0, t) for t in (0, 1, 3)])
    assert [one.sightings for one in found.tracks] == [3]


def test_a_division_makes_two_daughters_of_one_mother():
    film = [seen(t, 1, 0, 0) for t in range(3)]
    film += [seen(t, 1, -4, 0, 500) for t in range(3, 6)] + [seen(t, 2, 4, 0, 500) for t in range(3, 6)]
    found = track_cells(film)
    assert [(one.parent, one.divided) for one in found.tracks] == [(None, True), (1, False), (1, False)]
    assert len(track_cells(film, TrackingRules(divisions=False)).tracks) == 2


def test_nobody_is_no_track():
    assert track_cells([]).tracks == []


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 6))
def test_every_sighting_is_in_one_track_and_far_cells_are_never_mixed_up(seed, cells, frames):
    rng = np.random.default_rng(seed)
    film = [
        seen(t, int(label) + 1, 100.0 * k + rng.normal(), rng.normal())
        for t in range(frames)
        for k, label in enumerate(rng.permutation(cells))
    ]
    truth = {(one.frame, one.label): round(one.position_um[1] / 100) for one in film}
    found = track_cells(film)
    assert set(found.track_of) == set(truth)
    assert len(found.tracks) == cells
    assert len({(found.track_of[key], cell) for key, cell in truth.items()}) == cells


def test_the_order_of_sightings_does_not_matter():
    film = [seen(t, k, 20 * k, t) for t in range(4) for k in (1, 2, 3)]
    assert track_cells(film) == track_cells(film[::-1])


def test_a_cell_that_leaps_is_another_cell():
    assert len(track_cells([seen(0, 1, 0, 0), seen(1, 1, 0, 40)]).tracks) == 2
    assert len(track_cells([seen(0, 1, 0, 0), seen(1, 1, 0, 40)], TrackingRules(max_distance_um=50)).tracks) == 1


@pytest.mark.parametrize("frame", [0, 7])
def test_one_frame_is_one_track_a_cell(frame):
    assert [one.track for one in track_cells([seen(frame, 4, 0, 0), seen(frame, 2, 50, 0)]).tracks] == [1, 2]
