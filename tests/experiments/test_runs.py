"""Whole runs through the command line: what they leave, how they go on, and what they do not do."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

from formats import read_volume

ORGANELLES = ("membrane", "nucleus", "nucleolus", "lipid")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def numbers(run: Path) -> dict[str, float]:
    return json.loads((run / "metrics.json").read_text())


def same_everywhere(run: Path) -> dict[str, float]:
    """metrics.json without what depends on the clock and the machine."""
    return {key: value for key, value in numbers(run).items() if not key.endswith(("seconds", "_mb"))}


def steps(run: Path) -> list[int]:
    return [int(row["step"]) for row in rows(run / "metrics.csv") if row["train/loss"]]


# what a run leaves


def test_a_run_leaves_everything_in_its_folder(trained):
    left = {p.relative_to(trained.run).as_posix() for p in trained.run.rglob("*") if p.is_file()}
    assert left >= {
        "config.yaml", "environment.json", "metrics.csv", "metrics.json", "status.json", "report.html",
        "checkpoints/best.ckpt", "checkpoints/last.ckpt",
        "tables/test_cases.csv", "tables/test_groups.csv", "tables/test_windows.csv", "tables/predictions.csv",
        "figures/test_best.png", "figures/test_median.png", "figures/test_worst.png", "figures/test_median.glb",
        "figures/predict_HeLa-00001_t000.png", "figures/predict_HeLa-00001_t000.glb",
        "predictions/HeLa-00001.ome.tif",
    }  # fmt: skip
    assert not [name for name in left if ".part" in name]


def test_a_run_says_nothing_but_progress_on_stderr(trained):
    assert trained.faults == []


def test_the_scores_have_flat_keys_and_are_the_tables_means(trained):
    metrics, cases = numbers(trained.run), rows(trained.run / "tables" / "test_cases.csv")
    assert {f"test/dice_{name}" for name in (*ORGANELLES, "mean")} <= metrics.keys()
    assert all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())
    for name in ORGANELLES:
        known = [float(case[f"dice_{name}"]) for case in cases if case[f"dice_{name}"]]
        assert metrics[f"test/dice_{name}"] == pytest.approx(np.mean(known), abs=1e-4)
    assert metrics["test/dice_mean"] == pytest.approx(np.mean([metrics[f"test/dice_{n}"] for n in ORGANELLES]))
    assert metrics["test/cases"] == len(cases) == 3


def test_the_environment_is_recorded(trained):
    environment = json.loads((trained.run / "environment.json").read_text())
    assert environment["seed"] == 3
    assert environment["packages"]["torch"]
    assert environment["device"]["cpu"]
    assert len(environment["data_digest"]) == 64
    assert environment["git"] is None or len(environment["git"]["commit"]) == 40
    assert not list(trained.run.glob("environment_*.json"))


def test_every_step_has_one_row_of_the_learning_curve(trained):
    assert steps(trained.run) == [0, 1, 2, 3]


def test_the_prediction_lies_on_the_input_s_own_grid(trained, cells):
    masks = tifffile.imread(trained.run / "predictions" / "HeLa-00001.ome.tif")
    volume = read_volume(trained.run / "predictions" / "HeLa-00001.ome.tif")
    assert masks.shape[-4:] == (4, 16, 32, 32)
    assert volume.spacing_um == pytest.approx(read_volume(cells / "HeLa-00001.TCF").spacing_um)
    assert volume.channels == ORGANELLES
    table = rows(trained.run / "tables" / "predictions.csv")
    assert [int(row["voxels"]) for row in table] == [int(np.count_nonzero(mask)) for mask in masks.reshape(4, -1)]


def test_the_saved_config_reruns_as_it_is_from_another_folder_with_the_same_numbers(
    tmp_path, trained, cli, monkeypatch
):
    copy = shutil.copy(trained.run / "config.yaml", tmp_path / "again.yaml")
    monkeypatch.chdir(tmp_path)
    again = cli(copy)
    assert again.run.parent == trained.run.parent != trained.run
    assert same_everywhere(again.run) == same_everywhere(trained.run)
    assert (again.run / "metrics.csv").read_text() == (trained.run / "metrics.csv").read_text()


def test_stages_are_done_in_their_own_order(tmp_path, tiny, cli):
    answer = cli(tiny, "stages=[test, fit]", "trainer.max_steps=1", f"runs_dir={tmp_path}")
    assert json.loads((answer.run / "status.json").read_text())["stages_done"] == ["fit", "test"]


def test_another_seed_gives_other_numbers(tmp_path, tiny, trained, cli):
    other = cli(tiny, "seed=4", "stages=[fit]", f"runs_dir={tmp_path}")
    assert (other.run / "metrics.csv").read_text() != (trained.run / "metrics.csv").read_text()


def test_the_folder_of_a_run_is_not_that_of_the_next(tmp_path, tiny, cli):
    folders = {cli(tiny, "stages=[fit]", "trainer.max_steps=1", f"runs_dir={tmp_path}").run for _ in range(2)}
    assert len(folders) == 2
    assert "CYTOVOX_RUN_DIR" not in os.environ


def test_a_restart_that_cannot_begin_leaves_what_the_job_had_done(tmp_path, tiny, cli, monkeypatch):
    """A job that is run again names its folder itself, without resume=."""
    monkeypatch.setenv("CYTOVOX_RUN_ID", "job-7")
    words = ["stages=[fit]", "trainer.max_steps=1", f"runs_dir={tmp_path}"]
    run = cli(tiny, *words).run
    kept = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**kept, "status": "preempted"}))
    answer = cli(tiny, *words, "trainer.global_batch=1000003")
    assert answer.code == 2
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert cli(tiny, *words).run == run


# going on


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, tiny, process, cli):
    words = ["trainer.max_epochs=12", f"runs_dir={tmp_path}"]
    running = process(tiny, *words, cwd=tmp_path)
    last = wait_for(lambda: next(iter(tmp_path.glob("tiny/*/checkpoints/last.ckpt")), None), running)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    run = last.parent.parent
    assert json.loads((run / "status.json").read_text())["stages_done"] == []
    (run / "checkpoints" / ".part-0123456789ab.ckpt").write_bytes(b"what a kill leaves of a checkpoint")

    again = cli(f"resume={run}")
    assert again.run == run
    assert not list(run.rglob(".part-*"))
    assert list(tmp_path.glob("tiny/*")) == [run]
    assert steps(run) == list(range(24))
    assert numbers(run)["fit/epochs"] == 12
    assert {"fit", "test"} == set(json.loads((run / "status.json").read_text())["stages_done"])
    assert [p.name for p in run.glob("environment_*.json")] == ["environment_1.json"]


def wait_for(found, running, seconds: float = 90):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (result := found()) is not None:
            return result
        if running.poll() is not None:
            raise AssertionError(running.communicate()[1])
        time.sleep(0.02)
    running.kill()
    raise AssertionError("it took too long")


def test_a_run_that_goes_on_ends_like_one_that_was_never_stopped(tmp_path, tiny, trained, cli):
    first = cli(tiny, "trainer.max_epochs=1", "stages=[fit]", f"runs_dir={tmp_path}")
    again = cli(f"resume={first.run}", "trainer.max_epochs=2", "stages=[fit, test]")
    for key, value in same_everywhere(again.run).items():
        assert value == pytest.approx(numbers(trained.run)[key], abs=1e-6), key


@pytest.fixture
def copied(tmp_path, trained) -> Path:
    """A copy of the trained run, to be changed."""
    return Path(shutil.copytree(trained.run, tmp_path / "runs" / "tiny" / "copied"))


def contents(run: Path) -> dict[str, bytes]:
    return {p.relative_to(run).as_posix(): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def test_a_finished_run_has_nothing_left_to_do(copied, cli):
    before = contents(copied)
    answer = cli(f"resume={copied}")
    assert answer.run == copied
    assert "nothing is left to do" in answer.out
    assert contents(copied) == before


def test_stages_that_are_done_are_not_done_again(copied, cli):
    status = json.loads((copied / "status.json").read_text())
    (copied / "status.json").write_text(json.dumps({**status, "stages_done": ["fit", "predict"]}))
    weights = (copied / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    masks = (copied / "predictions" / "HeLa-00001.ome.tif").stat().st_mtime_ns
    assert cli(f"resume={copied}").run == copied
    assert (copied / "checkpoints" / "last.ckpt").stat().st_mtime_ns == weights
    assert (copied / "predictions" / "HeLa-00001.ome.tif").stat().st_mtime_ns == masks
    assert json.loads((copied / "status.json").read_text())["stages_done"] == ["fit", "predict", "test"]


def test_a_trained_run_predicts_more_files_later(copied, cells, cli):
    curve = (copied / "metrics.csv").read_bytes()
    digest = json.loads((copied / "environment.json").read_text())["data_digest"]
    answer = cli(f"resume={copied}", "stages=[predict]", f"predict.inputs=[{cells}/*.TCF]")
    assert answer.run == copied
    assert sorted(p.name for p in (copied / "predictions").glob("*.tif")) == [
        f"HeLa-0000{n}.ome.tif" for n in (1, 2, 3)
    ]
    assert {row["input"] for row in rows(copied / "tables" / "predictions.csv")} == set(map(str, cells.glob("*.TCF")))
    assert numbers(copied)["predict/files"] == 3
    assert (copied / "metrics.csv").read_bytes() == curve
    for name in ("environment.json", "environment_1.json"):
        assert json.loads((copied / name).read_text())["data_digest"] == digest


def test_testing_again_adds_nothing_to_the_learning_curve(copied, trained, cli):
    curve = (copied / "metrics.csv").read_bytes()
    assert cli(f"resume={copied}", "stages=[test]").run == copied
    assert (copied / "metrics.csv").read_bytes() == curve
    assert same_everywhere(copied) == same_everywhere(trained.run)


def test_a_run_is_not_resumed_under_another_name(copied, cli):
    answer = cli("organelle_demo", f"resume={copied}")
    assert answer.code == 2
    assert answer.faults == [f"resume: {copied} is a run of name tiny, but organelle_demo says organelle_demo"]


def test_ctrl_c_says_how_to_go_on(tmp_path, tiny, process):
    running = process(tiny, "trainer.max_epochs=5000", f"runs_dir={tmp_path}", cwd=tmp_path)
    last = wait_for(lambda: next(iter(tmp_path.glob("tiny/*/checkpoints/last.ckpt")), None), running)
    os.kill(running.pid, signal.SIGINT)
    try:
        _, err = running.communicate(timeout=10)
    except subprocess.TimeoutExpired:  # Python drops an interrupt that falls into a finaliser: a person presses again
        os.kill(running.pid, signal.SIGINT)
        _, err = running.communicate(timeout=60)
    run = last.parent.parent
    assert running.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1] == f"stopped; go on with resume={run}"
    assert json.loads((run / "status.json").read_text())["status"] == "interrupted"
    assert (run / "report.html").is_file()


# whose weights


def weights_of(answer) -> str:
    return next(line for line in answer.out.splitlines() if line.startswith("weights: ")).removeprefix("weights: ")


def test_training_begins_with_the_weights_of_another_run(tmp_path, tiny, trained, cli):
    words = ["trainer.max_steps=1", "optimizer.lr=1e-9", f"runs_dir={tmp_path}"]
    begun = cli(tiny, f"init_from={trained.run}", *words)
    assert weights_of(begun).startswith(str(begun.run))
    for name in ORGANELLES:
        key = f"test/dice_{name}"
        assert numbers(begun.run)[key] == pytest.approx(numbers(trained.run)[key], abs=1e-3)


def test_a_run_that_began_with_other_weights_is_tested_with_its_own(tmp_path, tiny, trained, cli):
    begun = cli(tiny, f"init_from={trained.run}", "stages=[fit]", "trainer.max_steps=1", f"runs_dir={tmp_path}")
    tested = cli(f"resume={begun.run}", "stages=[test]")
    assert weights_of(tested).startswith(str(begun.run))


def test_predicting_takes_the_run_that_is_named(tmp_path, trained, time_lapse, cli):
    words = ["stages=[predict]", f"predict.inputs=[{time_lapse}]", f"runs_dir={tmp_path}", "logging.wandb=disabled"]
    # a config of its own data: the weights bring their network, grid and normalisation with them
    answer = cli("organelle_demo", *words, f"predict.checkpoint={trained.run}", "trainer.enable_progress_bar=false")
    assert weights_of(answer) == str(trained.run / "checkpoints" / "best.ckpt")
    assert "simulating" not in answer.err
    assert answer.run.parent == tmp_path / "organelle_demo"


def test_predicting_takes_the_newest_run_of_the_same_name_but_no_dry_one(copied, tiny, cells, cli):
    runs = copied.parent.parent
    dry = cli(tiny, "--dry-run", f"runs_dir={runs}")
    assert dry.run.name.startswith("dry-")
    answer = cli(tiny, "stages=[predict]", f"predict.inputs=[{cells}/HeLa-00002.TCF]", f"runs_dir={runs}")
    assert weights_of(answer) == str(copied / "checkpoints" / "best.ckpt")


def test_a_time_lapse_is_predicted_frame_by_frame(copied, time_lapse, cli):
    cli(f"resume={copied}", "stages=[predict]", f"predict.inputs=[{time_lapse}]", "predict.format=ome-tiff")
    masks = read_volume(copied / "predictions" / "lapse.ome.tif")
    assert masks.shape == (2, 4, 16, 32, 32)
    assert masks.times_s == pytest.approx((0.0, 1800.0))
    everything = rows(copied / "tables" / "predictions.csv")
    table = [row for row in everything if row["input"] == str(time_lapse)]
    assert len(everything) == len(table) + 4, "what was predicted before stays in the table: its masks are still there"
    assert [(row["frame"], row["organelle"]) for row in table] == [(str(t), k) for t in (0, 1) for k in ORGANELLES]
    assert float(table[4]["time_s"]) == 1800.0
    for row in table:
        inside = np.count_nonzero(masks.frame(int(row["frame"]), row["organelle"]))
        assert int(row["voxels"]) == inside
        assert float(row["volume_um3"]) == pytest.approx(inside * 0.6**3, rel=1e-5)


@pytest.mark.parametrize(("kind", "name"), [("ome-zarr", "lapse.ome.zarr"), ("nifti", "lapse_t001_lipid.nii.gz")])
def test_masks_are_written_in_the_format_asked_for(copied, time_lapse, cli, kind, name):
    words = [f"predict.inputs=[{time_lapse}]", f"predict.format={kind}", "predict.probabilities=true"]
    cli(f"resume={copied}", "stages=[predict]", *words)
    assert read_volume(copied / "predictions" / name).spacing_um == pytest.approx((0.6, 0.6, 0.6))
    probabilities = read_volume(copied / "predictions" / "lapse_t000_probabilities.ome.tif")
    assert probabilities.shape == (1, 4, 16, 32, 32)
    assert 0 <= probabilities.frame(0, "membrane").min() <= probabilities.frame(0, "membrane").max() <= 1


def test_a_file_is_predicted_again_only_if_something_changed(copied, cells, cli):
    words = [f"resume={copied}", "stages=[predict]", f"predict.inputs=[{cells}/HeLa-00001.TCF]"]
    masks = copied / "predictions" / "HeLa-00001.ome.tif"
    times = [masks.stat().st_mtime_ns]
    for more in (
        [],
        ["predict.batch_size=1"],
        ["predict.threshold=0.4"],
        ["predict.threshold=0.4", "predict.z=center"],
    ):
        cli(*words, *more)
        times.append(masks.stat().st_mtime_ns)
    assert times[0] == times[1] == times[2] < times[3] < times[4]


# checks and dry runs


def test_a_check_of_a_folder_counts_its_volumes_and_writes_nothing(cells, folder_config, cli):
    config = folder_config(cells)
    answer = cli(config, "--check")
    assert answer.code == 0
    for split in ("train", "val", "test"):
        (line,) = [line for line in answer.out.splitlines() if f"{split} volumes" in line]
        assert " 1 " in line
    assert [p.name for p in config.parent.iterdir()] == ["mine.yaml"]


def test_a_check_of_the_demo_simulates_nothing(tmp_path, cli):
    answer = cli("organelle_demo", "--check", f"runs_dir={tmp_path / 'runs'}", f"data.cache_dir={tmp_path / 'cache'}")
    assert (answer.code, answer.err) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_a_check_finds_what_a_run_would(tmp_path, tiny, cells, cli):
    words = [f"predict.inputs=[{cells}/*.TCF]", f"predict.checkpoint={tmp_path / 'none'}", f"runs_dir={tmp_path}"]
    answer = cli(tiny, "--check", "stages=[predict]", *words)
    assert answer.code == 2
    assert "no such checkpoint" in answer.faults[0]


def test_a_dry_run_takes_one_step_of_every_stage(tmp_path, tiny, cells, cli):
    words = ["stages=[fit,test,predict]", f"predict.inputs=[{cells}/*.TCF]", f"runs_dir={tmp_path}"]
    answer = cli(tiny, "--dry-run", *words)
    assert steps(answer.run) == [0]
    assert len(rows(answer.run / "tables" / "test_cases.csv")) == 1
    assert numbers(answer.run)["predict/files"] == 1


# folders, groups and lines


def test_a_folder_of_cells_is_trained_tested_and_predicted(cells, folder_config, cli):
    answer = cli(folder_config(cells), "stages=[fit,test,predict]", f"predict.inputs=[{cells}/HeLa-00003.TCF]")
    (case,) = rows(answer.run / "tables" / "test_cases.csv")
    assert case["case"] == "HeLa-00003.TCF"
    assert numbers(answer.run)["test/cases"] == 1
    assert (answer.run / "predictions" / "HeLa-00003.ome.tif").is_file()


def test_a_table_names_lines_and_the_test_is_tabled_by_them(tmp_path, cells, folder_config, cli):
    lines = ["volume,membrane,nucleus,dish,line"]
    for n, (dish, line) in enumerate([("a", "HeLa"), ("b", "HeLa"), ("c", "other")], start=1):
        nucleus = "" if n == 3 else f"HeLa-0000{n}_nucleus.nii.gz"
        lines.append(f"HeLa-0000{n}.TCF,HeLa-0000{n}_membrane.nii.gz,{nucleus},{dish},{line}")
    folder = Path(shutil.copytree(cells, tmp_path / "cells"))
    (folder / "lines.csv").write_text("\n".join(lines) + "\n")
    words = ["data.table=lines.csv", "data.group=dish", "data.line=line", "data.train_lines=[HeLa]"]
    split = "data.split={train: 0.5, val: 0.5, test: 0}"
    answer = cli(folder_config(folder), *words, split)
    (case,) = rows(answer.run / "tables" / "test_cases.csv")
    assert (case["case"], case["group"]) == ("HeLa-00003.TCF", "other")
    assert case["dice_membrane"]
    assert case["dice_nucleus"] == case["dice_lipid"] == ""  # nobody drew them
    metrics = numbers(answer.run)
    assert "test/dice_nucleus" not in metrics
    assert metrics["test/dice_mean"] == metrics["test/dice_membrane"]


def test_a_spacing_that_means_the_same_is_noted_in_one_line(tmp_path, cells, folder_config, cli):
    import nibabel

    folder = Path(shutil.copytree(cells, tmp_path / "cells"))
    path = folder / "HeLa-00003_lipid.nii.gz"
    image = nibabel.load(path)
    data = np.asanyarray(image.dataobj)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([0.6, 0.6, 0.6, 1])), path)
    answer = cli(folder_config(folder), "--dry-run")
    assert answer.code == 0
    assert answer.faults == [
        "note: HeLa-00003_lipid.nii.gz: its spacing is written in um where NIfTI expects mm; read as um"
    ]


# Weights & Biases


def test_a_process_says_nothing_but_progress_and_its_run_and_keeps_all_for_wandb(tmp_path, tiny, command):
    answer = command(tiny, "logging.wandb=offline", f"runs_dir={tmp_path}", cwd=tmp_path, WANDB_MODE="offline")
    assert answer.faults == []
    assert answer.run.parent == tmp_path / "tiny"
    environment = json.loads((answer.run / "environment.json").read_text())
    assert environment["command"][1:3] == [str(tiny), "logging.wandb=offline"]
    (offline,) = (answer.run / "wandb").glob("offline-run-*")
    assert json.loads((answer.run / "status.json").read_text())["wandb_id"] in offline.name
    (log,) = offline.glob("*.wandb")
    kept = log.read_bytes()
    for text in (b"train/loss", b"test/dice_mean", b"report.html", b"test_best"):
        assert text in kept


def test_devices_that_are_not_there_leave_nothing_of_wandb_either(tmp_path, tiny, command):
    words = ["logging.wandb=offline", "trainer.strategy=ddq", f"runs_dir={tmp_path / 'runs'}"]
    answer = command(tiny, *words, cwd=tmp_path, WANDB_MODE="offline")
    assert answer.code == 2
    assert [fault.split(":")[0] for fault in answer.faults] == ["trainer"]
    assert not list((tmp_path / "runs").rglob("*"))


def test_online_without_a_key_is_answered_in_one_line(tmp_path, tiny, cli, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    answer = cli(tiny, "logging.wandb=online", f"runs_dir={tmp_path / 'runs'}")
    assert answer.code == 2
    assert answer.faults == ["logging.wandb: online needs a W&B key; run `wandb login`, or choose offline"]
    assert not (tmp_path / "runs").exists()


# as a person starts it


def test_a_folder_of_the_user_s_that_shadows_ours_is_told(tmp_path, tiny, command):
    (tmp_path / "transforms").mkdir()
    (tmp_path / "transforms" / "__init__.py").write_text("")
    answer = command(tiny, cwd=tmp_path)
    assert answer.code == 2
    (fault,) = answer.faults
    assert fault.startswith("transforms: Python finds")


def test_the_saved_config_says_everything(trained):
    tree = yaml.safe_load((trained.run / "config.yaml").read_text())
    assert tree["data"]["train"]["count"] == 2
    assert tree["resume"] is None
    assert Path(tree["predict"]["inputs"][0]).is_absolute()


def test_a_test_alone_simulates_and_prepares_nothing_that_it_does_not_score(tmp_path, tiny, trained, cli, monkeypatch):
    monkeypatch.setenv("CYTOVOX_CACHE", str(tmp_path / "cache"))
    words = ["stages=[test]", f"predict.checkpoint={trained.run}", f"runs_dir={tmp_path / 'runs'}"]
    answer = cli(tiny, *words)
    assert numbers(answer.run)["test/dice_mean"] == pytest.approx(numbers(trained.run)["test/dice_mean"], abs=1e-6)
    made = list((tmp_path / "cache" / "simulated").glob("*.npz"))
    assert len(made) == numbers(answer.run)["test/cases"]
    assert not (tmp_path / "cache" / "prepared").exists()
