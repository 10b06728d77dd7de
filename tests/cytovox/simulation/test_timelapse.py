"""Simulated time-lapses: first frame, labels over time, and effects of treatments."""

import numpy as np
import pytest

from cytovox.errors import InputError
from cytovox.io import read_volume
from cytovox.simulation import PRESETS, Options, simulate, time_lapse
from cytovox.simulation.__main__ import main
from cytovox.simulation.cells import Grid, grow
from cytovox.simulation.draw import draw_scene
from cytovox.simulation.optics import Optics
from cytovox.simulation.timelapse import RESPONSES, Response, TimeLapse, _merge_touching

SHAPE, SPACING = (36, 90, 90), (0.4, 0.4, 0.4)
QUICK = Options(optics=Optics(illuminations=8, rounds=0), noise_ri=(0, 0))
GRID = Grid.around(SHAPE, SPACING, (0, 0, 0))


def simulated(response, seed=5, preset="RAW264.7"):
    extent = tuple(n * s for n, s in zip(SHAPE, SPACING, strict=True))
    return TimeLapse.draw(draw_scene(PRESETS[preset], seed, extent), response)


def whole_cells(*grown):
    """Labels that are in all frames and touch no border."""
    kept = set.intersection(*(set(np.unique(g.cells_ZYX)) for g in grown)) - {0}
    for g in grown:
        sides = [g.cells_ZYX[:, [0, -1]], g.cells_ZYX[:, :, [0, -1]], g.cells_ZYX[[-1]]]
        kept -= {int(k) for side in sides for k in np.unique(side)}
    return sorted(kept)


def voxels(labels_ZYX, cells):
    return np.array([np.count_nonzero(labels_ZYX == k) for k in cells])


def test_without_noise_frame_0_equals_the_volume_of_the_seed():
    alone = simulate("RAW264.7", 5, (24, 48, 48), SPACING, QUICK)
    (frame,) = time_lapse("RAW264.7", 5, "control", [0.0], (24, 48, 48), SPACING, QUICK)
    assert np.array_equal(frame.cells_ZYX, alone.cells_ZYX)
    assert np.array_equal(frame.ri_true_ZYX, alone.ri_true_ZYX)
    assert np.array_equal(frame.ri_ZYX, alone.ri_ZYX)
    assert (frame.medium_ri, frame.name) == (alone.medium_ri, alone.name)


def test_each_frame_has_its_own_reproducible_noise():
    noisy = Options(optics=QUICK.optics, noise_ri=(0.001, 0.001))
    still = [list(time_lapse("HeLa", 2, "control", [0.0, 0.001], (16, 32, 32), SPACING, noisy)) for _ in range(2)]
    for one, two in zip(*still, strict=True):
        assert np.array_equal(one.ri_ZYX, two.ri_ZYX)
    first, second = still[0]
    assert np.array_equal(first.cells_ZYX, second.cells_ZYX)
    assert np.std(first.ri_ZYX - second.ri_ZYX) > 5e-4


def test_without_a_treatment_cells_move_and_keep_their_volume():
    output = simulated(Response("still", creep_um=1.5))
    before, after = (grow(output.scene(hours), GRID) for hours in (0.0, 3.0))
    cells = whole_cells(before, after)
    assert len(cells) >= 2
    assert voxels(after.cells_ZYX, cells) == pytest.approx(voxels(before.cells_ZYX, cells), rel=0.08)
    step = [
        np.linalg.norm((np.argwhere(after.nuclei_ZYX == k).mean(0) - np.argwhere(before.nuclei_ZYX == k).mean(0)) * 0.4)
        for k in cells
        if (before.nuclei_ZYX == k).any() and (after.nuclei_ZYX == k).any()
    ]
    assert 0.2 < np.median(step) < 4


def test_a_response_changes_volume_and_contrast_by_its_factors():
    output = simulated(Response("grows", volume=1.5, contrast=0.8, creep_um=0.0))
    before, after = (grow(output.scene(hours), GRID) for hours in (0.0, 8.0))
    cells = [k for k in whole_cells(before, after) if (before.nuclei_ZYX == k).any()]
    assert cells
    nuclei = voxels(after.nuclei_ZYX, cells) / voxels(before.nuclei_ZYX, cells)
    assert np.median(nuclei) == pytest.approx(1.5, rel=0.1)
    contrast = [
        [g.ri_ZYX[(g.nuclei_ZYX == k) & ~g.nucleolus_ZYX].mean() - output.start.medium_ri for k in cells]
        for g in (before, after)
    ]
    assert np.median(np.array(contrast[1]) / contrast[0]) == pytest.approx(0.8, abs=0.07)


