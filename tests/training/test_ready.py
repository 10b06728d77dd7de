"""Ranks wait for the first one of this very start."""

import threading

from training.ready import tell_ready, wait_until_ready
from training.rundir import RunFolder


def test_the_others_wait_for_the_first_of_this_start(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    tell_ready(folder)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # requeued: what the first start left does not count
    waiting = threading.Thread(target=wait_until_ready, args=(folder,), daemon=True)
    waiting.start()
    waiting.join(1.2)
    assert waiting.is_alive()
    tell_ready(folder)
    waiting.join(5)
    assert not waiting.is_alive()
    assert len(list(tmp_path.glob(".ready-*"))) == 1


def test_a_task_of_an_array_leaves_the_others_ranks_their_mark(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    for job in ("7", "78", "9"):  # one folder, three jobs
        monkeypatch.setenv("SLURM_JOB_ID", job)
        tell_ready(folder)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    tell_ready(folder)
    for job in ("7", "78", "9"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        waiting = threading.Thread(target=wait_until_ready, args=(folder,), daemon=True)
        waiting.start()
        waiting.join(2)
        assert not waiting.is_alive(), job
