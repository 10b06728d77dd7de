"""From tomograms and masks to tables: against the simulator's own truth, through kills, corrections and bad files."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trimesh

from cytovox.io import read_volume, write_nifti, write_ometiff
from cytovox.measurement.measurements import Rules, measure_frame
from cytovox.simulation.files import write_time_lapse
from cytovox.simulation.tomogram import Options
from experiments.tasks.analyze.state import FrameState

SHAPE, SPACING = (24, 64, 64), (0.6, 0.6, 0.6)
HOURS = (0.0, 7200.0, 14400.0)


@pytest.fixture(scope="module")
def time_lapses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two time-lapses of three frames, one a treatment, with masks and labels beside them."""
    folder = tmp_path_factory.mktemp("time_lapses")
    for response in ("control", "LPS"):
        write_time_lapse(folder, "RAW264.7", 7, response, HOURS, SHAPE, SPACING, Options(noise_ri=(0.0005, 0.0005)))
    return folder


def words(time_lapses: Path, out: Path, *more: str) -> list[str]:
    return [
        "analyze", f"inputs=[{time_lapses}/*.TCF]", f"organelles={time_lapses}/{{stem}}_masks.ome.tif",
        f"cells={time_lapses}/{{stem}}_cells.ome.tif", "groups=*-{group}.TCF", f"out={out}", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def done(cli, time_lapses, tmp_path_factory):
    out = tmp_path_factory.mktemp("done") / "run"
    answer = cli(*words(time_lapses, out, "border=include"))
    assert answer.code == 0, answer.err
    return answer


def tables(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "tables").iterdir())}


def test_given_masks_are_measured_and_every_number_is_the_truth(done, time_lapses):
    table = pd.read_parquet(done.run / "tables" / "cells.parquet")
    time_lapse = read_volume(time_lapses / "RAW264.7-00007-LPS.TCF")
    labels = read_volume(time_lapses / "RAW264.7-00007-LPS_cells.ome.tif")
    masks = read_volume(time_lapses / "RAW264.7-00007-LPS_masks.ome.tif")
    t = 2
    cells = labels.frame(t, "cells").astype(np.int32)
    known = {name: masks.frame(t, name) > 0 for name in masks.channels}
    truth = measure_frame(time_lapse.frame(t), cells, known, SPACING, Rules(1.337))
    rows = table[(table["file"] == "RAW264.7-00007-LPS") & (table["frame"] == t)]
    assert len(rows) == len(truth.compartments)
    for (_, row), wanted in zip(rows.iterrows(), truth.compartments, strict=True):
        assert (row["cell"], row["compartment"]) == (wanted["cell"], wanted["compartment"])
        for key in ("volume_um3", "surface_area_um2", "mean_ri", "concentration_g_per_ml", "dry_mass_pg"):
            np.testing.assert_allclose(row[key], wanted[key], equal_nan=True)
    assert set(rows["time_s"]) == {HOURS[t]}
    assert set(rows["group"]) == {"LPS"}
    assert set(rows["cells_from"]) == {"given"}


def test_tracks_are_the_simulators_own_cells(done):
    table = pd.read_csv(done.run / "tables" / "cells.csv")
    whole = table[(table["compartment"] == "cell") & (table["cell"] > 0)]
    for _, rows in whole.groupby(["file", "track"]):
        assert rows["cell"].nunique() == 1
    for _, rows in whole.groupby(["file", "cell"]):
        assert rows["track"].nunique() == 1


def test_groups_are_compared_and_lps_swells_the_cells(done):
    tests = pd.read_csv(done.run / "tables" / "tests.csv")
    own = tests[(tests["compartment"] == "cell") & (tests["quantity"] == "volume_um3")]
    (against,) = own[(own["against"] == "control") & (own["exclusions"] == "applied")]["effect"]
    assert against > 0
    assert own["assumes"].str.len().min() > 10
    for name in ("curves_cells.png", "boxes_cells.png", "lineage_RAW264.7-00007-LPS.png"):
        assert (done.run / "figures" / name).read_bytes().startswith(b"\x89PNG")


