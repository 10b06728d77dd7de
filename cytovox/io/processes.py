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

#: Signals that a terminal, `timeout` or a scheduler sends to a whole process group, including workers.
_STOPS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))


class WorkerPool(ProcessPoolExecutor):
    """Process pool whose workers ignore signals to the process group, and can be terminated at any time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `ProcessPoolExecutor`. A worker that is started here inherits the blocked signals."""
        with signals_held():
            return super().submit(fn, *args, **kwargs)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Wait for the workers, except when the run is being stopped, for example by Ctrl-C."""
        if kind is not None and not issubclass(kind, Exception):
            self.abandon()
        else:
            self.shutdown(wait=True, cancel_futures=kind is not None)

    def abandon(self) -> None:
        """Terminate the workers immediately: files being written still have temporary names."""
        workers = list((self._processes or {}).values())
        self.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.kill()  # a SIGTERM would be lost if one to the group is still pending: both are delivered as one


def worker_pool(processes: int) -> WorkerPool:
    """Return a pool of new worker processes that end with their parent.

    Processes are spawned, because forking a process with threads can deadlock. A worker waits for its next job on a
    pipe of which it holds both ends, so it would not notice that its parent was killed. It would never end, and would
    keep its memory and the parent's output. Only the parent handles signals to the whole process group; see
    `leave_signals_to_parent`.

    Parameters
    ----------
    processes : int
        Largest number of processes; they are started when jobs are submitted.
    """
    with signals_held():  # also in Python's own helper process, which ignores only two of them
        resource_tracker.ensure_running()
    return WorkerPool(processes, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)


@contextmanager
def signals_held() -> Iterator[None]:
    """Block the signals that stop a run until the end of the block, also in processes that are started in it.

    A signal would end a worker that does not ignore it yet, for example during its imports.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows has no such process groups
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_parent() -> None:
    """Ignore signals to the process group in a worker; the parent saves the run and ends the worker.

    SIGTERM from the parent itself ends the worker, because pools and loaders end their workers by it. On Linux the
    sender of a signal is known, since a thread waits for the signal. On other systems SIGTERM from any sender ends the
    worker.
    """
    for number in _STOPS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # also in later threads

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
        os._exit(1)  # no clean-up: incomplete files still have temporary names

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()
