"""Figures: written, small, complete, and of the right plane. Their appearance is not tested."""

import sys

import numpy as np
import pytest
from PIL import Image

from cytovox.organelles import COLOURS, OTHER_COLOUR, in_order
from cytovox.plots.charts import curves_figure, dice_figure, read_curves
from cytovox.plots.figures import MAX_BYTES, informative_point, overlay_figure


def pixels_near(path, colour, tolerance=40):
    """How many pixels of a picture are about this colour."""
    rgb = np.asarray(Image.open(path).convert("RGB")).astype(int)
    target = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(rgb - target).max(axis=-1) <= tolerance).sum())


@pytest.fixture
def cell():
    z, y, x = np.indices((16, 40, 32))
    masks = {
        "membrane": ((z - 8) / 6) ** 2 + ((y - 20) / 16) ** 2 + ((x - 16) / 12) ** 2 < 1,
        "nucleus": ((z - 8) / 4) ** 2 + ((y - 20) / 7) ** 2 + ((x - 16) / 6) ** 2 < 1,
        "nucleolus": ((z - 8) / 2) ** 2 + ((y - 20) / 3) ** 2 + ((x - 16) / 3) ** 2 < 1,
        "lipid": ((z - 8) / 2) ** 2 + ((y - 10) / 2) ** 2 + ((x - 16) / 2) ** 2 < 1,
    }
    ri = 1.337 + 0.02 * masks["membrane"] + np.random.default_rng(0).normal(0, 1e-3, z.shape)
    return ri.astype(np.float32), masks


def test_an_overlay_shows_every_organelle_beside_its_truth_in_a_small_file(tmp_path, cell):
    ri, masks = cell
    with_truth = overlay_figure(tmp_path / "a.png", ri, masks, masks, (0.5, 0.2, 0.2), "case $1 & <b>")
    alone = overlay_figure(tmp_path / "b.png", ri, None, masks, (0.5, 0.2, 0.2))
    assert with_truth.stat().st_size < MAX_BYTES
    assert Image.open(with_truth).width > Image.open(alone).width
    for colour in COLOURS.values():
        assert pixels_near(with_truth, colour) > 1.3 * pixels_near(alone, colour) > 50
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_an_organelle_that_is_none_of_the_four_is_drawn_in_grey_after_them(tmp_path, cell):
    ri, masks = cell
    other = {"mitochondria": masks["nucleus"], "lipid": masks["lipid"]}
    assert in_order(["mitochondria", "lipid", "membrane", "lipid"]) == ["membrane", "lipid", "mitochondria"]
    without = overlay_figure(tmp_path / "a.png", ri, None, {"lipid": masks["lipid"]}, (0.5, 0.2, 0.2))
    path = overlay_figure(tmp_path / "b.png", ri, None, other, (0.5, 0.2, 0.2))
    assert pixels_near(path, OTHER_COLOUR, 4) > pixels_near(without, OTHER_COLOUR, 4) + 100


def test_panels_have_the_shape_of_the_cell_in_micrometres(tmp_path):
    z, y, x = np.indices((20, 30, 30))
    disc = ((y - 15) ** 2 + (x - 15) ** 2 < 100) & (abs(z - 10) < 5)  # 1 um voxels in plane, 2 um along z
    path = overlay_figure(tmp_path / "a.png", np.full(disc.shape, 1.337), None, {"nucleus": disc}, (2.0, 1.0, 1.0))
    rgb = np.asarray(Image.open(path).convert("RGB")).astype(int)
    outline = np.abs(rgb - (0xE6, 0x9F, 0)).max(axis=-1) < 30
    rows = np.flatnonzero(outline[:, : int(0.9 * rgb.shape[1])].any(axis=1))
    panels = [p for p in np.split(rows, np.flatnonzero(np.diff(rows) > 3) + 1) if len(p) > 30]
    heights = [p[-1] - p[0] for p in panels]
    assert heights[1] / heights[0] == pytest.approx(18 / 19, abs=0.05)  # 9 slices of 2 um under 19 voxels of 1 um