def test_the_report_tells_all_of_it(done):
    page = (done.run / "report.html").read_text()
    assert "Groups over time" in page
    assert page.count("<img") >= 6
    assert "medium 1.337 (file)" in page
    assert 'id="training"' not in page


def test_surfaces_lie_where_the_cells_do_and_enclose_their_volume(done):
    table = pd.read_csv(done.run / "tables" / "cells.csv")
    rows = table[(table["file"] == "RAW264.7-00007-LPS") & (table["frame"] == 0) & (table["compartment"] == "cell")]
    row = rows.loc[rows["volume_um3"].idxmax()]
    mesh = trimesh.load(done.run / "meshes" / row["file"] / f"t0000_cell{int(row['cell']):04d}_cell.ply")
    assert mesh.is_watertight
    assert abs(mesh.volume) == pytest.approx(row["volume_um3"], rel=0.05)
    assert mesh.center_mass == pytest.approx([row["x_um"], row["y_um"], row["z_um"]], abs=1.0)
    assert not list((done.run / "meshes" / row["file"]).glob("t0001*"))  # the first and last frame only


def test_the_same_command_does_nothing_again(cli, time_lapses, done):
    stamps = {path: path.stat().st_mtime_ns for path in (done.run / "predictions").iterdir()}
    before = tables(done.run)
    assert cli(*words(time_lapses, done.run, "border=include")).code == 0
    assert {path: path.stat().st_mtime_ns for path in (done.run / "predictions").iterdir()} == stamps
    assert tables(done.run) == before


@pytest.mark.slow
def test_the_same_question_has_one_folder_and_another_has_another(cli, time_lapses, tmp_path):
    asked = [word for word in words(time_lapses, tmp_path) if not word.startswith("out=")]
    first = cli(*asked, f"runs_dir={tmp_path}", "meshes=none").run
    assert cli(*asked, f"runs_dir={tmp_path}", "meshes=none").run == first
    assert cli(*asked, f"runs_dir={tmp_path}", "meshes=none", "measure.medium_ri=1.34").run != first
    assert cli(f"resume={first}").run == first


@pytest.mark.parametrize("after", [pytest.param(2, marks=pytest.mark.slow), 9])
def test_a_run_stopped_anywhere_goes_on_to_the_same_tables(cli, time_lapses, tmp_path, monkeypatch, after, done):
    calls = {"n": 0}
    save = FrameState.save

    def stopping(self, *args, **metadata):
        calls["n"] += 1
        if calls["n"] == after:
            raise KeyboardInterrupt
        save(self, *args, **metadata)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(FrameState, "save", stopping)
        assert cli(*words(time_lapses, out, "border=include", "workers=0")).code == 130
    assert cli(*words(time_lapses, out, "border=include", "workers=0")).code == 0
    assert tables(out) == tables(done.run)
    assert not list(out.rglob("probabilities_raw.npz"))  # only compressed ones are kept


@pytest.mark.slow
def test_ten_kills_at_random_moments_and_the_same_tables_byte_for_byte(process, time_lapses, tmp_path, done):
    rng, out = np.random.default_rng(0), tmp_path / "run"
    asked = words(time_lapses, out, "border=include", "workers=1")
    for _ in range(10):
        started = process(*asked, cwd=tmp_path)
        time.sleep(rng.uniform(4, 14))
        started.kill()
        started.communicate()
    started = process(*asked, cwd=tmp_path)
    _, err = started.communicate(timeout=1800)
    assert started.returncode == 0, err
    assert tables(out) == tables(done.run)
    assert not list(out.rglob(".part-*"))


