"""Locks of a run folder between SLURM jobs, and the mark of prepared data."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cytovox.errors import InputError
from training.run_lock import mark_ready, run_lock, wait_until_ready
from training.rundir import RunFolder
from training.slurm import GATHER


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A `squeue` that prints a given text."""
    tools, said = tmp_path / "bin", tmp_path / "said"
    tools.mkdir()
    (tools / "squeue").write_text(
        f'#!/bin/bash\ncase "$*" in *%o*) cat {said};; *) grep -o "^$3 [A-Z]*" {said} | cut -d " " -f 2;; esac\n'
    )
    (tools / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    for key in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "20")
    return lambda *lines: said.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_gathering_is_refused_while_a_shard_is_unfinished(queue, folder: RunFolder, state: str) -> None:
    folder.update_status(job_0of2="11_0", job_1of2="11_1")
    queue(f"11_1 {state} /somebody/job.sh")
    with pytest.raises(InputError, match=r"run folder .*: job 11_1 has a part of it still to do; wait") as error:
        run_lock(folder).__enter__()
    assert "\n" not in str(error.value)
    assert "job" not in folder.status()
    queue("11_1 COMPLETING /somebody/job.sh")  # what waited for it has begun
    with run_lock(folder):
        assert folder.status()["job"] == "20"


def test_gathering_is_refused_while_a_dependent_job_is_unfinished(queue, folder: RunFolder) -> None:
    """Only SLURM lists this job, the run folder does not."""
    (folder.path / GATHER).parent.mkdir(parents=True)
    (folder.path / GATHER).touch()
    queue(f"30_1 PENDING {folder.path}/slurm/job.sh", f"20 RUNNING {folder.path}/slurm/gather/job.sh")
    with pytest.raises(InputError, match="job 30_1 has a part of it"):
        run_lock(folder).__enter__()
    queue("30_1 PENDING /another/run/slurm/job.sh")
    with run_lock(folder):
        pass


def test_shards_run_concurrently_and_not_beside_the_gathering_job(queue, folder: RunFolder) -> None:
    folder.update_status(job_0of2="11_0", job="12")
    queue("11_0 RUNNING x", "12 COMPLETED y")
    with run_lock(folder, "1of2"):
        assert folder.status()["job_1of2"] == "20"
    queue("11_0 RUNNING x", "12 RUNNING y")
    with pytest.raises(InputError, match="job 12 is working in it"):
        run_lock(folder, "1of2").__enter__()


def test_a_run_that_is_no_array_ignores_pending_jobs(queue, folder: RunFolder) -> None:
    folder.update_status(job="12")
    queue(f"30 PENDING {folder.path}/slurm/job.sh", "12 COMPLETED y")
    with run_lock(folder):
        pass


@pytest.mark.parametrize(("status", "free"), [("running", False), ("preempted", False), ("finished", True),
                                              ("failed", True), ("interrupted", True)])  # fmt: skip
def test_an_ended_run_is_unlocked_while_its_job_continues(queue, folder: RunFolder, status: str, free: bool) -> None:
    """For example the job of a notebook, or of an agent that works on another run."""
    folder.update_status(job="12", status=status)
    queue("12 RUNNING y")
    if free:
        with run_lock(folder):
            assert folder.status()["job"] == "20"
    else:
        with pytest.raises(InputError, match="job 12 is working in it"):
            run_lock(folder).__enter__()


def test_other_ranks_wait_for_rank_0_of_the_same_start(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    mark_ready(folder)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # requeued: what the first start left does not count
    waiting = threading.Thread(target=wait_until_ready, args=(folder,), daemon=True)
    waiting.start()
    waiting.join(1.2)
    assert waiting.is_alive()
    mark_ready(folder)
    waiting.join(5)
    assert not waiting.is_alive()
    assert len(list(tmp_path.glob(".ready-*"))) == 1


def test_an_array_task_keeps_the_marks_of_other_tasks(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    for job in ("7", "78", "9"):  # one folder, three jobs
        monkeypatch.setenv("SLURM_JOB_ID", job)
        mark_ready(folder)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    mark_ready(folder)
    for job in ("7", "78", "9"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        waiting = threading.Thread(target=wait_until_ready, args=(folder,), daemon=True)
        waiting.start()
        waiting.join(2)
        assert not waiting.is_alive(), job
