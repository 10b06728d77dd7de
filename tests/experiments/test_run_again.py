"""Keys that count make their step run again, with the results of a fresh run; others leave everything alone."""

from __future__ import annotations

import dataclasses
import os
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from cytovox.io import read_volume, write_nifti
from cytovox.measurement import registry
from cytovox.measurement.registry import Column, Measurement
from cytovox.networks.weights import shipped_weights
from cytovox.simulation.files import write_time_lapse
from cytovox.simulation.tomogram import Options
from datamodules import steps
from experiments import session
from experiments.tasks.analyze import analysis as analyze
from experiments.tasks.analyze import figures, outputs

SHAPE, SPACING = (12, 32, 32), (1.0, 1.0, 1.0)


@pytest.fixture(scope="module", autouse=True)
def undrawn():
    """Pictures take most of the time of an analysis this small, and nothing here looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw_results", lambda *args, **more: None)
        patch.setattr(outputs, "_draw", lambda *args: None)
        patch.setattr(session, "write_report", lambda folder, own: None)
        yield


@pytest.fixture(scope="module")
def time_lapses(tmp_path_factory) -> Path:
    """Two time-lapses of two frames, with masks of organelles."""
    folder = tmp_path_factory.mktemp("time_lapses")
    for response in ("control", "LPS"):
        write_time_lapse(
            folder, "RAW264.7", 7, response, (0.0, 7200.0), SHAPE, SPACING, Options(noise_ri=(0.0005, 0.0005))
        )
    return folder


def words(time_lapses: Path, out: Path, *more: str) -> list[str]:
    return [
        "analyze", f"inputs=[{time_lapses}/*.TCF]",
        f"organelles={time_lapses}/{{stem}}_masks.ome.tif", "method=watershed",
        "groups=*-{group}.TCF", f"out={out}", "meshes=none", "workers=0", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def done(cli, time_lapses, tmp_path_factory) -> Path:
    """An analysis that has come to its end."""
    out = tmp_path_factory.mktemp("done") / "run"
    answer = cli(*words(time_lapses, out))
    assert answer.code == 0, answer.err
    return out


@pytest.fixture
def copied(done, tmp_path) -> Path:
    shutil.copytree(done, tmp_path / "run")
    return tmp_path / "run"


def tables(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "tables").iterdir())}


def stamps(folder: Path) -> dict[str, int]:
    """Times of change of all files, but of the notes on what was read."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = {str(path.relative_to(folder)): path for path in files}
    return {name: path.stat().st_mtime_ns for name, path in named.items() if "read" not in path.parts}


def notes(answer) -> list[str]:
    return [line for line in answer.err.splitlines() if " again: " in line]


#: Keys of an analysis, and the step that they make run again first.
COUNTED = {
    "border=include": "tables are written again: border exclude -> include",
    "control=LPS": "tables are written again: control control -> LPS",
    "measure.area=marching_cubes": "4 frames are analysed again: measure.area enclosing -> marching_cubes",
    "measure.lipid_ml_per_g=0.19": "4 frames are analysed again: measure.lipid_ml_per_g 0.135 -> 0.19",
    "measure.medium_ri=1.34": "4 frames are analysed again: measure.medium_ri null -> 1.34",
    "seeds.min_volume_um3=40": "4 frames are analysed again: seeds.min_volume_um3",
    "seeds.split_depth_um=0.5": "4 frames are analysed again: seeds.split_depth_um null -> 0.5",
    "track.max_distance_um=3": "tables are written again:",
    "interval_min=30": "tables are written again:",
    "groups=null": "tables are written again:",
    "method=offsets": "4 frames are analysed again: cell weights changed, method watershed -> offsets",
    "organelle_names=[membrane,nucleus,nucleolus,lipid,other]": "4 frames are analysed again: organelle_names",
}
FAST = ("border=include",)


@pytest.mark.parametrize("word", [pytest.param(w, marks=[] if w in FAST else [pytest.mark.slow]) for w in COUNTED])
def test_a_key_that_counts_gives_the_tables_of_a_fresh_run(cli, time_lapses, copied, tmp_path, word):
    before = tables(copied)
    answer = cli(*words(time_lapses, copied, word))
    assert answer.code == 0, answer.err
    assert any(COUNTED[word] in line for line in notes(answer)), answer.err
    assert cli(*words(time_lapses, tmp_path / "fresh", word)).code == 0
    assert tables(copied) == tables(tmp_path / "fresh")
    assert not word.startswith(("border", "measure", "interval", "groups")) or tables(copied) != before
    if word not in FAST:
        assert notes(cli(*words(time_lapses, copied, word))) == []


def test_keys_that_do_not_count_leave_everything_alone(cli, time_lapses, copied):
    kept = {name: stamps(copied / name) for name in ("tables", "predictions", ".frames")}
    more = ["workers=1", "watch.every_s=1", "slurm.time=10", "name=other", "shard=null", f"runs_dir={copied}"]
    answer = cli(*words(time_lapses, copied, *more))
    assert answer.code == 0, answer.err
    assert notes(answer) == []
    assert {name: stamps(copied / name) for name in kept} == kept


