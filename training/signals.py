"""What a scheduler says to a process: caught at once, acted on where nothing is lost."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from training.rundir import is_first_rank

#: Exit code of a run that was asked to stop, saved itself, and is not finished (EX_TEMPFAIL of sysexits.h: try again).
PREEMPTED = 75


class Preempted(BaseException):
    """The run was asked to stop, and its state is on the disk. No `Exception`: nobody is to catch it on its way."""

    arranged = False
    """Whether it will be run again."""


class StopSignals:
    """Notes USR1 and TERM.

    Outside of a fit there is nothing to save, and the signal stops the run where it is, as Ctrl-C does. In a fit
    (`deferred`) it is a note only: a handler that saved by itself would wait for ranks that are in the middle of a
    collective of their own, for ever. A signal that comes while the run is stopping already changes nothing: `timeout`
    sends each twice, to its child and to its group.
    """

    def __init__(self) -> None:
        self.came: str | None = None
        self.deferred = False

    def __call__(self, number: int, _: FrameType | None = None) -> None:
        """The handler."""
        self.came = signal.Signals(number).name
        if not self.deferred and not _stopping():
            raise Preempted(self.came)

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Signals wait for whoever looks at `came`; one that nobody looked at acts at the end."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False
        if self.came is not None:
            raise Preempted(self.came)


def _stopping() -> bool:
    """Whether what runs now, below this signal's handler, ends a run."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, Preempted):
            return True
        error = error.__context__
    return False


@contextmanager
def handle_signals() -> Iterator[StopSignals]:
    """Catch the signals for as long as a run lasts; elsewhere than in the main thread, Python cannot."""
    signals, before = StopSignals(), dict[int, Any]()
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGUSR1", "SIGTERM"):  # Windows knows no SIGUSR1
            if (number := getattr(signal, name, None)) is not None:
                before[number] = signal.signal(number, signals)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def exit_code(stop: Preempted) -> int:
    """Say what stopped a run, and end it.

    75 of the first rank, unless the run was requeued. The others end with 0: `srun` kills every rank when one ends
    otherwise, and the first still has its report to write.
    """
    if not is_first_rank():
        return 0
    print(stop, file=sys.stderr)
    return 0 if stop.arranged else PREEMPTED