def test_a_broken_file_does_not_stop_the_others_and_ends_with_three(cli, time_lapses, tmp_path):
    folder = tmp_path / "time_lapses"
    shutil.copytree(time_lapses, folder)
    broken = folder / "RAW264.7-00007-LPS.TCF"
    broken.write_bytes(broken.read_bytes()[:5000])
    answer = cli(*words(folder, tmp_path / "run", "meshes=none"))
    assert answer.code == 3
    assert "Traceback" not in answer.err
    assert any(str(broken) in line for line in answer.errors)
    files = pd.read_csv(tmp_path / "run" / "tables" / "files.csv").set_index("file")
    assert files.loc["RAW264.7-00007-LPS", "state"] == "broken"
    assert files.loc["RAW264.7-00007-control", "state"] == "done"
    assert "could not be analysed" in (tmp_path / "run" / "report.html").read_text()
    # fixed, the next call is whole
    shutil.copy(time_lapses / broken.name, broken)
    assert cli(*words(folder, tmp_path / "run", "meshes=none")).code == 0


@pytest.mark.slow
def test_a_correction_beside_the_prediction_wins_and_is_said(cli, time_lapses, tmp_path):
    out = tmp_path / "run"
    asked = words(time_lapses, out, "meshes=none", "border=include")
    assert cli(*asked).code == 0
    labels = read_volume(time_lapses / "RAW264.7-00007-LPS_cells.ome.tif").frame(1, "cells").astype(np.uint16)
    mine = np.where(labels == labels[labels > 0].min(), labels, 0)
    write_nifti(out / "predictions" / "RAW264.7-00007-LPS_t001_cells_corrected.nii.gz", mine, SPACING)
    assert cli(*asked).code == 0
    table = pd.read_csv(out / "tables" / "cells.csv")
    one = table[(table["file"] == "RAW264.7-00007-LPS") & (table["compartment"] == "cell")]
    assert set(one[one["frame"] == 1]["cells_from"]) == {"corrected"}
    assert one[one["frame"] == 1]["cell"].nunique() == 1
    assert set(one[one["frame"] == 0]["cells_from"]) == {"given"}
    # a corrected nucleus is measured, and the cells it was given stay
    nucleus = np.zeros(SHAPE, np.uint8)
    place = tuple(np.argwhere(mine)[0])
    nucleus[place] = 1
    write_nifti(out / "predictions" / "RAW264.7-00007-LPS_t001_nucleus_corrected.nii.gz", nucleus, SPACING)
    assert cli(*asked).code == 0
    table = pd.read_csv(out / "tables" / "cells.csv")
    row = table[(table["file"] == "RAW264.7-00007-LPS") & (table["frame"] == 1) & (table["compartment"] == "nucleus")]
    assert row["volume_um3"].sum() == pytest.approx(0.6**3)
    (out / "predictions" / "RAW264.7-00007-LPS_t001_cells_corrected.nii.gz").unlink()
    (out / "predictions" / "RAW264.7-00007-LPS_t001_nucleus_corrected.nii.gz").unlink()
    assert cli(*asked).code == 0
    assert "corrected" not in (out / "tables" / "cells.csv").read_text()


@pytest.mark.slow
def test_a_correction_of_another_grid_is_that_files_fault(cli, time_lapses, tmp_path):
    out = tmp_path / "run"
    asked = words(time_lapses, out, "meshes=none")
    assert cli(*asked).code == 0
    wrong = np.ones((8, 8, 8), np.uint8)
    write_nifti(out / "predictions" / "RAW264.7-00007-LPS_t001_cells_corrected.nii.gz", wrong, SPACING)
    answer = cli(*asked)
    assert answer.code == 3
    assert any("mask of shape (8, 8, 8)" in line for line in answer.errors)


def test_cells_are_found_where_none_are_given(cli, time_lapses, tmp_path):
    asked = [word for word in words(time_lapses, tmp_path / "run", "meshes=none") if not word.startswith("cells=")]
    assert cli(*asked, "method=watershed").code == 0
    table = pd.read_csv(tmp_path / "run" / "tables" / "cells.csv")
    whole = table[(table["compartment"] == "cell") & (table["cell"] > 0)]
    assert set(whole["cells_from"]) == {"predicted"}
    truth = read_volume(time_lapses / "RAW264.7-00007-control_cells.ome.tif").frame(0, "cells")
    first = whole[(whole["file"] == "RAW264.7-00007-control") & (whole["frame"] == 0)]
    assert 0.5 * (len(np.unique(truth)) - 1) <= len(first) <= len(np.unique(truth)) + 1
    # what no cell claims is a row of cell 0, never dropped
    assert (table["cell"] == 0).any()


