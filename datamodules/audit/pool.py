"""Work spread over processes that may die: one that does costs the job it was at, and no other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from cytovox.io.processes import worker_pool

Job = TypeVar("Job")
Result = TypeVar("Result")

_DIED = "the process that read it was ended, perhaps for want of memory"


def do_all(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    lost: Callable[[Job, str], Result],
    processes: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Do every job, each in one of several processes.

    Parameters
    ----------
    work : callable
        A module's function, as processes are spawned.
    jobs : sequence
        What it is called with.
    lost : callable
        Makes a result for a job that failed, from the job and the reason.
    processes : int
        0 works in this process, where a job that ends its process ends the program.
    progress : callable, optional
        Called with (done, all).

    Returns
    -------
    list
        A result for each job, in their order.
    """
    results: dict[int, Result] = {}

    def keep(index: int, done: Callable[[], Result]) -> None:
        try:
            results[index] = done()
        except BrokenProcessPool:
            raise
        except Exception as error:  # whatever a damaged file may bring about: the others are still to be read
            results[index] = lost(jobs[index], f"reading it failed: {type(error).__name__}: {error}")
        if progress is not None:
            progress(len(results), len(jobs))

    waiting = deque(range(len(jobs)))
    if processes == 0:
        for index in waiting:
            keep(index, lambda at=index: work(jobs[at]))  # type: ignore[misc]
        return [results[index] for index in range(len(jobs))]
    while waiting:
        for suspect in _until_broken(work, jobs, waiting, keep, min(processes, len(waiting))):
            alone = deque([suspect])
            if suspect not in results and _until_broken(work, jobs, alone, keep, 1):
                results[suspect] = lost(jobs[suspect], _DIED)
    return [results[index] for index in range(len(jobs))]


def _until_broken(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    waiting: deque[int],
    keep: Callable[[int, Callable[[], Result]], None],
    processes: int,
) -> list[int]:
    """Take jobs from `waiting` until none is left or a process died; those that were at work when it did."""
    running: dict[Future[Result], int] = {}
    try:
        with worker_pool(processes) as pool:
            while waiting or running:
                while waiting and len(running) < processes:  # no more, or an innocent job would be suspected
                    running[pool.submit(work, jobs[waiting[0]])] = waiting[0]
                    waiting.popleft()
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    keep(running[future], future.result)
                    del running[future]
    except BrokenProcessPool:
        return list(running.values())
    return []
