"""A task is one folder and one line in `TASKS`: this file is such a folder, and the fixture is the line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cytovox.errors import InputError
from cytovox.io import read_volume, write_tcf
from cytovox.simulation import simulate
from datamodules.paths import expand
from experiments.launch import launch
from experiments.report.parts import sections
from experiments.schema import BaseConfig, to_yaml
from experiments.session import RunRequest, Work, now
from experiments.tasks import TASKS
from experiments.tasks.base import Task
from training.rundir import RunFolder, write_json, write_text
from training.signals import StopSignals


@dataclass
class CountConfig(BaseConfig):
    """Count the voxels above a refractive index."""

    name: str = "count"
    """Runs lie in runs/<name>/."""
    task: str = "count"
    """This task."""
    inputs: list[str] = field(default_factory=list)
    """Tomograms."""
    above: float = 1.35
    """Refractive index."""


class CountTask(Task):
    """See `Task`."""

    name = "count"
    config = CountConfig
    paths = (("inputs",),)

    def errors(self, config: CountConfig) -> list[str]:
        return [] if 1 < config.above < 2 else [f"above: expected a refractive index, got {config.above}"]

    def check(self, request: RunRequest) -> None:
        print(f"{len(expand(request.config.inputs, Path(), 'inputs'))} files")

    def begin(self, request: RunRequest, signals: StopSignals) -> Work:
        paths = expand(request.config.inputs, Path(), "inputs")
        return CountRun(request, RunFolder.create(Path(request.config.runs_dir), request.config.name), self, paths)

    def report(self, folder: Path) -> dict[str, Any]:
        return {**TASKS["cells_from_masks"].report(folder), "sections": {**sections("cells_from_masks", "", ""),
                "trained": False, "parts": [], "predictions": "cells_predictions.html"}}  # fmt: skip


class CountRun(Work):
    """A run of the task."""

    def __init__(self, request: RunRequest, folder: RunFolder, task: Task, paths: list[Path]) -> None:
        super().__init__(request, folder)
        self.task, self.paths = task, paths

    def record(self) -> None:
        self.folder.update_status(status="running", started=now())
        write_text(self.folder.path / "config.yaml", to_yaml(self.task.resolved(self.config)))

    def report(self, folder: Path) -> dict[str, Any]:
        return self.task.report(folder)

    def run_stage(self, stage: str) -> None:
        counts = {path.name: int((read_volume(path).frame() > self.config.above).sum()) for path in self.paths}
        write_json(self.folder.tables / "counts.json", counts)

    def finished(self) -> int:
        print(f"run: {self.folder.path}")
        return 0


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A config of the new task, with one tomogram."""
    monkeypatch.setitem(TASKS, "count", CountTask())
    tomogram = simulate("HeLa", 3, (16, 24, 24))
    write_tcf(tmp_path / "cell.TCF", tomogram.ri_ZYX, tomogram.spacing_um, tomogram.medium_ri)
    config = tmp_path / "count.yaml"
    config.write_text(f"task: count\ninputs: ['{tmp_path}/*.TCF']\nruns_dir: {tmp_path / 'runs'}\n")
    return config


def test_the_new_task_runs_in_a_session_with_status_config_and_report(count: Path, capsys):
    assert launch(str(count), ["above=1.345"]) == 0
    run = Path(capsys.readouterr().out.split("run: ")[1].strip())
    assert (run / "report.html").is_file()
    folder = RunFolder(run)
    assert (folder.status()["status"], folder.status()["stages_done"]) == ("finished", ["count"])
    assert "above: 1.345" in (run / "config.yaml").read_text()
    assert '"cell.TCF"' in (run / "tables" / "counts.json").read_text()


def test_its_errors_its_check_and_what_it_cannot_do_are_one_line(count: Path, capsys):
    assert launch(str(count), [], check=True) == 0
    assert capsys.readouterr().out == "1 files\n"
    with pytest.raises(InputError, match="above: expected a refractive index, got 3"):
        launch(str(count), ["above=3"])
    with pytest.raises(InputError, match=r"no such key; did you mean above\?"):
        launch(str(count), ["abov=1.3"])
    with pytest.raises(InputError, match="--plan: not for task count, only for tasks organelle"):
        launch(str(count), [], plan_only=True)
    assert not (count.parent / "runs").exists()


def test_a_run_that_fails_leaves_its_state_and_a_report(count: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(self: CountRun, stage: str) -> None:
        raise InputError("cell.TCF: cannot be counted")

    monkeypatch.setattr(CountRun, "run_stage", broken)
    with pytest.raises(InputError, match="cannot be counted"):
        launch(str(count), [])
    (run,) = (count.parent / "runs" / "count").iterdir()
    assert RunFolder(run).status()["status"] == "failed"
    assert (run / "report.html").is_file()


def test_a_folder_that_could_not_begin_is_removed(count: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(self: CountRun) -> None:
        raise InputError("not today")

    monkeypatch.setattr(CountRun, "begin", refuse)
    with pytest.raises(InputError, match="not today"):
        launch(str(count), [])
    assert not (count.parent / "runs" / "count").exists()