def test_a_time_lapse_with_repeated_time_stamps_is_refused_without_an_interval(cli, tmp_path):
    rng = np.random.default_rng(0)
    time_lapse = (1.34 + 0.001 * rng.normal(size=(3, 1, 8, 16, 16))).astype(np.float32)
    write_ometiff(tmp_path / "a.ome.tif", time_lapse, SPACING, ["RI"], [0.0, 60.0, 60.0])
    masks = np.zeros((3, 2, 8, 16, 16), np.uint8)
    masks[:, :, 2:6, 4:12, 4:12] = 1
    write_ometiff(tmp_path / "a_masks.ome.tif", masks, SPACING, ["membrane", "nucleus"], [0.0, 60.0, 120.0])
    asked = [
        "analyze", f"inputs=[{tmp_path}/a.ome.tif]", f"organelles={tmp_path}/{{stem}}_masks.ome.tif",
        "method=watershed", f"out={tmp_path / 'run'}", "measure.medium_ri=1.337",
    ]  # fmt: skip
    answer = cli(*asked)
    assert answer.code == 3
    assert any("time stamps of frames 1 and 2" in line for line in answer.errors)
    assert cli(*asked, "interval_min=30").code == 0
    table = pd.read_csv(tmp_path / "run" / "tables" / "cells.csv")
    assert sorted(set(table["time_s"])) == [0.0, 1800.0, 3600.0]


def test_no_nucleus_is_said_and_the_membrane_is_not_dropped(cli, tmp_path):
    ri = np.full((1, 1, 8, 16, 16), 1.35, np.float32)
    ri += np.linspace(0, 0.01, 16, dtype=np.float32)
    write_ometiff(tmp_path / "a.ome.tif", ri, SPACING, ["RI"])
    masks = np.zeros((1, 2, 8, 16, 16), np.uint8)
    masks[:, 0, 2:6, 4:12, 4:12] = 1
    write_ometiff(tmp_path / "a_masks.ome.tif", masks, SPACING, ["membrane", "nucleus"])
    answer = cli(
        "analyze", f"inputs=[{tmp_path}/a.ome.tif]", f"organelles={tmp_path}/a_masks.ome.tif", "method=watershed",
        f"out={tmp_path / 'run'}",
    )  # fmt: skip
    assert answer.code == 0
    assert any("no nucleus" in line for line in answer.errors)
    assert any("measure.medium_ri" in line for line in answer.errors)  # the paper's medium was taken
    table = pd.read_csv(tmp_path / "run" / "tables" / "cells.csv")
    (row,) = table[table["cell"] == 0].to_dict("records")
    assert (row["compartment"], row["volume_um3"]) == ("membrane", pytest.approx(256 * 0.6**3))
    files = pd.read_csv(tmp_path / "run" / "tables" / "files.csv")
    assert files["unclaimed_um3"][0] == pytest.approx(256 * 0.6**3)


@pytest.mark.parametrize(
    ("change", "output"),
    [
        (["inputs=[]"], "inputs: nothing to analyse"),
        (["inputs=[nowhere/*.TCF]"], "no such file"),
        (["groups=*_{group}_x.TCF"], "do not match"),
        (["method=fst"], "method: expected one of offsets, network, watershed"),
        (["mesure.area=marching_cubes"], "did you mean measure"),
        (["measure.medium_ri=13.37"], "measure.medium_ri"),
        (["measure.lipid_ml_per_g=135"], "measure.lipid_ml_per_g"),
        (["track.max_gap=-1"], "track.max_gap"),
        (["interval_min=0"], "interval_min"),
        (["cell_weights=organelle", "cells=null"], "task organelle"),
        (["method=watershed", "cell_weights=cells_offsets", "cells=null"], "takes none"),
        (["--plan"], "--plan: not for task analyze"),
    ],
)
def test_bad_configs_are_refused_in_one_line(cli, time_lapses, tmp_path, change, output):
    answer = cli(*words(time_lapses, tmp_path / "run"), *change)
    assert answer.code == 2, answer.out
    assert "Traceback" not in answer.err
    assert any(output in line for line in answer.errors), answer.err
    assert not (tmp_path / "run" / "tables" / "cells.csv").exists()


