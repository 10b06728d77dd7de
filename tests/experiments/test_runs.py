"""Whole runs through the command line: what they leave, and what they do not do."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

from cytovox.io import read_volume
from tests.experiments.folders import ORGANELLES, numbers, rows, same_everywhere, steps

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
    assert trained.errors == []


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
    assert "no such checkpoint" in answer.errors[0]


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
    words = ["data.table=lines.csv", "data.group=dish", "data.cell_line=line", "data.train_cell_lines=[HeLa]"]
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
    wrong = nibabel.Nifti1Image(data, np.diag([-0.6, -0.6, 0.6, 1]))
    wrong.header.set_xyzt_units("mm")
    nibabel.save(wrong, path)
    answer = cli(folder_config(folder), "--dry-run")
    assert answer.code == 0
    (note,) = [error for error in answer.errors if "written in um where mm is expected" in error]
    assert note.startswith("note: HeLa-00003_lipid.nii.gz: ")


# Weights & Biases


def test_a_process_says_nothing_but_progress_and_its_run_and_keeps_all_for_wandb(tmp_path, tiny, command):
    answer = command(tiny, "logging.wandb=offline", f"runs_dir={tmp_path}", cwd=tmp_path, WANDB_MODE="offline")
    assert answer.errors == []
    assert answer.run.parent == tmp_path / "tiny"
    environment = json.loads((answer.run / "environment.json").read_text())
    assert environment["command"][1:3] == [str(tiny), "logging.wandb=offline"]
    (offline,) = (answer.run / "wandb").glob("offline-run-*")
    assert json.loads((answer.run / "status.json").read_text())["wandb_id"] in offline.name
    (log,) = offline.glob("*.wandb")
    kept = log.read_bytes()
    for text in (b"train/loss", b"test/dice_mean", b"report.html", b"test_best"):
        assert text in kept


@pytest.mark.slow
def test_devices_that_are_not_there_leave_nothing_of_wandb_either(tmp_path, tiny, command):
    words = ["logging.wandb=offline", "trainer.strategy=ddq", f"runs_dir={tmp_path / 'runs'}"]
    answer = command(tiny, *words, cwd=tmp_path, WANDB_MODE="offline")
    assert answer.code == 2
    assert [error.split(":")[0] for error in answer.errors] == ["trainer"]
    assert not list((tmp_path / "runs").rglob("*"))


def test_online_without_a_key_is_answered_in_one_line(tmp_path, tiny, cli, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    answer = cli(tiny, "logging.wandb=online", f"runs_dir={tmp_path / 'runs'}")
    assert answer.code == 2
    assert answer.errors == ["logging.wandb: online needs a W&B key; run `wandb login`, or choose offline"]
    assert not (tmp_path / "runs").exists()


# as a person starts it


def test_a_folder_of_the_user_s_that_shadows_ours_is_reported(tmp_path, tiny, command):
    (tmp_path / "transforms").mkdir()
    (tmp_path / "transforms" / "__init__.py").write_text("")
    answer = command(tiny, cwd=tmp_path)
    assert answer.code == 2
    (error,) = answer.errors
    assert error.startswith("transforms: Python finds")


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
