"""One process at a time in a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from formats.errors import InputError
from training.rundir import RunFolder, is_first_rank
from training.slurm import is_alive, job_id


@contextmanager
def sole_user(folder: RunFolder, shard: str | None = None) -> Iterator[None]:
    """Keep other processes and other jobs out of a run folder; ranks but the first belong to the first.

    A file's lock ends with its process, however that ends. It may not reach from one node to another, so that a job
    is also asked for.

    Parameters
    ----------
    folder : RunFolder
        Of the run.
    shard : str, optional
        Shards of one prediction work in one folder, on different files: each is kept from its like only.

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
            earlier, mine = folder.status().get(key), job_id()
            if earlier is not None and earlier != mine and is_alive(str(earlier)):
                raise _refusal(folder, f"job {earlier}")
            if mine is not None:
                folder.update_status(**{key: mine})
            yield
    except Timeout:
        raise _refusal(folder, "another process") from None


def _refusal(folder: RunFolder, who: str) -> InputError:
    return InputError(f"run folder {folder.path}: {who} is at work in it; wait for it to end, or stop it first")