def test_lps_adds_and_enlarges_droplets_and_nucleoli_level_off():
    output = simulated(RESPONSES["LPS"])
    scenes = [output.scene(hours) for hours in (0.0, 1.0, 4.0, 8.0)]

    def total(blobs):
        return sum(float(np.prod(b.semi_um)) for b in blobs)

    lipid = [sum(total(cell.droplets) for cell in scene.cells) for scene in scenes]
    assert lipid == sorted(lipid)
    assert lipid[-1] > 3 * lipid[0]
    nucleoli = [sum(total(cell.nucleus.nucleoli) for cell in scene.cells) for scene in scenes]
    assert nucleoli[1] / nucleoli[0] == pytest.approx(1.25**0.5)
    assert nucleoli[3] / nucleoli[2] < 1.02
    assert nucleoli[3] / nucleoli[0] == pytest.approx(1.25, rel=0.01)


def test_treated_and_control_cells_move_equally():
    moved = [simulated(RESPONSES[name]).scene(5.0).cells for name in ("control", "LPS")]
    for one, two in zip(*moved, strict=True):
        assert one.center_um == pytest.approx(two.center_um)


def test_droplets_that_touch_merge_and_keep_their_volume():
    one = simulated(RESPONSES["control"]).start.cells[0].nucleus.body

    def droplet(x, radius):
        return type(one)(np.array([2.0, 0.0, x]), np.full(3, radius), np.eye(3), 1.4, 0.05)

    merged = _merge_touching([droplet(0.0, 1.0), droplet(5.0, 1.0), droplet(1.5, 1.0)])
    assert sorted(float(b.semi_um[0]) for b in merged) == pytest.approx([1.0, 2 ** (1 / 3)])
    assert sorted(float(b.center_um[2]) for b in merged) == pytest.approx([0.75, 5.0])


@pytest.mark.parametrize(
    ("response", "times", "message"),
    [
        ("lps", [0.0], "known: control, LPS"),
        ("LPS", [], "increasing"),
        ("LPS", [0.0, 0.0], "increasing"),
        ("LPS", [-1.0], "increasing"),
    ],
)
def test_an_invalid_time_lapse_is_refused(response, times, message):
    with pytest.raises(InputError, match=message):
        next(time_lapse("HeLa", 1, response, times, (16, 32, 32), SPACING, QUICK))


def test_a_time_lapse_of_the_command_line_can_be_read(tmp_path):
    arguments = ["--preset", "RAW264.7", "--seed", "4", "--shape", "16", "32", "32", "--spacing", "0.4", "0.4", "0.4"]
    assert main([*arguments, "--film", "LPS", "--frames", "3", "--interval", "30", "--out", str(tmp_path)]) == 0
    movie = read_volume(tmp_path / "RAW264.7-00004-LPS.TCF")
    assert movie.shape == (3, 1, 16, 32, 32)
    assert movie.times_s == pytest.approx((0, 1800, 3600))
    cells = read_volume(tmp_path / "RAW264.7-00004-LPS_cells.ome.tif")
    masks = read_volume(tmp_path / "RAW264.7-00004-LPS_masks.ome.tif")
    assert masks.channels == ("membrane", "nucleus", "nucleolus", "lipid")
    for t, frame in enumerate(time_lapse("RAW264.7", 4, "LPS", [0.0, 1800.0, 3600.0], (16, 32, 32), (0.4, 0.4, 0.4))):
        assert np.array_equal(cells.frame(t, "cells"), frame.cells_ZYX)
        assert np.array_equal(masks.frame(t, "lipid") > 0, frame.masks["lipid"])
        assert movie.frame(t) == pytest.approx(frame.ri_ZYX, abs=6e-5)


def test_a_time_lapse_without_frames_is_refused_and_nothing_is_written(tmp_path, capsys):
    assert main(["--film", "LPS", "--frames", "0", "--out", str(tmp_path / "out")]) == 2
    assert "times_s []: expected increasing seconds" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
