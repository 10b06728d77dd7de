"""Terminal output of a run: progress bars where Lightning has none, notes, and no advice for programmers."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from training.progress_bar import EVERY_S
from training.rundir import is_first_rank

#: Function that reports progress: (what, done, total).
Progress = Callable[[str, int, int], None]


class Bars:
    """Progress bars, one per job; in a log file, one line a minute and one when a job is done.

    A context manager; call it to report progress.

    Parameters
    ----------
    clock : callable
        Returns a monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._printed, self._ended = clock, clock(), set[str]()
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = RichProgress(*columns, console=self._console)
        self._tasks: dict[str, int] = {}

    def __enter__(self) -> Bars:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def __call__(self, what: str, done: int, total: int, item: str = "") -> None:
        """Report that `done` of `total` items of a job are done, and the current item; on the first rank only."""
        if not is_first_rank():
            return
        if not self._console.is_terminal:
            now, ends = self._clock(), done >= total and what not in self._ended
            if ends or now - self._printed >= EVERY_S:
                self._printed = now
                at = f" ({item})" if item and not ends else ""
                print(f"{what}: {done}/{total}{at}", file=sys.stderr, flush=True)
            self._ended = self._ended | {what} if done >= total else self._ended - {what}
            return
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)  # type: ignore[arg-type]


def silence_lightning() -> None:
    """Suppress Lightning's advice, which is meant for programmers."""
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*`srun` command is available.*",  # `require_srun` checks this
        ".*The ``compute`` method of metric MeanMetric was called before.*",
        ".*recommended to use `self.log.*sync_dist=True.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*could not find the monitored key.*",  # a run shorter than an epoch has no validation
        ".*Early stopping conditioned on metric.*",  # the same
        ".*across ranks is zero.*",  # more ranks than volumes, or no validation
        ".*find_unused_parameters.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*WeightAveraging callback, but.*",
        ".*predict returned None if it was on purpose.*",
        ".*You have overridden `transfer_batch_to_device`.*",
        ".*call of `lr_scheduler.step.*before `optimizer.step.*",  # the scaler of 16-mixed skipped a step
    ):
        warnings.filterwarnings("ignore", message=text)


def wide_console() -> Console:
    """Return a console for tables: as wide as the terminal, 120 columns in a log file."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def print_notes(notes: Iterable[str]) -> None:
    """Print notes for the user to stderr."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