def test_another_version_of_a_method_runs_its_step_again_and_no_earlier_one(cli, time_lapses, copied, monkeypatch):
    organelles = stamps(copied / ".frames")
    rows = steps.STEPS["analyze.rows"]
    monkeypatch.setitem(steps.STEPS, "analyze.rows", dataclasses.replace(rows, version=rows.version + 1))
    answer = cli(*words(time_lapses, copied))
    assert notes(answer) == ["note: 4 frames are analysed again: method version 1 -> 2"]
    changed = {name for name, at in stamps(copied / ".frames").items() if organelles.get(name) != at}
    assert not [name for name in changed if "organelles" in name or "cells" in name]


def _depth(region):
    z = np.nonzero(region.mask_ZYX)[0]
    return {"depth_um": (z.max() - z.min() + 1) * region.spacing_um[0]}


DEPTH = Measurement("depth", 1, {"depth_um": Column("µm", "Extent along z")}, _depth)
DEPTH_2 = dataclasses.replace(DEPTH, version=2)


@pytest.fixture
def offer(monkeypatch):
    """Let an installed package offer an object of this module as a measurement."""

    def offer(attribute):
        entry = EntryPoint("depth", f"{__name__}:{attribute}", registry.GROUP)
        monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == registry.GROUP else [])
        registry.measurements.cache_clear()

    yield offer
    monkeypatch.undo()
    registry.measurements.cache_clear()


def test_an_added_measurement_has_a_column_and_only_rows_are_computed_again(cli, time_lapses, copied, offer):
    before, frames = pd.read_csv(copied / "tables" / "cells.csv"), stamps(copied / ".frames")
    offer("DEPTH")
    answer = cli(*words(time_lapses, copied))
    assert notes(answer) == ["note: 4 frames are analysed again: measurements changed"], answer.err
    changed = {name for name, at in stamps(copied / ".frames").items() if frames.get(name) != at}
    assert changed
    assert not [name for name in changed if "organelles" in name or "cells" in name]
    after = pd.read_csv(copied / "tables" / "cells.csv")
    pd.testing.assert_frame_equal(after.drop(columns="depth_um"), before, check_exact=True)
    depth = after.depth_um[after.volume_um3 > 0] / SPACING[0]
    assert len(depth)
    assert (depth > 0).all()
    assert np.allclose(depth, depth.round())
    assert after.depth_um[after.volume_um3 == 0].isna().all()
    assert notes(cli(*words(time_lapses, copied))) == []
    offer("DEPTH_2")
    assert notes(cli(*words(time_lapses, copied))) == ["note: 4 frames are analysed again: measurements changed"]


def test_masks_with_other_content_of_the_same_size_and_time_are_read_again(cli, time_lapses, tmp_path):
    time_lapse = read_volume(time_lapses / "RAW264.7-00007-LPS.TCF")
    masks = read_volume(time_lapses / "RAW264.7-00007-LPS_masks.ome.tif")
    write_nifti(tmp_path / "a.nii", time_lapse.frame(0), SPACING)
    for organelle in ("membrane", "nucleus"):
        write_nifti(tmp_path / f"a_{organelle}.nii", masks.frame(0, organelle).astype(np.uint8), SPACING)
    asked = [
        "analyze", f"inputs=[{tmp_path}/a.nii]", f"organelles={tmp_path}/{{stem}}_{{organelle}}.nii",
        f"out={tmp_path / 'run'}", "method=watershed", "meshes=none", "workers=0", "measure.medium_ri=1.337",
    ]  # fmt: skip
    assert cli(*asked).code == 0
    before = tables(tmp_path / "run")
    path = tmp_path / "a_membrane.nii"
    stat = path.stat()
    write_nifti(path, masks.frame(0, "nucleus").astype(np.uint8), SPACING)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    answer = cli(*asked)
    assert any("given masks changed" in line for line in notes(answer)), answer.err
    assert tables(tmp_path / "run") != before


def test_a_changed_correction_is_reported_and_gives_other_cells(cli, time_lapses, copied):
    name = copied / "predictions" / "RAW264.7-00007-LPS_t001_cells_corrected.nii.gz"
    labels = np.zeros(SHAPE, np.uint16)
    labels[4:9, 10:20, 10:20] = 1
    write_nifti(name, labels, SPACING)
    output = notes(cli(*words(time_lapses, copied)))
    assert len(output) == 1
    assert "1 frame is analysed again:" in output[0]
    assert "labels of cells changed" in output[0]
    labels[4:9, 30:40, 30:40] = 2
    write_nifti(name, labels, SPACING)
    assert "labels of cells changed" in notes(cli(*words(time_lapses, copied)))[0]
    table = pd.read_csv(copied / "tables" / "cells.csv")
    whole = table[(table["compartment"] == "cell") & (table["cell"] > 0) & (table["cells_from"] == "corrected")]
    assert len(whole) == 2


