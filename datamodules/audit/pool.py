"""Process pool that continues after a worker is killed; only the job of that worker fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeVar

from cytovox.io.processes import worker_pool

Job = TypeVar("Job")
Result = TypeVar("Result")

_DIED = "the process that read it was killed, perhaps because memory ran out"


def run_jobs(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    lost: Callable[[Job, str], Result],
    processes: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Return the result of every job; jobs run in several processes.

    Parameters
    ----------
    work : callable
        Function of a module, since processes are spawned.
    jobs : sequence
        Arguments of its calls.
    lost : callable
        Returns the result of a failed job, given the job and the reason.
    processes : int
        Number of processes. 0: all jobs run in this process, which a crashing job ends.
    progress : callable, optional
        Called with (done, all).

    Returns
    -------
    list
        Results in the order of the jobs.
    """
    results: dict[int, Result] = {}

    def keep(index: int, done: Callable[[], Result]) -> None:
        try:
            results[index] = done()
        except BrokenProcessPool:
            raise
        except Exception as error:  # a damaged file may raise anything, and the others are still to be read
            results[index] = lost(jobs[index], f"reading it failed: {type(error).__name__}: {error}")
        if progress is not None:
            progress(len(results), len(jobs))

    waiting = deque(range(len(jobs)))
    if processes == 0:
        for index in waiting:
            keep(index, partial(work, jobs[index]))
    while waiting and processes:
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
    """Run the jobs of `waiting` until none is left or a process dies; return the jobs that were running then."""
    running: dict[Future[Result], int] = {}
    try:
        with worker_pool(processes) as pool:
            while waiting or running:
                while waiting and len(running) < processes:  # never more, so that few jobs are suspected
                    running[pool.submit(work, jobs[waiting[0]])] = waiting[0]
                    waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    keep(running[future], future.result)
                    del running[future]
    except BrokenProcessPool:
        return list(running.values())
    return []
