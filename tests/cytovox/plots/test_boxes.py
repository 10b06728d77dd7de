"""Boxes end where their captions say."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cytovox.plots.charts import _draw_box
from cytovox.plots.time_series import _draw_boxes

#: An outlier on either side of four values close together.
VALUES = np.array([-50.0, 1.0, 2.0, 3.0, 4.0, 100.0])


def axes():
    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def ends(ax):
    heights = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines])
    return heights.min(), heights.max()


def test_whiskers_of_first_and_last_values_end_at_the_smallest_and_the_largest():
    ax = axes()
    _draw_boxes(ax, VALUES[None], 0.0, "black")
    assert ends(ax) == (-50, 100)


@pytest.mark.parametrize(("largest", "end"), [(149.0, 149.0), (151.0, 99.0)])
def test_whiskers_of_dice_end_at_the_last_case_within_one_and_a_half_boxes(largest, end):
    values = np.arange(101.0)  # quartiles 25 and 75
    values[-1] = largest
    ax = axes()
    _draw_box(ax, 0, values, "black")
    assert ends(ax) == (0, end)
