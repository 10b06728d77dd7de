"""One process at a time in a run folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from cytovox.errors import InputError
from training.rundir import RunFolder, is_first_rank
from training.slurm import GATHER, SCRIPT, is_alive, job_id, still_to_do

#: States of a run that nobody is at work on, whatever its job does now.
ENDED = ("finished", "failed", "interrupted")


@contextmanager
def run_lock(folder: RunFolder, shard: str | None = None) -> Iterator[None]:
    """Keep other processes and other jobs out of a run folder; ranks but the first belong to the first.

    A file's lock ends with its process, however that ends. It may not reach from one node to another, so that a job
    is also asked for.

    Parameters
    ----------
    folder : RunFolder
        Of the run.
    shard : str, optional
        Shards of one prediction work in one folder, on different files: each is kept from its like, and from whoever
        gathers what they have done.

    Raises
    ------
    InputError
        Somebody else is at work there.
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
    status = folder.status()
    for other in dict.fromkeys((key, "job")):
        if other == "job" and status["status"] in ENDED:
            continue  # the job goes on with something else, as that of a notebook does
        earlier = status.get(other)
        if earlier is not None and earlier != mine and is_alive(str(earlier)):
            raise _refusal(folder, f"job {earlier}")
    if key != "job":
        return
    # where jobs may not be requeued, a task of an array goes on in another job, beside the one that gathers
    shards = [str(job) for one, job in status.items() if re.fullmatch(r"job_\d+of\d+", one)]
    gathers = (folder.path / GATHER).is_file()
    if (shards or gathers) and (job := still_to_do(shards, folder.path / SCRIPT if gathers else None)) is not None:
        raise InputError(
            f"run folder {folder.path}: job {job} has a part of it still to do; wait for it to end, or cancel it first"
        )


def _refusal(folder: RunFolder, who: str) -> InputError:
    return InputError(f"run folder {folder.path}: {who} is at work in it; wait for it to end, or stop it first")
