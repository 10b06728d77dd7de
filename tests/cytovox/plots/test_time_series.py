"""Curves and boxes as drawn: what stands on the axes is read back from the figure."""

import numpy as np
import pytest

from cytovox.plots import time_series
from cytovox.plots.time_series import Panel, boxes_figure, curves_figure

NAN = float("nan")


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were saved."""
    figures = []
    save = time_series.save_figure

    def keep(figure, path):
        figures.append(figure)
        return save(figure, path)

    monkeypatch.setattr(time_series, "save_figure", keep)
    return figures


def test_whiskers_reach_from_minimum_to_maximum_and_boxes_are_quartiles(drawn, tmp_path):
    values = np.array([[1.0, 10], [2, 20], [3, 30], [4, 40], [100, 500]])  # far beyond 1.5 times the quartiles
    assert boxes_figure(tmp_path / "b.png", [Panel("x", {"a": values}, (0.0, 60.0))]).is_file()
    (ax,) = drawn[0].axes
    whole = [line.get_ydata() for line in ax.lines if len(line.get_ydata()) == 2]
    for column in values.T:
        low, middle, high = np.percentile(column, [25, 50, 75])
        assert any(np.array_equal(y, [low, column.min()]) for y in whole)
        assert any(np.array_equal(y, [high, column.max()]) for y in whole)
        assert any(np.array_equal(y, [middle, middle]) for y in whole)
        points = np.concatenate([c.get_offsets()[:, 1] for c in ax.collections])
        assert set(column) <= set(points)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a\nfirst, last\nn = 5"]


def test_boxes_are_of_cells_with_both_ends_of_the_window(drawn, tmp_path):
    values = np.array([[1.0, 2, 3], [1, 2, NAN], [1, NAN, 9]])
    for cohort, n in (("complete", 1), ("available", 2)):
        boxes_figure(tmp_path / "b.png", [Panel("x", {"a": values}, (0.0, 1, 2), cohort)])
        assert f"n = {n}" in drawn[-1].axes[0].get_xticklabels()[0].get_text()


def test_one_time_point_is_one_box_and_no_curve(drawn, tmp_path):
    panel = Panel("x", {"a": np.array([[1.0], [3.0]])}, (0.0,))
    assert curves_figure(tmp_path / "c.png", [panel], False) is None
    assert boxes_figure(tmp_path / "b.png", [panel]) is not None
    assert drawn[0].axes[0].get_xticklabels()[0].get_text() == "a\n\nn = 2"
    assert boxes_figure(tmp_path / "d.png", [Panel("x", {}, ())]) is None
    assert not (tmp_path / "d.png").exists()


def test_the_number_of_cells_stands_below_every_time_point(drawn, tmp_path):
    values = np.array([[1.0, 2, 3], [2, 3, NAN], [3, NAN, NAN]])
    groups = {"a": values, "b": values[:1]}
    curves_figure(tmp_path / "c.png", [Panel("x", groups, (0.0, 3600, 7200), "available")], False)
    (ax,) = drawn[0].axes
    counts = [(text.xy[0], text.get_text()) for text in ax.texts if text.get_text() != "n"]
    assert counts == [(0, "3"), (1, "2"), (2, "1"), (0, "1"), (1, "1"), (2, "1")]
    assert ax.get_xlabel() == "hours"
    thick = [line for line in ax.lines if line.get_linewidth() == 2]
    np.testing.assert_allclose(thick[0].get_ydata(), [2, 3, 4])  # every cell grows by 1 a step


def test_only_the_cohort_is_drawn(drawn, tmp_path):
    values = np.array([[1.0, 2], [5, NAN]])
    curves_figure(tmp_path / "c.png", [Panel("x", {"a": values}, (0.0, 1.0), "complete")], True)
    (ax,) = drawn[0].axes
    assert len([line for line in ax.lines if line.get_linewidth() < 1]) == 1
    assert ax.get_xlabel() == "frame"


def test_of_many_time_points_the_number_stands_where_it_changes(drawn, tmp_path):
    values = np.ones((2, 40))
    values[1, 25:] = NAN
    curves_figure(tmp_path / "c.png", [Panel("x", {"a": values}, range(40), "available")], True)
    counts = [(text.xy[0], text.get_text()) for text in drawn[0].axes[0].texts if text.get_text() != "n"]
    assert counts == [(0, "2"), (25, "1"), (39, "1")]
