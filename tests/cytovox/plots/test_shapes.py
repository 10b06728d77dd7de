"""Shaded shapes by their silhouettes; galleries and charts by their content. Their appearance is not tested."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cytovox.metrics.reliability import Reliability
from cytovox.plots.charts import MODEL_COLOURS, reliability_figure
from cytovox.plots.figures import MAX_BYTES
from cytovox.plots.shading import shaded
from cytovox.plots.shapes import SAMPLE_COLOUR, TRUTH_COLOUR, GalleryCell, gallery_figure


def ball(radius: float, n: int = 32) -> np.ndarray:
    z, y, x = np.indices((n, n, n)) - (n - 1) / 2
    return z**2 + y**2 + x**2 <= radius**2


def pixels_near(path: Path, colour: str, tolerance: int = 6) -> int:
    rgb = np.asarray(Image.open(path).convert("RGB")).astype(int)
    target = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(rgb - target).max(axis=-1) <= tolerance).sum())


@pytest.mark.parametrize("tilt", [0.0, 50.0, 90.0])
def test_a_ball_is_drawn_as_a_disc_lit_from_the_upper_left(tilt: float):
    picture = shaded(ball(10), "#ffffff", tilt=tilt, scale=2)
    inside = picture[..., 3] > 0
    assert inside.sum() == pytest.approx(math.pi * 20**2, rel=0.04)
    rows, columns = np.nonzero(inside)
    middle = [(n - 1) / 2 for n in inside.shape]
    assert [rows.mean(), columns.mean()] == pytest.approx(middle, abs=0.6)
    row, column = (int(at) for at in middle)
    assert picture[row - 8, column - 8, 0] > picture[row + 8, column + 8, 0] + 0.3


def test_the_top_view_shows_the_outline_and_the_side_view_the_height():
    obj = np.zeros((24, 32, 32), bool)
    obj[4:8, 6:26, 10:22] = True  # z low, 20 long in y, 12 wide in x
    down, side = (shaded(obj, "grey", tilt=tilt, scale=1)[..., 3] > 0 for tilt in (0, 90))
    # the smoothing rounds corners off
    assert [np.ptp(at) + 1 for at in np.nonzero(down)] == [20, 12]
    assert [np.ptp(at) + 1 for at in np.nonzero(side)] == [4, 12]
    assert np.nonzero(side)[0].mean() > side.shape[0] / 2  # low in z is low in the picture


def test_an_empty_object_draws_nothing():
    assert not shaded(np.zeros((8, 8, 8), bool), "grey").any()


@pytest.fixture
def cell() -> GalleryCell:
    samples = np.stack([ball(9), ball(9), ball(12)])
    return GalleryCell("cells $1 & <b>", ball(10)[16] * 200, ball(10)[16], samples, ball(10))


def test_a_gallery_shows_truth_samples_and_their_disagreement_in_a_small_file(tmp_path: Path, cell: GalleryCell):
    path = gallery_figure(tmp_path / "a.png", [cell])
    assert path.stat().st_size < MAX_BYTES
    assert pixels_near(path, TRUTH_COLOUR) > 1000
    assert pixels_near(path, SAMPLE_COLOUR) > 3 * 1000
    brightest = "#fcfdbf"  # of magma: a thickness that differs most
    same = GalleryCell(cell.name, cell.image_YX, cell.mask_YX, cell.samples_SZYX[:2], cell.truth_ZYX)
    agreed = gallery_figure(tmp_path / "b.png", [same])
    assert pixels_near(path, brightest) > pixels_near(agreed, brightest) + 100
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_without_truth_or_with_one_prediction_the_gallery_is_narrower(tmp_path: Path, cell: GalleryCell):
    blind = GalleryCell(cell.name, cell.image_YX, cell.mask_YX, cell.samples_SZYX)
    single = GalleryCell(cell.name, cell.image_YX, cell.mask_YX, cell.samples_SZYX[:1], cell.truth_ZYX)
    no_truth, one, two_cells = (
        Image.open(gallery_figure(tmp_path / f"{k}.png", cells)).size
        for k, cells in enumerate(([blind], [single], [single, single]))
    )
    # image, three samples and their disagreement; image, truth and prediction
    assert no_truth[0] > 1.4 * one[0]
    assert two_cells[0] == one[0]
    assert two_cells[1] > 1.7 * one[1]
    assert pixels_near(tmp_path / "1.png", TRUTH_COLOUR) > 1000 > 3 * pixels_near(tmp_path / "0.png", TRUTH_COLOUR)


def test_an_empty_prediction_and_an_empty_mask_are_drawn_as_nothing(tmp_path: Path):
    nothing = np.zeros((16, 16, 16), bool)
    path = gallery_figure(tmp_path / "a.png", [GalleryCell("empty", np.zeros((16, 16)), nothing[0], nothing[None])])
    assert pixels_near(path, SAMPLE_COLOUR) < 300  # the legend's
    with pytest.raises(ValueError, match="no cell"):
        gallery_figure(tmp_path / "b.png", [])


def test_a_reliability_diagram_draws_the_models_that_saw_voxels(tmp_path: Path):
    probability = np.random.default_rng(0).random((8, 16, 16))
    filled = Reliability()
    filled.add(probability, probability > 0.5)
    path = reliability_figure(tmp_path / "a.png", {"model": filled, "unused": Reliability()})
    assert path is not None
    assert pixels_near(path, MODEL_COLOURS[0]) > 300
    assert pixels_near(path, MODEL_COLOURS[1]) == 0
    assert reliability_figure(tmp_path / "b.png", {"unused": Reliability()}) is None
