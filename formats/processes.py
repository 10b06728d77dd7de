"""Worker processes that end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor


def worker_pool(processes: int) -> ProcessPoolExecutor:
    """Fresh worker processes (spawned: forking one that has threads can deadlock) that never outlive their parent.

    A worker waits for its next job on a pipe of which it holds both ends, so that nothing tells it of a parent that
    was killed: it would stay for ever, with its memory, and with the parent's output open.

    Parameters
    ----------
    processes : int
        How many at most; they start as jobs come.
    """
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)  # no clean-up: what was being written has a temporary name still

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()
