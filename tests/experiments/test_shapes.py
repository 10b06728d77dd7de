"""Shape tasks from the command line: files of a run, repeated predictions, and errors."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import trimesh
import yaml

from cytovox.errors import InputError
from cytovox.models.metadata import read_checkpoint
from cytovox.statistics.feature_tables import read_features
from experiments.export import main as export

TINY = {
    "seed": 3,
    "model": {"channels": [8, 16]},
    "field": {"size": 16},
    "data": {"folds": 2, "val": 0.3, "num_workers": 0, "batch_size": 4, "class_pattern": r"(.+)_\d+"},
    "trainer": {"max_epochs": 2, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False},
    "predict": {"samples": 19, "voxel_um": 0.5},
    "logging": {"wandb": "disabled"},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory, shape_folder):
    folder = tmp_path_factory.mktemp("shape_config")
    tree = {"name": "shapes", "task": "shape", "runs_dir": str(folder / "runs"), **TINY}
    tree["data"] = {**TINY["data"], "root": str(shape_folder)}
    path = folder / "shapes.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, shape_folder):
    """Two cells without their objects."""
    folder = tmp_path_factory.mktemp("inputs")
    for kind in ("image", "mask"):
        (folder / kind).mkdir()
        for path in sorted((shape_folder / kind).iterdir())[:2]:
            shutil.copy(path, folder / kind)
    return folder


@pytest.fixture(scope="module")
def run(cli, config, inputs):
    return cli(config, "stages=[fit,test,predict]", f"predict.inputs=[{inputs}]").run


def test_a_test_writes_the_errors_of_mean_shape_sample_and_best_of_five(run):
    metrics = json.loads((run / "metrics.json").read_text())
    for prefix in ("", "single/", "best_of_5/"):
        for name in ("iou_error", "volume_error", "surface_error", "roughness_error"):
            assert metrics[f"test/{prefix}{name}"] >= 0
    assert metrics["test/best_of_5/iou_error"] <= metrics["test/single/iou_error"]
    assert 0 <= metrics["test/volume_coverage_90"] <= 1
    rows = list(csv.DictReader((run / "tables" / "test_cells.csv").open()))
    assert len(rows) == metrics["test/cases"] == 4
    assert np.mean([float(r["iou_error"]) for r in rows]) == pytest.approx(metrics["test/iou_error"], abs=1e-4)
    assert {r["class"] for r in rows} == {"HeLa", "RAW264.7"}
    assert (run / "figures" / "test_gallery.png").stat().st_size > 10_000
    assert (run / "figures" / "test_reliability.png").stat().st_size > 10_000
    assert 0 <= metrics["test/calibration_error"] <= 1
    assert "mean shape" in (run / "report.html").read_text()


def test_a_prediction_writes_volumes_surfaces_and_tables(run, inputs):
    names = sorted(p.stem for p in (inputs / "image").iterdir())
    rows = list(csv.DictReader((run / "tables" / "predicted_shapes.csv").open()))
    assert sorted(r["cell"] for r in rows) == names
    features = {r["cell"]: r for r in csv.DictReader((run / "tables" / "predicted_features.csv").open())}
    assert all(len(r) == 3 + 12 + 15 and r["unit"] == "um" and all(r.values()) for r in features.values())
    for row in rows:
        folder = run / "predictions" / row["cell"]
        samples = np.stack([tifffile.imread(folder / f"sample_{n:02d}.tif") for n in range(1, 20)])
        mask = tifffile.imread(inputs / "mask" / f"{row['cell']}.tif") > 127
        assert samples.shape == (19, 64, 64, 64)
        assert ((samples[:, 32] > 0) == mask).all()
        probability = tifffile.imread(folder / "probability.tif")
        assert np.allclose(probability, (samples > 0).mean(0), atol=1e-6)
        mean = tifffile.imread(folder / "mean.tif") > 0
        assert float(row["volume"]) == pytest.approx(mean.sum() * 0.125, rel=1e-4)
        assert float(features[row["cell"]]["volume_um3"]) == pytest.approx(mean.sum() * 0.125, rel=1e-4)
        assert float(features[row["cell"]]["area_um2"]) == pytest.approx(mask.sum() * 0.25, rel=1e-4)
        volumes = (samples > 0).sum(axis=(1, 2, 3)) * 0.125
        ends = [float(row[name]) for name in ("volume_low", "volume_high", "volume_interval_coverage")]
        assert ends == pytest.approx([volumes.min(), volumes.max(), 0.9], rel=1e-4)
        surface = trimesh.load_mesh(folder / "mean.ply")
        assert surface.is_watertight
        assert surface.volume == pytest.approx(mean.sum() * 0.125, rel=0.1)
        assert (folder / "samples.glb").stat().st_size > 1000


def seen_of(run: Path, table: str) -> dict[str, str]:
    with (run / "tables" / f"{table}.csv").open() as file:
        return {row["cell"]: row["seen_in_training"] for row in csv.DictReader(file)}


def test_seen_in_training_is_yes_for_training_cells_only(cli, run, shape_folder, tmp_path):
    tested = seen_of(run, "test_cells")
    assert set(tested.values()) == {"no"}
    # under other names, as other files
    for kind in ("image", "mask"):
        (tmp_path / "all" / kind).mkdir(parents=True)
        for path in (shape_folder / kind).iterdir():
            np.save(tmp_path / "all" / kind / f"new_{path.stem}.npy", tifffile.imread(path))
    asked = ["stages=[predict]", f"predict.inputs=[{tmp_path / 'all'}]", f"predict.out={tmp_path / 'out'}"]
    words = [*asked, "predict.samples=1", "predict.voxel_um=null", "predict.views=false"]
    answer = cli(f"resume={run}", *words)
    assert answer.code == 0
    for table in ("predicted_shapes", "predicted_features"):
        found = {name.removeprefix("new_"): seen for name, seen in seen_of(run, table).items()}
        assert {name for name, seen in found.items() if seen == "no"} == set(tested)
        assert {seen for name, seen in found.items() if name not in tested} == {"yes"}
    count = len(found) - len(tested)
    assert f"note: {count} of {len(found)} predicted cells were seen in training by these weights" in answer.err
    assert f"{count} cells were seen in training by these weights." in (run / "report.html").read_text()
    features = run / "tables" / "predicted_features.csv"
    with pytest.raises(InputError, match=f"{count} of {len(found)} cells were seen in training"):
        read_features(features)
    # without a voxel size no column says that it is in micrometres
    names = read_features(features, allow_seen=True).names
    assert {"area_px2", "perimeter_px", "volume_voxels", "surface_px2", "major_axis_px"} <= set(names)
    assert not [name for name in names if "_um" in name]


def test_fine_tuned_weights_inherit_the_training_cells(cli, run, config, tmp_path):
    first = read_checkpoint(run / "checkpoints" / "last.ckpt", "shape", "x").metadata
    assert (len(first.seen), first.seen_all) == (8 - len(seen_of(run, "test_cells")), True)
    words = ["stages=[fit]", "data.fold=1", f"init_from={run}", "trainer.max_epochs=1", f"runs_dir={tmp_path}"]
    tuned = cli(config, *words).run
    metadata = read_checkpoint(tuned / "checkpoints" / "last.ckpt", "shape", "x").metadata
    assert (len(metadata.seen), metadata.seen_all) == (8, True)
    assert export([str(tuned), str(tmp_path / "tuned.safetensors")]) == 0
    assert read_checkpoint(tmp_path / "tuned.safetensors", "shape", "x").metadata == metadata


def test_only_changed_cells_are_predicted_again(run, cli, inputs, tmp_path):
    work = tmp_path / "inputs"
    shutil.copytree(inputs, work)
    out = tmp_path / "out"
    words = ["stages=[predict]", f"predict.inputs=[{work}]", f"predict.out={out}"]
    assert cli(f"resume={run}", *words).code == 0
    first, second = sorted(p for p in out.iterdir() if not p.name.startswith("."))
    before = {p.name: (p / "mean.tif").stat().st_mtime_ns for p in (first, second)}
    image = work / "image" / f"{second.name}.tif"
    tifffile.imwrite(image, np.minimum(tifffile.imread(image).astype(int) + 3, 255).astype(np.uint8))
    assert cli(f"resume={run}", *words).code == 0
    assert (first / "mean.tif").stat().st_mtime_ns == before[first.name]
    assert (second / "mean.tif").stat().st_mtime_ns > before[second.name]


def test_a_sample_does_not_depend_on_which_other_cells_are_predicted(run, cli, inputs, tmp_path):
    alone = tmp_path / "alone"
    name = sorted(p.stem for p in (inputs / "image").iterdir())[1]
    for kind in ("image", "mask"):
        (alone / kind).mkdir(parents=True)
        shutil.copy(inputs / kind / f"{name}.tif", alone / kind)
    out = tmp_path / "out"
    assert cli(f"resume={run}", "stages=[predict]", f"predict.inputs=[{alone}]", f"predict.out={out}").code == 0
    together = tifffile.imread(run / "predictions" / name / "sample_03.tif")
    assert (tifffile.imread(out / name / "sample_03.tif") == together).all()


def test_a_checkpoint_determines_its_parts_not_the_config(run, cli, config, inputs, tmp_path):
    out = tmp_path / "out"
    answer = cli(
        config, "stages=[predict]", f"predict.checkpoint={run}", f"predict.inputs=[{inputs}]", f"predict.out={out}",
        "field.size=32", "model.channels=[16,16]",
    )  # fmt: skip
    assert answer.code == 0
    assert len(list(out.glob("*/mean.tif"))) == 2


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (["task=shap"], "shape, shapr, search, analyze, cells_from_masks, got 'shap'; did you mean shapr?"),
        (["sampler.name=eulr"], "sampler.name: expected one of ancestral, ddim, euler, heun, one_step, got 'eulr'"),
        (["field.size=20"], "field.size: 20: expected 64, 32 or 16"),
        (["process.name=direct"], "sampler: euler: expected one_step"),
        (["model.channels=[8,16,16,16,16,16]"], "need field.size to be a multiple of"),
        (["predict.samples=0"], "predict.samples: expected 1 or more, got 0"),
        (["data.folds=5"], "fewer cells in HeLa (4)"),
        (["data.root=nowhere"], "nowhere"),
        (["stages=[predict]", "predict.inputs=[nowhere]"], "nowhere: expected a folder with the folders image"),
    ],
)
def test_an_error_is_reported_in_one_line(cli, config, words, output):
    answer = cli(config, *words)
    assert answer.code == 2
    assert any(output in line for line in answer.errors), answer.err
    assert "Traceback" not in answer.err


def test_shapr_trains_both_stages_and_predicts(cli, config, inputs, tmp_path):
    words = ["task=shapr", "predict.samples=1", "predict.views=false", f"runs_dir={tmp_path / 'runs'}"]
    tree = yaml.safe_load(Path(config).read_text())
    del tree["field"], tree["model"]
    own = tmp_path / "shapr.yaml"
    own.write_text(yaml.safe_dump({**tree, "model": {"base_channels": 2}}))
    answer = cli(own, *words, "stages=[fit,test,predict]", f"predict.inputs=[{inputs}]", "trainer.log_every_n_steps=1")
    metrics = json.loads((answer.run / "metrics.json").read_text())
    assert 0 <= metrics["test/iou_error"] <= 1
    assert "test/best_of_5/iou_error" not in metrics
    assert "train/discriminator" in (answer.run / "metrics.csv").read_text().splitlines()[0]


def test_a_check_counts_the_cells_and_writes_nothing(cli, config, tmp_path):
    answer = cli(config, "--check", f"runs_dir={tmp_path / 'none'}")
    assert answer.code == 0
    assert "test cells" in answer.out
    assert not (tmp_path / "none").exists()
