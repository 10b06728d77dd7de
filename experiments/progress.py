"""What a person sees while a run goes on: bars where Lightning has none, and none of its advice to programmers."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from training.progress_bar import EVERY_S
from training.rundir import is_first_rank

#: Called with (what, done, all).
Progress = Callable[[str, int, int], None]


class Bars:
    """A bar a job on a terminal; in a log file a line a minute, and one when a job is done. A context, to be called.

    Parameters
    ----------
    clock : callable
        Seconds; rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._said, self._ended = clock, clock(), set[str]()
        self._console = Console(stderr=True)
        self._bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._tasks: dict[str, int] = {}

    def __enter__(self) -> Bars:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def __call__(self, what: str, done: int, total: int, item: str = "") -> None:
        """Say that `done` of `total` are done, and which is at hand; only the first rank says it."""
        if not is_first_rank():
            return
        if not self._console.is_terminal:
            now, ends = self._clock(), done >= total and what not in self._ended
            if ends or now - self._said >= EVERY_S:
                self._said = now
                at = f" ({item})" if item and not ends else ""
                print(f"{what}: {done}/{total}{at}", file=sys.stderr, flush=True)
            if ends:
                self._ended.add(what)
            elif done < total:
                self._ended.discard(what)
            return
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)  # type: ignore[arg-type]


def silence_lightning() -> None:
    """Lightning's advice is for programmers; progress bars and our own lines are for the user."""
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*`srun` command is available.*",  # on every login node; in a job it is looked for before
        ".*The ``compute`` method of metric MeanMetric was called before.*",
        ".*recommended to use `self.log.*sync_dist=True.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*could not find the monitored key.*",  # fewer steps than an epoch: nothing was validated
        ".*Early stopping conditioned on metric.*",  # the same; without any validation the module refuses
        ".*across ranks is zero.*",  # more ranks than volumes, or no validation at all
        ".*find_unused_parameters.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*WeightAveraging callback, but.*",
        ".*predict returned None if it was on purpose.*",
        ".*You have overridden `transfer_batch_to_device`.*",
        ".*call of `lr_scheduler.step.*before `optimizer.step.*",  # the scaler of 16-mixed skips a step that overflows
    ):
        warnings.filterwarnings("ignore", message=text)


def wide_console() -> Console:
    """The terminal; in a log file, wide enough for a column a cell line."""
    console = Console()
    return console if console.is_terminal else Console(width=120)