@pytest.mark.slow
def test_a_table_that_was_removed_is_written_again(cli, time_lapses, copied):
    before = tables(copied)
    (copied / "tables" / "cells.csv").unlink()
    assert cli(*words(time_lapses, copied)).code == 0
    assert tables(copied) == before


@pytest.mark.slow
def test_probabilities_that_are_gone_are_predicted_again_for_other_seeds(cli, time_lapses, tmp_path):
    """Cells that are found again come from probabilities, as those of a fresh run do, and not from masks."""
    asked = [word for word in words(time_lapses, tmp_path / "run") if not word.startswith(("organelles=", "method="))]
    assert cli(*asked).code == 0
    answer = cli(*asked, "seeds.min_volume_um3=5")
    assert answer.code == 0, answer.err
    fresh = [word.replace(str(tmp_path / "run"), str(tmp_path / "fresh")) for word in asked]
    assert cli(*fresh, "seeds.min_volume_um3=5").code == 0
    assert tables(tmp_path / "run") == tables(tmp_path / "fresh")


@pytest.mark.slow
def test_other_weights_under_the_same_path_predict_again(cli, time_lapses, tmp_path, monkeypatch):
    weights = tmp_path / "mine.safetensors"
    shutil.copy(shipped_weights()["cells_offsets"], weights)
    asked = words(time_lapses, tmp_path / "run", "method=offsets", f"cell_weights={weights}")
    assert cli(*asked).code == 0
    content = bytearray(weights.read_bytes())
    content[-64:] = bytes(64)
    weights.write_bytes(content)
    answer = cli(*asked)
    assert notes(answer) == ["note: 4 frames are analysed again: cell weights changed"]


@pytest.mark.slow
def test_a_run_stopped_among_frames_that_run_again_ends_as_a_fresh_one(cli, time_lapses, copied, tmp_path, monkeypatch):
    finish, calls = analyze.finish_frame, []

    def stopping(job):
        calls.append(job)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return finish(job)

    with monkeypatch.context() as patch:
        patch.setattr(analyze, "finish_frame", stopping)
        assert cli(*words(time_lapses, copied, "measure.area=marching_cubes")).code == 130
    assert cli(*words(time_lapses, copied, "measure.area=marching_cubes")).code == 0
    assert cli(*words(time_lapses, tmp_path / "fresh", "measure.area=marching_cubes")).code == 0
    assert tables(copied) == tables(tmp_path / "fresh")


@pytest.fixture(scope="module")
def cells_2d(tmp_path_factory) -> Path:
    """Two cells as images and masks."""
    folder = tmp_path_factory.mktemp("cells")
    y, x = np.mgrid[:64, :64] - 31.5
    for number, (a, b) in enumerate(((14, 18), (20, 16)), start=1):
        mask = (y / a) ** 2 + (x / b) ** 2 <= 1
        for part, values in (("image", 0.6 * mask), ("mask", mask)):
            (folder / part).mkdir(exist_ok=True)
            tifffile.imwrite(folder / part / f"cell_{number}.tif", (255 * values).astype(np.uint8))
    return folder


def shape_words(cells_2d: Path, out: Path, *more: str) -> list[str]:
    return [
        "shape_nuclei", "stages=[predict]", f"predict.inputs=[{cells_2d}]", f"predict.out={out / 'shapes'}",
        "predict.samples=2", "logging.wandb=disabled", f"runs_dir={out / 'runs'}", "trainer.enable_progress_bar=false",
        "trainer.accelerator=cpu", *more,
    ]  # fmt: skip


#: Keys of a shape prediction: whether they count.
SHAPES = {
    "traits.thickness=0.3": True, "traits.tilt=0.2": True, "seed=2": True, "predict.views=false": True,
    "predict.samples=3": True, "predict.voxel_um=0.4": True, "predict.checkpoint=shape_rbc": True,
    "data.flip=false": False, "optimizer.lr=0.5": False, "slurm.time=10": False, "weights.default=shape_nuclei": False,
}  # fmt: skip


@pytest.mark.parametrize(
    "word", [pytest.param(w, marks=[] if w == "traits.thickness=0.3" else [pytest.mark.slow]) for w in SHAPES]
)
def test_shapes_are_sampled_again_only_if_a_key_counts(cli, cells_2d, tmp_path, word):
    assert cli(*shape_words(cells_2d, tmp_path / "a")).code == 0
    before = stamps(tmp_path / "a" / "shapes")
    answer = cli(*shape_words(cells_2d, tmp_path / "a", word))
    assert answer.code == 0, answer.err
    after = stamps(tmp_path / "a" / "shapes")
    if not SHAPES[word]:
        assert after == before
        assert notes(answer) == []
        return
    assert all(after[name] != at for name, at in before.items())
    key = word.partition("=")[0] if "checkpoint" not in word else "content of weights changed"
    assert all(f"predicted again: {key}" in line for line in notes(answer))
    assert len(notes(answer)) == 2
    assert cli(*shape_words(cells_2d, tmp_path / "b", word)).code == 0
    for path in (tmp_path / "a" / "shapes").rglob("*.tif"):
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert np.array_equal(tifffile.imread(path), tifffile.imread(other))
