"""`--plan` of shapes from the command line: output, files and errors."""

from __future__ import annotations

import re

import pytest
import yaml

from experiments.planning.measure import measuring_notes
from training.trainer import TrainerConfig


@pytest.fixture(autouse=True)
def _few_batches(monkeypatch):
    """Measure few batches: the figures do not matter here."""
    monkeypatch.setattr("experiments.planning.measure.AIM_S", 0.1)
    monkeypatch.setattr("experiments.planning.measure.LEAST", 4)


@pytest.fixture
def config(tmp_path, shape_folder):
    def write(task):
        tree = {
            "name": "planned",
            "task": task,
            "runs_dir": str(tmp_path / "runs"),
            "data": {"root": str(shape_folder), "folds": 2, "val": 0.3, "num_workers": 0, "batch_size": 2},
            "trainer": {"max_epochs": 7, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False},
            "predict": {"samples": 3},
            "logging": {"wandb": "disabled"},
        }
        tree["data"] |= {"class_pattern": r"(.+)_\d+", "cells_per_epoch": 6}
        own = (
            {"model": {"channels": [8, 16]}, "field": {"size": 16}}
            if task == "shape"
            else {"model": {"base_channels": 2}}
        )
        path = tmp_path / "planned.yaml"
        path.write_text(yaml.safe_dump(tree | own))
        return path

    return write


def row(out, what):
    line = next(line for line in out.splitlines() if re.match(rf"[│ ]+{re.escape(what)} +│", line))
    return [cell.strip() for cell in line.strip("│ ").split("│")][1:]


@pytest.mark.parametrize("task", ["shape", "shapr"])
def test_a_plan_of_shapes_prints_the_time_of_a_run_and_leaves_no_files(
    cli, config, shape_folder, task, tmp_path, monkeypatch
):
    path, temporary = config(task), tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    answer = cli(path, "--plan", "stages=[fit,test,predict]", f"predict.inputs=[{shape_folder}]")
    assert answer.code == 0, answer.err
    assert row(answer.out, "cell") == ["64x64x64 voxels, 2 a batch, 2 a step of all ranks"]
    assert row(answer.out, "epoch") == ["3 steps of each rank, 3 batches"]
    assert "7 epochs, 21 steps, ended by trainer.max_epochs" in answer.out
    assert float(row(answer.out, "fit: a batch")[0].removesuffix(" s")) > 0
    cells, tested = (len(list((shape_folder / "image").iterdir())), int(row(answer.out, "test: a cell")[-1].split()[0]))
    assert row(answer.out, "predict: a cell")[-1] == f"{cells} cells of each rank"
    assert tested == cells / 2
    assert re.fullmatch("the run would take .+", answer.out.splitlines()[-1])
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "runs").exists()


def test_the_plan_of_a_compiled_training_has_a_note():
    (note,) = measuring_notes(TrainerConfig(compile=True))
    assert "trainer.compile: the plan is of the network without torch.compile" in note
    assert measuring_notes(TrainerConfig()) == []


@pytest.mark.slow
def test_a_plan_prints_the_note_about_compilation(cli, config):
    answer = cli(config("shapr"), "--plan", "stages=[fit]", "trainer.compile=true")
    assert "note: trainer.compile: the plan is of the network without torch.compile" in answer.out


def test_a_plan_of_a_prediction_without_weights_is_a_one_line_error(cli, config, shape_folder):
    answer = cli(config("shapr"), "--plan", "stages=[predict]", f"predict.inputs=[{shape_folder}]")
    assert answer.code == 2
    assert answer.err.strip().startswith("predict.checkpoint: no weights")
    assert len(answer.err.strip().splitlines()) == 1


def test_a_plan_of_several_processes_is_an_error(cli, config, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    answer = cli(config("shape"), "--plan")
    assert answer.code == 2
    assert "start it without torchrun" in answer.err
