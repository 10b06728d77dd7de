"""Processes that share a run folder: one run at a time, and ranks that wait until the first has prepared the data."""

import glob
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cytovox.errors import InputError
from cytovox.io.deletion import remove_file
from training.rundir import RunFolder, is_first_rank
from training.slurm import GATHER, SCRIPT, is_alive, job_id, still_to_do

#: States of a run that no process is working on, even if its job is still running.
ENDED = ("finished", "failed", "interrupted")
#: Seconds between two checks for the mark of prepared data.
LOOK_S = 0.5


@contextmanager
def run_lock(folder: RunFolder, shard: str | None = None) -> Iterator[None]:
    """Lock a run folder against other processes and other jobs; ranks other than the first rely on the first.

    A file lock ends with its process, but may not be visible on other nodes. Therefore the job that is recorded in the
    folder is checked, too.

    Parameters
    ----------
    folder : RunFolder
        Run folder.
    shard : str, optional
        Part of the inputs, such as 3of16. Shards of one prediction work in the same folder on different files: each is
        locked against the same shard and against the job that gathers the results.

    Raises
    ------
    InputError
        Another process or job is working in the folder.
    """
    if not is_first_rank():
        yield
        return
    key = "job" if shard is None else f"job_{shard}"
    try:
        with FileLock(folder.path / (".lock" if shard is None else f".lock-{shard}")).acquire(timeout=0):
            mine = job_id()
            _require_alone(folder, key, mine)
            if mine is not None:
                folder.update_status(**{key: mine})
            yield
    except Timeout:
        raise _refusal(folder, "another process") from None


def _require_alone(folder: RunFolder, key: str, mine: str | None) -> None:
    """Refuse to work in a folder in which another job is working, or of which shards are missing."""
    status = folder.status()
    for other in dict.fromkeys((key, "job")):
        if other == "job" and status["status"] in ENDED:
            continue  # its job may run on without this run, as that of a notebook does
        earlier = status.get(other)
        if earlier is not None and earlier != mine and is_alive(str(earlier)):
            raise _refusal(folder, f"job {earlier}")
    if key != "job":
        return
    # if jobs cannot be requeued, a task of an array continues in another job, which the gathering job did not wait for
    shards = [str(job) for one, job in status.items() if re.fullmatch(r"job_\d+of\d+", one)]
    gathers = (folder.path / GATHER).is_file()
    if (shards or gathers) and (job := still_to_do(shards, folder.path / SCRIPT if gathers else None)) is not None:
        raise InputError(
            f"run folder {folder.path}: job {job} has a part of it still to do; wait for it to end, or cancel it first"
        )


def _refusal(folder: RunFolder, who: str) -> InputError:
    return InputError(f"run folder {folder.path}: {who} is working in it; wait for it to end, or stop it first")


def mark_ready(folder: RunFolder) -> None:
    """Mark the data as prepared, on the first rank."""
    # only old marks of this job are removed: tasks of an array share the folder
    for old in folder.path.glob(f".ready-{glob.escape(_job())}-*"):
        if old.stat().st_size == 0:
            remove_file(old, folder.path)
    _mark(folder).touch()


def wait_until_ready(folder: RunFolder) -> None:
    """Wait for the mark of the first rank, on the other ranks.

    Preparing the data may take longer than the half hour after which torch's rendezvous gives up. There is no time
    limit: if the first rank fails, `srun` ends the others.
    """
    while not _mark(folder).exists():
        time.sleep(LOOK_S)


def _mark(folder: RunFolder) -> Path:
    """Return the path of the mark, which differs between job steps and restarts."""
    names = ("SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    return folder.path / ".ready-{}-{}-{}".format(_job(), *(os.environ.get(name, "0") for name in names))


def _job() -> str:
    """Return the job id, which differs between the tasks of an array."""
    return os.environ.get("SLURM_JOB_ID", "0")
