"""Tracks of cells whose true tracks are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.tracking.tracking import Detection, TrackingRules, track_cells


def seen(frame, label, y, x, volume=1000.0, z=5.0):
    return Detection(frame, label, (z, y, x), volume)


def test_two_cells_that_pass_keep_their_tracks_whatever_their_labels():
    time_lapse = [seen(t, 1 + (t % 2), 0, 3 * t) for t in range(6)] + [
        seen(t, 2 - (t % 2), 30, 3 * t) for t in range(6)
    ]
    found = track_cells(time_lapse)
    assert len(found.tracks) == 2
    for t in range(6):
        assert found.track_of[(t, 1 + (t % 2))] == found.track_of[(0, 1)]


def test_a_gap_is_closed_and_counted():
    time_lapse = [seen(t, 1, 0, t) for t in (0, 1, 3, 4)]
    (track,) = track_cells([*time_lapse, seen(2, 9, 90, 90)]).tracks[:1]
    assert (track.first_frame, track.last_frame, track.detections) == (0, 4, 4)
    cut = track_cells([*time_lapse, seen(2, 9, 90, 90)], TrackingRules(max_gap=0))
    assert [one.detections for one in cut.tracks] == [2, 1, 2]


def test_a_frame_in_which_nobody_was_seen_is_a_gap():
    found = track_cells([seen(t, 1, 0, t) for t in (0, 1, 3)])
    assert [one.detections for one in found.tracks] == [3]


DIVIDING = TrackingRules(divisions=True)


def mother_and(*daughters, neighbours=(), frames=3):
    """A cell of 1000 µm³ for three frames, then (volume, y) daughters; and neighbours that are always there."""
    time_lapse = [seen(t, 1, 0, 0) for t in range(3)]
    time_lapse += [seen(t, k, y, 0, v) for t in range(3, 3 + frames) for k, (v, y) in enumerate(daughters, start=1)]
    return time_lapse + [seen(t, 90 + k, y, 0, v) for t in range(3 + frames) for k, (v, y) in enumerate(neighbours)]


def test_a_division_makes_two_daughters_of_one_mother():
    time_lapse = mother_and((500, -4), (500, 4))
    found = track_cells(time_lapse, DIVIDING)
    assert [(one.parent, one.divided, one.lineage) for one in found.tracks] == [
        (None, True, 1), (1, False, 1), (1, False, 1),
    ]  # fmt: skip
    assert [(one.first_frame, one.last_frame, one.detections) for one in found.tracks] == [
        (0, 2, 3),
        (3, 5, 3),
        (3, 5, 3),
    ]
    without = track_cells(time_lapse)  # divisions are off unless asked for
    assert [(one.parent, one.lineage) for one in without.tracks] == [(None, 1), (None, 2)]


def test_a_speck_beside_a_cell_ends_no_track():
    found = track_cells(mother_and((1000, 0), (25, 9)), DIVIDING)
    assert [one.detections for one in found.tracks] == [6, 3]
    assert not any(one.divided for one in found.tracks)
    assert [one.lineage for one in found.tracks] == [1, 2]


@pytest.mark.parametrize(
    ("volumes", "divides"),
    [
        ((500, 500), True),
        ((260, 500), True),  # each at least a quarter of the mother
        ((240, 470), False),
        ((740, 500), True),  # at most three quarters
        ((760, 500), False),
        ((352, 352), True),  # both at least 0.7 of her
        ((348, 348), False),
        ((698, 698), True),  # and at most 1.4
        ((702, 702), False),
        ((335, 665), True),  # neither more than twice the other
        ((325, 665), False),
    ],
)
def test_daughters_have_plausible_sizes(volumes, divides):
    time_lapse = mother_and(*zip(volumes, (-4, 4), strict=True))
    assert any(one.divided for one in track_cells(time_lapse, DIVIDING).tracks) == divides


@pytest.mark.parametrize(("away", "divides"), [(14.9, True), (15.1, False)])
def test_daughters_lie_within_the_distance(away, divides):
    time_lapse = mother_and((500, 0), (500, away))
    assert any(one.divided for one in track_cells(time_lapse, DIVIDING).tracks) == divides
    assert (
        any(one.divided for one in track_cells(time_lapse, TrackingRules(divisions=True, max_distance_um=14)).tracks)
        is False
    )


def test_a_mask_that_falls_in_two_for_one_frame_is_no_division():
    time_lapse = mother_and((500, -4), (500, 4), frames=1) + [seen(t, 1, 0, 0, 901) for t in (4, 5)]
    assert not any(one.divided for one in track_cells(time_lapse, DIVIDING).tracks)
    grown = mother_and((500, -4), (500, 4), frames=1) + [seen(4, k, y, 0, 899) for k, y in ((1, -4), (2, 4))]
    assert any(one.divided for one in track_cells(grown, DIVIDING).tracks)


def test_a_division_beside_a_neighbour_leaves_the_neighbour_alone():
    time_lapse = mother_and((480, -5), (520, 5), neighbours=[(1000, 14), (500, -14)])
    found = track_cells(time_lapse, DIVIDING)
    assert sorted(one.detections for one in found.tracks) == [3, 3, 3, 6, 6]
    mother = found.track_of[(0, 1)]
    assert {one.parent for one in found.tracks} == {None, mother}
    assert [found.track_of[(t, 90)] for t in range(6)] == [found.track_of[(0, 90)]] * 6
    # a neighbour that comes into the field is no daughter of a cell that stays as it is
    comes = mother_and((1000, 0), neighbours=[]) + [seen(t, 7, 12, 0, 500) for t in (3, 4, 5)]
    assert not any(one.divided for one in track_cells(comes, DIVIDING).tracks)


@pytest.mark.parametrize("missing", [{1}, {2}, {1, 2}])
def test_a_division_with_a_gap_is_found(missing):
    time_lapse = [one for one in mother_and((500, -4), (500, 4)) if not (one.frame == 3 and one.label in missing)]
    found = track_cells(time_lapse, DIVIDING)
    assert [one.divided for one in found.tracks] == [True, False, False]
    assert {one.lineage for one in found.tracks} == {1}
    closed = track_cells(time_lapse, TrackingRules(divisions=True, max_gap=0))
    assert not any(one.divided for one in closed.tracks)


def test_daughters_divide_in_their_turn_and_stay_of_one_lineage():
    time_lapse = mother_and((500, -8), (500, 8)) + [
        seen(t, k, y, 0, 250) for t in (6, 7) for k, y in ((1, -11), (2, -5), (3, 5), (4, 11))
    ]
    found = track_cells(time_lapse, DIVIDING)
    assert len(found.tracks) == 7
    assert {one.lineage for one in found.tracks} == {1}
    assert sum(one.divided for one in found.tracks) == 3


def test_two_cells_that_divide_at_once_share_no_daughter():
    def pair(y):
        return [seen(t, int(y), y, 0) for t in range(3)] + [
            seen(t, int(y) + k, y + way, 0, 500) for t in range(3, 5) for k, way in ((0, -3), (1, 3))
        ]

    found = track_cells(pair(10) + pair(20), DIVIDING)
    assert [one.parent for one in found.tracks] == [None, None, 1, 1, 2, 2]


def test_nobody_is_no_track():
    assert track_cells([]).tracks == []


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 6))
def test_every_sighting_is_in_one_track_and_far_cells_are_never_mixed_up(seed, cells, frames):
    rng = np.random.default_rng(seed)
    time_lapse = [
        seen(t, int(label) + 1, 100.0 * k + rng.normal(), rng.normal())
        for t in range(frames)
        for k, label in enumerate(rng.permutation(cells))
    ]
    truth = {(one.frame, one.label): round(one.position_um[1] / 100) for one in time_lapse}
    found = track_cells(time_lapse)
    assert set(found.track_of) == set(truth)
    assert len(found.tracks) == cells
    assert len({(found.track_of[key], cell) for key, cell in truth.items()}) == cells


def test_the_order_of_sightings_does_not_matter():
    time_lapse = [seen(t, k, 20 * k, t) for t in range(4) for k in (1, 2, 3)]
    assert track_cells(time_lapse) == track_cells(time_lapse[::-1])


def test_a_cell_that_leaps_is_another_cell():
    assert len(track_cells([seen(0, 1, 0, 0), seen(1, 1, 0, 40)]).tracks) == 2
    assert len(track_cells([seen(0, 1, 0, 0), seen(1, 1, 0, 40)], TrackingRules(max_distance_um=50)).tracks) == 1


@pytest.mark.parametrize("frame", [0, 7])
def test_one_frame_is_one_track_a_cell(frame):
    assert [one.track for one in track_cells([seen(frame, 4, 0, 0), seen(frame, 2, 50, 0)]).tracks] == [1, 2]