def test_a_table_of_groups_that_names_no_file_tells_every_line(cli, time_lapses, tmp_path):
    groups = tmp_path / "groups.csv"
    groups.write_text("file,group\nRAW264.7-00007-LPS.TCF,LPS\nother.TCF,LPS\n")
    answer = cli(*words(time_lapses, tmp_path / "run"), f"groups={groups}")
    assert answer.code == 2
    assert any("line 3: other.TCF names no input" in line for line in answer.errors)
    assert any("no line for RAW264.7-00007-control.TCF" in line for line in answer.errors)


def test_another_process_in_the_folder_is_waited_for_by_nobody(cli, time_lapses, tmp_path):
    from filelock import FileLock

    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").write_text("task: analyze\n")
    (out / "status.json").write_text("{}\n")
    with FileLock(out / ".lock"):
        answer = cli(*words(time_lapses, out))
    assert answer.code == 2
    assert any("another process" in line for line in answer.errors)


@pytest.mark.slow
def test_what_lands_is_analysed_and_half_a_file_is_waited_for(process, time_lapses, tmp_path):
    landing, out = tmp_path / "landing", tmp_path / "run"
    landing.mkdir()
    asked = [
        "analyze", "--watch", str(landing), f"organelles={time_lapses}/{{stem}}_masks.ome.tif", f"out={out}",
        f"cells={time_lapses}/{{stem}}_cells.ome.tif", "meshes=none", "watch.every_s=0.2", "watch.settle_s=0.6",
        "watch.stop_after_min=0.25",
    ]  # fmt: skip
    first, second = time_lapses / "RAW264.7-00007-control.TCF", time_lapses / "RAW264.7-00007-LPS.TCF"
    shutil.copy(first, landing / first.name)
    content = second.read_bytes()
    (landing / second.name).write_bytes(content[: len(content) // 2])
    started = process(*asked, cwd=tmp_path)
    end = time.monotonic() + 1800
    while not (out / "report.html").is_file():
        assert started.poll() is None, started.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.1)
    assert set(pd.read_csv(out / "tables" / "files.csv")["file"]) == {first.stem}
    (landing / second.name).write_bytes(content)
    out_text, err = started.communicate(timeout=1800)
    assert started.returncode == 0, err
    assert set(pd.read_csv(out / "tables" / "files.csv")["file"]) == {first.stem, second.stem}
    assert re.search(r"2 files are analysed", out_text)


@pytest.mark.real_data
@pytest.mark.skipif("CYTOVOX_DATA" not in os.environ, reason="CYTOVOX_DATA names no folder of real tomograms")
def test_real_cell_is_one_cell_in_two_frames_and_one_track(cli, tmp_path):
    time_lapse = Path(os.environ["CYTOVOX_DATA"]) / "tomograms" / "hl60.TCF"
    answer = cli("analyze", f"inputs=[{time_lapse}]", f"out={tmp_path / 'run'}")
    assert answer.code == 0, answer.err
    table = pd.read_csv(tmp_path / "run" / "tables" / "cells.csv")
    whole = table[(table["compartment"] == "cell") & (table["cell"] > 0)]
    assert list(whole["frame"]) == [0, 1]
    assert whole["track"].nunique() == 1
    assert whole["volume_um3"].between(1000, 1800).all()
    assert whole["mean_ri"].between(1.34, 1.37).all()
    assert (whole["border"].str.len() > 0).all()
    np.testing.assert_allclose(whole["concentration_g_per_ml"], (whole["mean_ri"] - 1.335) / 0.19, rtol=0.02)
