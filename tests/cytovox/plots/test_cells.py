"""The figure of cells: both panels show the same place the same way up, and masks without contrast are hatched."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from cytovox.organelles import WHOLE
from cytovox.plots import cells

SHAPE, SPACING = (12, 20, 30), (0.5, 0.25, 0.25)
NUCLEI = np.zeros(SHAPE, bool)
NUCLEI[3:7, 4:7, 5:11] = True


@pytest.fixture
def drawn(monkeypatch):
    """Return a function that draws, and returns the figure instead of writing it."""
    figures: list[Figure] = []

    def keep(figure: Figure, path: Path) -> Path:
        figures.append(figure)
        return path

    def draw(**options) -> Figure:
        labels = np.zeros(SHAPE, np.int32)
        labels[2:8, 2:9, 3:14], labels[2:10, 11:18, 16:28] = 1, 2
        ri = 1.337 + 0.02 * (labels > 0).astype(np.float32)
        cells.cells_figure("a.png", ri, labels, SPACING, nuclei_ZYX=NUCLEI, **options)
        return figures[-1]

    monkeypatch.setattr(cells, "save_figure", keep)
    return draw


@pytest.mark.parametrize("doubtful", [(), {(1, "nucleus"), (2, WHOLE)}])
def test_both_panels_show_the_same_place_the_same_way_up(drawn, doubtful):
    figure = drawn(doubtful=doubtful)
    xy, xy_cells, xz, xz_cells = figure.axes
    for picture, labelled in ((xy, xy_cells), (xz, xz_cells)):
        assert picture.get_xlim() == labelled.get_xlim() == (0, 30 * 0.25)
        assert picture.get_ylim() == labelled.get_ylim()
    assert xy.get_ylim() == (20 * 0.25, 0)  # y downwards
    assert xz.get_ylim() == (0, 12 * 0.5)  # z upwards


def test_a_nucleus_is_outlined_where_it_is(drawn):
    _, axes, _, _ = drawn().axes
    (outline,) = [path.get_extents() for item in axes.collections for path in item.get_paths()]
    assert (outline.x0, outline.x1) == pytest.approx((5 * 0.25, 11 * 0.25), abs=0.13)
    assert (outline.y0, outline.y1) == pytest.approx((4 * 0.25, 7 * 0.25), abs=0.13)


def test_what_has_no_contrast_is_hatched(drawn):
    def hatches(figure: Figure) -> list[str]:
        return [
            pattern for item in figure.axes[1].collections for pattern in getattr(item, "hatches", [None]) if pattern
        ]

    assert hatches(drawn()) == []
    figure = drawn(doubtful={(1, "nucleus"), (2, WHOLE)})
    assert sorted(hatches(figure)) == ["//", "xxxx"]
    assert "hatched" in figure.axes[1].get_title()