def test_nothing_lies_over_the_panels(tmp_path):
    whole = {"nucleus": np.ones((10, 20, 40), bool)}  # widest in xy and xz
    ri = np.full((10, 20, 40), 1.337)
    path = overlay_figure(tmp_path / "a.png", ri, whole, whole, (1.0, 1.0, 1.0))
    rgb = np.asarray(Image.open(path).convert("RGB")).astype(int)
    fill = np.array([0.3 * 0xE6, 0.3 * 0x9F, 0])  # over black
    row = np.abs(rgb[rgb.shape[0] // 5] - fill).max(axis=-1) < 25
    runs = np.diff(np.flatnonzero(np.diff(np.r_[0, row, 0])))[::2]
    truth, prediction = runs[runs > 30]
    assert abs(truth - prediction) <= 2


def test_noise_of_a_full_size_tomogram_still_makes_a_small_file(tmp_path):
    ri = np.random.default_rng(0).normal(1.35, 0.01, (20, 500, 500)).astype(np.float32)
    assert overlay_figure(tmp_path / "a.png", ri, {}, {}, (0.2, 0.1, 0.1)).stat().st_size < MAX_BYTES


def test_the_planes_go_through_the_organelles(cell):
    ri, masks = cell
    assert informative_point({}, {}, ri.shape) == (8, 20, 16)
    spot = np.zeros(ri.shape, bool)
    spot[3, 30, 5] = True
    empty = np.zeros(ri.shape, bool)
    assert informative_point({"lipid": spot, "nucleus": empty}, masks, ri.shape) == (3, 30, 5)
    assert informative_point({"nucleus": empty}, {"lipid": spot}, ri.shape) == (3, 30, 5)


def test_curves_are_means_by_epoch_and_a_torn_line_is_passed_over(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(
        "epoch,step,train/loss,val/loss,val/dice_mean\n0,0,2.0,,\n0,1,1.0,,\n0,1,,1.2,0.5\n1,2,0.8,,\n1,3,,nan,0.7\n2,4,0."
    )
    curves = read_curves(path)
    assert curves["train/loss"] == [(0, 1.5), (1, 0.8), (2, 0.0)]
    assert curves["val/loss"] == [(0, 1.2)]
    assert curves["val/dice_mean"] == [(0, 0.5), (1, 0.7)]
    assert Image.open(curves_figure(tmp_path / "c.png", path)).width > 500


def test_a_run_that_logged_nothing_has_no_curves(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,lr\n0,0,0.001\n")
    assert curves_figure(tmp_path / "c.png", path) is None
    path.write_text("")
    assert curves_figure(tmp_path / "c.png", path) is None
    assert not (tmp_path / "c.png").exists()


def test_the_dice_of_every_case_is_drawn_and_blanks_are_left_out(tmp_path):
    cases, windows = tmp_path / "test_cases.csv", tmp_path / "test_windows.csv"
    cases.write_text(
        "case,group,dice_membrane,dice_nucleus,dice_nucleolus,dice_lipid,dice_mean\n"
        "a,HeLa,0.9,0.8,,0.7,0.8\nb,HeLa,0.95,0.7,,,0.825\n"
    )
    windows.write_text("organelle,ri_low,ri_high,dice\nmembrane,1.34,inf,0.8\nnucleolus,,,\n")
    path = dice_figure(tmp_path / "d.png", cases, windows)
    assert pixels_near(path, COLOURS["membrane"]) > 20
    assert pixels_near(path, COLOURS["nucleolus"], tolerance=10) == 0
    cases.write_text("case,group,dice_mitochondria,dice_mean\na,HeLa,0.6,0.6\n")
    other = dice_figure(tmp_path / "o.png", cases)
    assert pixels_near(other, OTHER_COLOUR, tolerance=4) > 20
    cases.write_text("case,group,dice_mean\na,HeLa,\n")
    assert dice_figure(tmp_path / "e.png", cases) is None


def test_drawing_leaves_the_global_state_of_matplotlib_alone(tmp_path, cell):
    ri, masks = cell
    overlay_figure(tmp_path / "a.png", ri, None, masks, (0.5, 0.2, 0.2))
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
