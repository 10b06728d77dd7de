"""Sweeps as SLURM jobs, and errors before submission; shell scripts replace the commands of SLURM."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiments.submit.config import SlurmConfig
from experiments.submit.job import Job, script_of
from experiments.sweep import main
from experiments.sweeps import agent
from experiments.sweeps.state import SweepState
from training.signals import Preempted

CPU = ["slurm.gpus_per_node=0", "slurm.array=2"]


@pytest.fixture
def tools(tmp_path: Path, monkeypatch) -> Path:
    """SLURM's commands: `sbatch` leaves a trace, the others answer what a script of ours asks."""
    folder = tmp_path / "bin"
    folder.mkdir()
    scripts = {"sbatch": f"touch {tmp_path / 'submitted'}; echo 12", "scontrol": "echo localhost", "squeue": "exit 1"}
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for key in ("SLURM_JOB_ID", "CYTOVOX_SITE", "CYTOVOX_WRAP"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.chdir(tmp_path)
    return folder


def environment_of(config: SlurmConfig, tools: Path, tmp_path: Path, name: str) -> str:
    """A variable as the module that a job's script starts sees it."""
    (tmp_path / "shown.py").write_text(f"import os; open('seen', 'w').write(os.environ.get({name!r}, ''))")
    folder = tmp_path / "job"
    folder.mkdir(exist_ok=True)
    text = script_of(Job("sweep", folder, ["shown"], steps=False, array=2), config, tmp_path, sys.executable)
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "localhost",
                   "SLURM_CPUS_PER_TASK": "5", "SCRATCH": "/a b/über"}  # fmt: skip
    done = subprocess.run(["bash"], input=text, text=True, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return (tmp_path / "seen").read_text()


def test_runs_of_an_agent_have_the_cores_of_a_rank(tools: Path, tmp_path: Path) -> None:
    assert environment_of(SlurmConfig(gpus_per_node=0), tools, tmp_path, "SRUN_CPUS_PER_TASK") == "5"


def test_the_agent_runs_outside_the_container_and_its_runs_inside(
    write_sweep, tools: Path, tmp_path: Path, monkeypatch
) -> None:
    config = SlurmConfig(gpus_per_node=0, wrap='apptainer exec --bind "$SCRATCH" a.sif', python="python3")
    wrap = environment_of(config, tools, tmp_path, "CYTOVOX_WRAP")  # by the agent's interpreter, not apptainer's
    monkeypatch.setenv("CYTOVOX_WRAP", wrap)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    (tools / "srun").write_text('#!/bin/bash\nprintf "%s\\n" "$@" > words\n')
    (tools / "srun").chmod(0o755)
    assert main([str(write_sweep(parameters={"seed": {"values": [0]}}))]) == 2  # nothing was run
    words = (tmp_path / "words").read_text().splitlines()
    assert words[:6] == ["--kill-on-bad-exit=1", "apptainer", "exec", "--bind", "/a b/über", "a.sif"]
    assert words[6].endswith("env")
    assert words[7:10] == ["python3", "-m", "experiments.run"]
    assert "seed=0" in words


def test_without_a_container_there_is_no_wrapper(tools: Path, tmp_path: Path) -> None:
    assert environment_of(SlurmConfig(gpus_per_node=0, python=sys.executable), tools, tmp_path, "CYTOVOX_WRAP") == ""


@pytest.mark.parametrize("served", [True, False])
def test_slurm_wrap_with_srun_in_the_command_is_refused(
    write_sweep, tools: Path, tmp_path: Path, capsys, served: bool
) -> None:
    path = write_sweep()
    tree = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**tree, "command": ["srun", *tree["command"]]}))
    name = "cells/sweeps/abc123" if served else str(path)
    wrap = "slurm.wrap=apptainer exec a.sif"
    assert main([name, "--submit", *CPU, wrap]) == 2
    assert "slurm.wrap: the sweep's own command starts its runs with srun" in capsys.readouterr().err
    assert not (tmp_path / "submitted").exists()
    assert main([name, "--submit", *CPU, wrap, "slurm.wrap=null"]) == 0
    assert (tmp_path / "submitted").exists()


def test_check_with_submit_is_refused(write_sweep, tools: Path, tmp_path: Path, capsys) -> None:
    assert main([str(write_sweep()), "--check", "--submit", *CPU]) == 2
    assert capsys.readouterr().err == "--submit: not with --check; leave one of them out\n"
    assert not (tmp_path / "submitted").exists()


@pytest.mark.parametrize("words", [[], ["--submit", *CPU]])
def test_an_unwritable_runs_dir_is_reported_in_one_line(
    write_sweep, tools: Path, tmp_path: Path, capsys, words: list[str]
) -> None:
    (tmp_path / "runs").touch()  # a file where the folder should be: root may write anywhere else
    assert main([str(write_sweep()), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"runs_dir: {tmp_path / 'runs' / 'sweeps'}")
    assert "choose another with runs_dir=" in line
    assert not (tmp_path / "submitted").exists()


def test_a_sweep_of_a_server_needs_a_writable_folder(tools: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "runs").touch()
    assert main(["cells/sweeps/abc123", "--submit", *CPU]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("--submit: ")
    assert "runs_dir" not in line
    assert not (tmp_path / "submitted").exists()


@pytest.mark.parametrize("where", [SweepState, agent])
def test_a_full_disk_is_reported_in_one_line(write_sweep, monkeypatch, capsys, where: object) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/runs/sweeps/.lock")

    monkeypatch.setattr(where, "take" if where is SweepState else "write_results", full)
    monkeypatch.setattr(agent, "_run", lambda *_: None)
    assert main([str(write_sweep())]) == 2
    assert capsys.readouterr().err == "/runs/sweeps/.lock: no space left: free some space, then run again\n"


@pytest.mark.parametrize(("sweep", "signal", "again"), [("abc", "SIGTERM", False), ("abc", "SIGUSR1", True),
                                                        (None, "SIGTERM", True)])  # fmt: skip
def test_a_run_ended_by_hyperband_is_not_marked_as_preempted(
    cli, tiny: Path, tmp_path: Path, monkeypatch, sweep: str | None, signal: str, again: bool
) -> None:
    reported = []
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    if sweep is not None:
        monkeypatch.setenv("WANDB_SWEEP_ID", sweep)

    def stop(_: object) -> None:
        raise Preempted(signal)

    monkeypatch.setattr("experiments.stages.Run.fit", stop)
    monkeypatch.setattr("experiments.stages.finish", lambda _, ended_well, preempted: reported.append(preempted))
    assert cli(tiny, "stages=[fit]", f"runs_dir={tmp_path}").code == 75
    assert reported == [again]
