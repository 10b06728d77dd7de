"""Requests to SLURM by a stopped run, and messages without an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.signals import Preempted, exit_code
from training.slurm import (
    ENV_REQUEUE,
    GATHER,
    is_alive,
    job_id,
    job_number,
    launched_by_srun,
    may_requeue,
    requeue,
    step_size,
    still_to_do,
)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Fake commands of SLURM that record their arguments."""
    folder, expected = tmp_path / "bin", tmp_path / "expected"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    for key in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "WANDB_SWEEP_ID", ENV_REQUEUE):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_PROCID", "0")

    def write(**scripts: str):
        for name, text in scripts.items():
            (folder / name).write_text(f'#!/bin/bash\necho "{name} $@" >> {expected}\n{text}\n')
            (folder / name).chmod(0o755)
        return lambda: expected.read_text().splitlines() if expected.exists() else []

    return write


def test_a_job_is_requeued(tools, tmp_path: Path) -> None:
    output = tools(scontrol="true")
    assert requeue(tmp_path) == "job 12 is requeued"
    assert output()[-1] == "scontrol requeue 12"


def test_only_the_task_of_an_array_is_requeued(tools, monkeypatch, tmp_path: Path) -> None:
    output = tools(scontrol="true")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "11")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    assert job_id() == "11_4"
    requeue(tmp_path)
    assert output()[-1] == "scontrol requeue 11_4"


def test_a_dependent_job_is_submitted_if_requeue_is_forbidden(tools, tmp_path: Path, capsys) -> None:
    output = tools(
        scontrol='[ "$1" = show ] || { echo "Requested operation is disabled" >&2; exit 1; }', sbatch="echo 13"
    )
    assert requeue(tmp_path) is None
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "job.sh").touch()
    assert requeue(tmp_path) == "job 13 continues when 12 has ended"
    assert output()[-1] == f"sbatch --parsable --dependency=afterany:12 {tmp_path}/slurm/job.sh"
    assert "Requested operation is disabled" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["4", None])
def test_the_gathering_job_waits_for_the_dependent_job(tools, monkeypatch, tmp_path: Path, task) -> None:
    output = tools(scontrol='[ "$1" = show ]', sbatch="echo Welcome; echo 13")
    gather = tmp_path / GATHER
    gather.parent.mkdir(parents=True)
    gather.touch()
    (tmp_path / "slurm" / "job.sh").touch()
    if task is not None:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "11")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
    assert requeue(tmp_path) == f"job 13 continues when {job_id()} has ended"
    if task is not None:
        assert output()[-2:] == [
            f"sbatch --parsable --dependency=afterany:12 --array=4 {tmp_path}/slurm/job.sh",
            f"sbatch --parsable --dependency=afterany:13 {gather}",
        ]
    else:  # what gathers goes on itself: the array is done
        assert output()[-1] == f"sbatch --parsable --dependency=afterany:12 {gather}"


def test_the_job_number_is_in_the_last_line_of_sbatch() -> None:
    assert job_number("17\n") == job_number("17;cluster\n") == job_number("Welcome to 3 clusters\n17\n") == "17"
    for wrong in ("", "Welcome", "17\nBye", "Submitted batch job 17"):
        assert job_number(wrong) is None


def test_unfinished_jobs_are_found_by_number_or_script(tools, monkeypatch, tmp_path: Path) -> None:
    script = tmp_path / "it is" / "job.sh"
    output = tools(squeue=f'[ "${{@: -1}}" = --me ] && echo "40_1 PENDING {script}"; echo "11_2 $STATE /else"')
    for state, found in (("RUNNING", "11_2"), ("PENDING", "11_2"), ("COMPLETING", None), ("", None)):
        monkeypatch.setenv("STATE", state)
        assert still_to_do(["11_1", "11_2"], None) == found
    assert output()[-1] == "squeue --noheader --array --format=%i %T %o --jobs 11_1,11_2"
    assert still_to_do([], script) == "40_1"
    assert still_to_do([], tmp_path / "job.sh") is None
    monkeypatch.setenv("SLURM_JOB_ID", "40_1")
    assert still_to_do([], script) is None  # that is this very job
    tools(squeue="exit 1")
    assert still_to_do(["11_1"], script) is None


@pytest.mark.parametrize(("name", "expected"), [("cells", True), ("bash", False), ("interactive", False)])
def test_an_interactive_job_is_not_launched_by_srun(tools, monkeypatch, name: str, expected: bool) -> None:
    monkeypatch.setenv("SLURM_JOB_NAME", name)
    assert launched_by_srun() == expected


def test_requeue_returns_none_without_slurm_commands(tools, tmp_path: Path) -> None:
    tools()
    assert requeue(tmp_path) is None


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING"])
def test_a_cancelled_job_stays_cancelled(tools, tmp_path: Path, capsys, state: str) -> None:
    output = tools(scontrol=f"echo JobId=12 JobState={state} Reason=None")
    assert requeue(tmp_path) is None
    assert all("requeue" not in line for line in output())
    assert "was cancelled" in capsys.readouterr().err


def test_conditions_of_a_requeue(tools, monkeypatch) -> None:
    assert may_requeue(Preempted("stopped by SIGTERM"))
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")  # hyperband ends a run with SIGTERM
    assert not may_requeue(Preempted("stopped by SIGTERM"))
    assert may_requeue(Preempted("stopped by SIGUSR1"))
    monkeypatch.setenv(ENV_REQUEUE, "no")
    assert not may_requeue(Preempted("stopped by SIGUSR1"))
    monkeypatch.delenv(ENV_REQUEUE)
    monkeypatch.delenv("SLURM_JOB_ID")
    assert not may_requeue(Preempted("stopped by SIGUSR1"))


def test_step_size_reads_nodes_and_tasks_of_the_job_step(monkeypatch) -> None:
    for key in ("SLURM_STEP_ID", "SLURM_STEP_NUM_NODES", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(key, raising=False)
    assert step_size() is None
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "16")
    assert step_size() is None  # a shell in a job
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert step_size() == (2, 8)


def test_exit_code_is_75_or_0_if_requeued(capsys) -> None:
    stop = Preempted("stopped by SIGUSR1; continue with resume=x")
    assert exit_code(stop) == 75
    assert "continue with resume=x" in capsys.readouterr().err
    stop.requeued = True
    assert exit_code(stop) == 0


def test_only_a_running_job_is_alive(tools) -> None:
    tools(squeue="echo RUNNING")
    assert is_alive("12")
    tools(squeue="echo PENDING")
    assert not is_alive("12")
    tools(squeue="exit 1")
    assert not is_alive("12")
