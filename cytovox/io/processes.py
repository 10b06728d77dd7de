"""Worker processes that end with their parent process; only the parent handles signals."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

#: What a terminal, `timeout` and a scheduler send to a whole process group, workers included.
_STOPS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))


class WorkerPool(ProcessPoolExecutor):
    """Process pool whose workers ignore signals to the process group, and can be terminated at any time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `ProcessPoolExecutor`. A worker that is started here inherits that the signals are held back."""
        with signals_held():
            return super().submit(fn, *args, **kwargs)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Wait for the workers; not where the run is being stopped, as by Ctrl-C."""
        if kind is not None and not issubclass(kind, Exception):
            self.abandon()
        else:
            self.shutdown(wait=True, cancel_futures=kind is not None)

    def abandon(self) -> None:
        """Terminate the workers immediately: files being written still have temporary names."""
        workers = list((self._processes or {}).values())
        self.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.kill()  # SIGTERM would be lost where one to the group waits still: both are delivered as one


def worker_pool(processes: int) -> WorkerPool:
    """Fresh worker processes (spawned: forking one that has threads can deadlock) that never outlive their parent.

    A worker waits for its next job on a pipe of which it holds both ends, so that nothing tells it of a parent that
    was killed: it would stay for ever, with its memory, and with the parent's output open. Of the signals that go to a
    whole process group, the parent decides: see `leave_signals_to_parent`.

    Parameters
    ----------
    processes : int
        How many at most; they start as jobs come.
    """
    with signals_held():  # also in Python's own helper, which ignores but two of them
        resource_tracker.ensure_running()
    return WorkerPool(processes, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)


@contextmanager
def signals_held() -> Iterator[None]:
    """Block the signals that stop a run, also for processes started in the block; they are received afterwards.

    A worker would die of a signal that comes before it has arranged to ignore it, while it imports for one.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows, which has no process groups of this kind
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_parent() -> None:
    """Ignore signals to the process group in a worker: the parent saves the run and ends the worker.

    SIGTERM from the parent itself ends the worker still: that is how pools and loaders end theirs. Who sent a signal
    is known where it is waited for (Linux); elsewhere SIGTERM ends the worker, whoever sends it.
    """
    for number in _STOPS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # in threads to come, too

    def wait() -> None:
        while True:
            if signal.sigwaitinfo({signal.SIGTERM}).si_pid == os.getppid():
                os._exit(0)

    threading.Thread(target=wait, name="leave-signals-to-parent", daemon=True).start()


def _begin() -> None:
    leave_signals_to_parent()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)  # no clean-up: what was being written has a temporary name still

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()
