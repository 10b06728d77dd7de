"""What is known of the runs of a sweep: one file that several agents share, whole at any moment."""

from __future__ import annotations

import csv
import json
import random
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from cytovox.errors import InputError
from experiments.preflight import require_room
from experiments.sweeps.sweep_file import Sweep
from training.rundir import RunFolder, write_json

#: Runs that will not go on.
ENDED = ("finished", "failed", "stopped")
#: Our states in the words of W&B's engine.
_STATES = {"running": "running", "finished": "finished", "failed": "failed", "stopped": "killed"}


@dataclass
class SweepRun:
    """One run of a sweep."""

    number: int
    suggested: dict[str, Any]
    """Exactly as the engine gave it: 0.0 turned into 0 would be another point, and a grid would repeat it for ever."""
    folder: str
    """Of the run, once it has begun."""
    state: str = "running"
    """running, finished, failed, or stopped early."""
    history: list[dict[str, float]] = field(default_factory=list)
    """The metric, as often as it was validated."""
    metric: float | None = None
    """What the run came to."""


class SweepState:
    """The runs of a sweep in `runs.json`, and the engine's next suggestion.

    Parameters
    ----------
    sweep : Sweep
        What is searched.

    Raises
    ------
    InputError
        Its folder cannot be made or written to.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep, self.path = sweep, sweep.folder / "runs.json"
        require_room(sweep.folder, "runs_dir")
        sweep.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[list[SweepRun]]:
        """The runs, for one agent at a time; written when the block ends."""
        with FileLock(self.sweep.folder / ".lock"):
            runs = self.runs()
            yield runs
            write_json(self.path, [asdict(run) for run in runs])

    def runs(self) -> list[SweepRun]:
        """All runs so far."""
        with suppress(FileNotFoundError):
            return [SweepRun(**entry) for entry in json.loads(self.path.read_text(encoding="utf-8"))]
        return []

    @contextmanager
    def take(self, count: int | None, again: Collection[int] = ()) -> Iterator[SweepRun | None]:
        """A run for this agent: one that another has left, else the engine's next; None where there is none.

        Parameters
        ----------
        count : int or None
            Runs of the sweep in all; None for as many as the engine has.
        again : collection of int
            Failed runs that are begun again when there is no other: a few that always fail hold up nothing.
        """
        with self._locked() as runs:
            found = next((r for r in runs if r.state not in ENDED and self._is_free(r)), None)
            limit = min(count or 10**9, int(self.sweep.values.get("run_cap") or 10**9))
            if self._reached(runs):
                limit = 0
            if found is None and len(runs) < limit and (suggested := self._suggest(runs)) is not None:
                parent = Path(self.sweep.typed.runs_dir).absolute() / self.sweep.typed.name
                number = len(runs)
                found = SweepRun(number, suggested, str(parent / f"{self.sweep.id}-{number:03d}"))
                runs.append(found)
            if found is None:
                found = next((r for r in runs if r.state == "failed" and r.number in again and self._is_free(r)), None)
            if found is not None:
                found.state = "running"
            lock = self._lock(found) if found is not None else None
            if lock is not None:
                lock.acquire(timeout=0)
        try:
            yield found
        finally:
            if lock is not None:
                lock.release()

    def _reached(self, runs: list[SweepRun]) -> bool:
        """Whether a run has come to `metric.target`, where the sweep names one."""
        target = (self.sweep.values.get("metric") or {}).get("target")
        known = [run.metric for run in runs if run.metric is not None]
        _, larger = self.sweep.metric
        return target is not None and any(value >= target if larger else value <= target for value in known)

    def note(self, run: SweepRun) -> None:
        """Keep what became of a run."""
        with self._locked() as runs:
            runs[run.number] = run

    def to_stop(self, run: SweepRun) -> bool:
        """Whether the sweep's early termination (hyperband) ends a run now."""
        if not self.sweep.values.get("early_terminate"):
            return False
        self.note(run)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import sweeps

            known = [self._told(one, banded=True) for one in self.runs()]
            return any(stopped.name == str(run.number) for stopped in sweeps.stop_runs(self.sweep.for_engine, known))

    def _suggest(self, runs: list[SweepRun]) -> dict[str, Any] | None:
        """The engine's next point, the same for the same runs so far."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import sweeps

            seed = (self.sweep.typed.seed + 7919 * len(runs)) % 2**32
            random.seed(seed)  # the engine draws from both
            np.random.seed(seed)  # noqa: NPY002
            found = sweeps.next_run(self.sweep.for_engine, [self._told(run) for run in runs])
        if found is None:
            return None
        suggested = {key: _plain(entry["value"]) for key, entry in found.config.items()}
        if self.sweep.values["method"] == "grid" and any(run.suggested == suggested for run in runs):
            raise InputError(
                f"{self.sweep.path.name}: W&B's sweep engine repeats a point of the grid ({suggested}); it cannot tell "
                "these parameters apart: list their values, as numbers or texts"
            )
        return suggested

    def _told(self, run: SweepRun, banded: bool = False) -> Any:
        """A run as the engine wants it; `banded` as its hyperband does."""
        import sweeps

        name, _ = self.sweep.metric
        # the n-th validation belongs to band n; engines before 0.3 look one further (`h[band]`), so give them one more
        first = run.history[:1] if banded and _version(sweeps.__version__) < (0, 3) else []
        return sweeps.SweepRun(
            name=str(run.number),
            state=_STATES[run.state],
            config={key: {"value": value} for key, value in run.suggested.items()},
            sampledHistory=[*first, *run.history],
            summaryMetrics={} if run.metric is None else {name: run.metric},
        )

    def _lock(self, run: SweepRun) -> FileLock:
        return FileLock(self.sweep.folder / f".run-{run.number:03d}.lock")

    def _is_free(self, run: SweepRun) -> bool:
        try:
            with self._lock(run).acquire(timeout=0):
                return True
        except Timeout:
            return False


def _version(text: str) -> tuple[int, int]:
    major, minor, *_ = (int("".join(filter(str.isdigit, part)) or 0) for part in f"{text}.0".split("."))
    return major, minor


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def read_history(run: SweepRun, metric: str) -> list[dict[str, float]]:
    """The metric of a run, row by row of its `metrics.csv`."""
    found = []
    with suppress(OSError, ValueError), (Path(run.folder) / "metrics.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row.get(metric):
                found.append({"_step": float(row["step"]), metric: float(row[metric])})
    return found


def read_metric(run: SweepRun, metric: str) -> float | None:
    """What a finished run says of the metric; else its last validation."""
    value = RunFolder(Path(run.folder)).metrics().get(metric)
    if value is None and run.history:
        value = run.history[-1][metric]
    return value


def logged(run: SweepRun, validated: bool) -> list[str]:
    """Names of what a run said: in its `metrics.csv`, and unless only that is asked for, in `metrics.json`."""
    names = set() if validated else set(RunFolder(Path(run.folder)).metrics())
    with suppress(OSError, ValueError), (Path(run.folder) / "metrics.csv").open(newline="", encoding="utf-8") as file:
        names.update(csv.DictReader(file).fieldnames or ())
    return sorted(names - {"epoch", "step"})
