"""Curves and changes of cells whose growth is known, some of which drop out; windows of time-lapses that differ."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cytovox.statistics.cohort import (
    FEW_CELLS,
    TOLERANCE,
    cohort_flag,
    cohort_members,
    common_window,
    curve,
    first_and_last,
)

NAN = float("nan")


@st.composite
def growing(draw):
    """Cells that all grow at every step, each seen at some of the time points."""
    cells, points = draw(st.integers(1, 8)), draw(st.integers(2, 6))
    steps = draw(hnp.arrays(float, (cells, points), elements=st.floats(0.1, 10)))
    start = draw(hnp.arrays(float, (cells, 1), elements=st.floats(0, 1000)))
    seen = draw(hnp.arrays(bool, (cells, points)))
    return np.where(seen, start + steps.cumsum(axis=1), NAN)


@pytest.mark.parametrize("cohort", ["complete", "available"])
@settings(max_examples=150, deadline=None)
@given(values=growing())
def test_the_curve_rises_if_every_cell_grows_whichever_cells_drop_out(values, cohort):
    means = np.array([point.mean for point in curve(values, range(values.shape[1]), cohort)])
    steps = np.diff(means)
    assert (steps[np.isfinite(steps)] > 0).all()
    if cohort == "complete" and np.isfinite(values).all(axis=1).any():
        assert np.isfinite(means).all()


def test_a_large_cell_that_drops_out_does_not_pull_the_curve_down():
    values = np.array([[100.0, 110.0, 121.0], [1000.0, 1100.0, NAN], [NAN, NAN, 50.0]])
    assert np.nanmean(values, axis=0)[2] < np.nanmean(values, axis=0)[0]  # what a mean of whoever is there would say
    complete = curve(values, [0, 60, 120], "complete")
    assert [(p.cells, p.step_cells, p.mean) for p in complete] == [(1, 1, 100), (1, 1, 110), (1, 1, 121)]
    available = curve(values, [0, 60, 120], "available")
    assert [(p.cells, p.step_cells) for p in available] == [(2, 2), (2, 2), (2, 1)]
    assert [p.mean for p in available] == pytest.approx([550, 605, 616])
    assert available[0].sd == pytest.approx(np.std([100, 1000], ddof=1))


def test_a_curve_stops_where_no_cell_is_seen_on_both_sides_of_a_step():
    values = np.array([[1.0, NAN, NAN], [NAN, 5.0, 6.0]])
    means = [p.mean for p in curve(values, [0, 1, 2], "available")]
    assert means[0] == 1
    assert np.isnan(means[1:]).all()
    assert all(np.isnan(p.mean) and p.cells == 0 for p in curve(values, [0, 1, 2], "complete"))


def test_with_every_cell_there_both_cohorts_are_the_plain_mean():
    values = np.random.default_rng(0).normal(size=(5, 4))
    for cohort in ("complete", "available"):
        found = curve(values, range(4), cohort)
        np.testing.assert_allclose([p.mean for p in found], values.mean(axis=0))
        np.testing.assert_allclose([p.sd for p in found], values.std(axis=0, ddof=1))
        assert [p.cells for p in found] == [5] * 4


def test_a_change_is_between_the_windows_ends_never_between_a_cells_own():
    values = np.array([[1.0, 2.0, 4.0], [1.0, 2.0, NAN], [NAN, 2.0, 4.0], [1.0, NAN, 5.0]])
    np.testing.assert_array_equal(first_and_last(values, "complete"), [[1, 4], [NAN, NAN], [NAN, NAN], [NAN, NAN]])
    np.testing.assert_array_equal(first_and_last(values, "available"), [[1, 4], [NAN, NAN], [NAN, NAN], [1, 5]])
    assert cohort_members(values, "complete").tolist() == [True, False, False, False]
    assert cohort_members(values, "available").all()


def test_small_cohorts_are_flagged():
    assert cohort_flag(0, 12, "complete").startswith("none of 12 cells with a value at every")
    assert cohort_flag(5, 12, "complete").startswith("only 5 of 12")
    assert cohort_flag(FEW_CELLS - 1, FEW_CELLS - 1, "available").startswith("only 2 of 2")
    assert cohort_flag(6, 12, "complete") == ""


def test_time_lapses_of_one_kind_share_all_points_although_their_stamps_differ_a_little():
    window = common_window({"a": [0.0, 1800, 3600], "b": [2.0, 1803, 3605]})
    assert window.points == (1.0, 1801.5, 3602.5)
    assert window.frames == {"a": (0, 1, 2), "b": (0, 1, 2)}
    assert window.spread == 2.5
    assert not window.left_out
    assert not window.shortened
    assert window.describe() == "0 to 1 h (3 time points)"


def test_a_shorter_time_lapse_shortens_the_window_and_it_is_said_which_are_longer():
    window = common_window({"long": [0.0, 3600, 7200, 10800], "short": [0.0, 3600]})
    assert window.points == (0.0, 3600.0)
    assert list(window.shortened) == ["long"]
    asked = common_window({"long": [0.0, 3600, 7200, 10800], "short": [0.0, 3600]}, (0, 10800))
    assert asked.points == (0.0, 3600.0, 7200.0, 10800.0)
    assert list(asked.left_out) == ["short"]


def test_intervals_that_differ_meet_at_their_common_times_only():
    window = common_window({"a": 60.0 * np.arange(0, 121, 30), "b": 60.0 * np.arange(0, 121, 20)})
    assert window.points == (0.0, 3600.0, 7200.0)
    assert window.frames == {"a": (0, 2, 4), "b": (0, 3, 6)}


def test_frames_of_one_point_are_near_each_other_not_only_near_a_third():
    window = common_window({"a": [0.0, 1000, 2000], "b": [0.0, 1200, 2000], "c": [0.0, 800, 2000]})
    assert len(window.points) == 2


@pytest.mark.parametrize(("off", "same"), [(0.99, True), (1.01, False)])
def test_frames_within_a_quarter_of_the_shortest_interval_are_one_time_point(off, same):
    late = 250 * off
    window = common_window({"a": [0.0, 1000, 2000], "b": [0.0, 1000 + late, 2000]})
    assert len(window.points) == (3 if same else 2)


def test_frames_are_counted_only_where_no_file_has_time_stamps():
    both = common_window({"a": 3, "b": 4})
    assert both.in_frames
    assert both.points == (0.0, 1.0, 2.0)
    assert both.describe() == "frames 0 to 2 (3 time points)"
    mixed = common_window({"a": 3, "b": [0.0, 60, 120]})
    assert not mixed.in_frames
    assert "no time stamps" in mixed.left_out["a"]
    assert list(mixed.frames) == ["b"]


def test_single_frames_are_compared_among_themselves_and_left_out_beside_time_lapses():
    assert common_window({"a": 1, "b": [5.0]}).frames == {"a": (0,), "b": (0,)}
    assert list(common_window({"a": 1, "b": [0.0, 60.0]}).left_out) == ["a"]
    assert common_window({}).points == ()


def test_time_lapses_that_do_not_overlap_have_no_window():
    window = common_window({"a": [0.0, 60], "b": [6000.0, 6060]})
    assert window.points == ()
    assert window.describe() == "none"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 100), st.lists(st.floats(1, 100), min_size=1, max_size=6)), min_size=1, max_size=4)
)
def test_points_rise_and_every_frame_is_near_its_point(axes):
    times = {str(k): np.cumsum([start, *steps]) for k, (start, steps) in enumerate(axes)}
    window = common_window(times)
    assert (np.diff(window.points) > 0).all()
    shortest = min(np.median(np.diff(axis)) for axis in times.values())
    for file, frames in window.frames.items():
        assert (np.diff(frames) > 0).all()
        assert (np.abs(times[file][list(frames)] - window.points) <= TOLERANCE * shortest + 1e-9).all()
