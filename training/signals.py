"""Signals of a scheduler: recorded when they arrive, acted on when the run can be saved."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from training.rundir import is_first_rank

#: Exit code of a run that was stopped by a signal, saved its state, and is not finished (EX_TEMPFAIL of sysexits.h).
PREEMPTED = 75


class Preempted(BaseException):
    """The run was stopped by a signal, and its state is saved. Not an `Exception`, so no handler catches it."""

    requeued = False
    """Whether a job that resumes the run is queued already."""


class StopSignals:
    """Handler of SIGUSR1 and SIGTERM.

    Outside of a training there is nothing to save: the signal stops the run at once, like Ctrl-C. During a training
    (`deferred`) it is only recorded: a handler that saved the state would wait forever for ranks that are within
    another collective. A signal that arrives while the run is stopping is ignored: `timeout` sends each signal twice,
    to its child and to its process group.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        """Name of the last signal."""
        self.deferred = False
        """Whether signals are only recorded."""

    def __call__(self, number: int, _: FrameType | None = None) -> None:
        """Record a signal; raise `Preempted` unless it is deferred or the run is stopping."""
        self.received = signal.Signals(number).name
        if not self.deferred and not _stopping():
            raise Preempted(self.received)

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Only record signals within the block; raise `Preempted` at its end if one came."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False
        if self.received is not None:
            raise Preempted(self.received)


def _stopping() -> bool:
    """Return whether a `Preempted` is being handled in the code that the signal interrupted."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, Preempted):
        error = error.__context__
    return error is not None


@contextmanager
def handle_signals() -> Iterator[StopSignals]:
    """Install the handler for the block; outside of the main thread, Python does not allow that."""
    signals, before = StopSignals(), dict[int, Any]()
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGUSR1", "SIGTERM"):  # Windows has no SIGUSR1
            if (number := getattr(signal, name, None)) is not None:
                before[number] = signal.signal(number, signals)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def exit_code(stop: Preempted) -> int:
    """Print what stopped a run and return its exit code.

    The first rank returns 75 unless the run was requeued. The other ranks return 0: `srun` kills all ranks when one
    fails, and the first rank still has to write the report.
    """
    if not is_first_rank():
        return 0
    print(stop, file=sys.stderr)
    return 0 if stop.requeued else PREEMPTED
