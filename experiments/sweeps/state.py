"""State of a sweep: one file about its runs, shared by several agents and written atomically."""

import csv
import json
import random
import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from cytovox.errors import InputError
from experiments.preflight import require_room
from experiments.sweeps.sweep_file import Sweep, engine
from training.rundir import RunFolder, write_json

#: States of runs that have ended.
ENDED = ("finished", "failed", "stopped")
#: States in W&B's engine.
_STATES = {"running": "running", "finished": "finished", "failed": "failed", "stopped": "killed"}


@dataclass
class SweepRun:
    """One run of a sweep."""

    number: int
    suggested: dict[str, Any]
    """Parameters exactly as the engine suggested them: with 0 for 0.0, a grid would repeat the point forever."""
    folder: str
    """Run folder."""
    state: str = "running"
    """running, finished, failed, or stopped (by early termination)."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Metric after each validation."""
    metric: float | None = None
    """Final metric."""


class SweepState:
    """The runs of a sweep in `runs.json`, and the engine's next suggestion.

    Parameters
    ----------
    sweep : Sweep
        The sweep.

    Raises
    ------
    InputError
        Its folder cannot be created or written to.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep, self.path = sweep, sweep.folder / "runs.json"
        require_room(sweep.folder, "runs_dir")
        sweep.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[list[SweepRun]]:
        """Lock the state and yield the runs; they are written at the end of the block."""
        with FileLock(self.sweep.folder / ".lock"):
            runs = self.runs()
            yield runs
            write_json(self.path, [asdict(run) for run in runs])

    def runs(self) -> list[SweepRun]:
        """Return all runs so far."""
        with suppress(FileNotFoundError):
            return [SweepRun(**entry) for entry in json.loads(self.path.read_text(encoding="utf-8"))]
        return []

    @contextmanager
    def take(self, count: int | None, again: Collection[int] = ()) -> Iterator[SweepRun | None]:
        """Yield a run for this agent and lock it: one that another agent abandoned, else the engine's next, else None.

        Parameters
        ----------
        count : int or None
            Number of runs of the sweep; None for no limit.
        again : collection of int
            Failed runs that are repeated when there is no other run.
        """
        with self._locked() as runs:
            found = next((r for r in runs if r.state not in ENDED and self._is_free(r)), None)
            limit = 0 if self._reached(runs) else min(count or 10**9, int(self.sweep.values.get("run_cap") or 10**9))
            if found is None and len(runs) < limit and (suggested := self._suggest(runs)) is not None:
                parent = Path(self.sweep.typed.runs_dir).absolute() / self.sweep.typed.name
                found = SweepRun(len(runs), suggested, str(parent / f"{self.sweep.id}-{len(runs):03d}"))
                runs.append(found)
            if found is None:
                found = next((r for r in runs if r.state == "failed" and r.number in again and self._is_free(r)), None)
            lock = ExitStack()
            if found is not None:
                found.state = "running"
                lock.enter_context(self._lock(found).acquire(timeout=0))
        with lock:
            yield found

    def _reached(self, runs: list[SweepRun]) -> bool:
        """Return whether a run has reached `metric.target`, if the sweep has one."""
        target = (self.sweep.values.get("metric") or {}).get("target")
        known = [run.metric for run in runs if run.metric is not None]
        _, larger = self.sweep.metric
        return target is not None and any(value >= target if larger else value <= target for value in known)

    def note(self, run: SweepRun) -> None:
        """Record the result of a run."""
        with self._locked() as runs:
            runs[run.number] = run

    def to_stop(self, run: SweepRun) -> bool:
        """Return whether the sweep's early termination (hyperband) stops a run now."""
        if not self.sweep.values.get("early_terminate"):
            return False
        self.note(run)
        with engine() as sweeps:
            known = [self._for_engine(one, banded=True) for one in self.runs()]
            return any(stopped.name == str(run.number) for stopped in sweeps.stop_runs(self.sweep.for_engine, known))

    def _suggest(self, runs: list[SweepRun]) -> dict[str, Any] | None:
        """Return the engine's next point, which depends only on the runs so far and the seed."""
        with engine() as sweeps:
            seed = (self.sweep.typed.seed + 7919 * len(runs)) % 2**32
            random.seed(seed)  # the engine uses both generators
            np.random.seed(seed)  # noqa: NPY002
            found = sweeps.next_run(self.sweep.for_engine, [self._for_engine(run) for run in runs])
        if found is None:
            return None
        suggested = {key: _plain(entry["value"]) for key, entry in found.config.items()}
        if self.sweep.values["method"] == "grid" and any(run.suggested == suggested for run in runs):
            raise InputError(
                f"{self.sweep.path.name}: W&B's sweep engine repeats a point of the grid ({suggested}); it cannot "
                "distinguish these parameters: list their values, as numbers or texts"
            )
        return suggested

    def _for_engine(self, run: SweepRun, banded: bool = False) -> Any:
        """Return a run in the form of the engine; with `banded`, that of its hyperband."""
        import sweeps

        name, _ = self.sweep.metric
        # the n-th validation belongs to band n; engines before 0.3 read one too far (`h[band]`): add an entry for them
        first = (
            run.history[:1] if banded and [int(n) for n in re.findall(r"\d+", sweeps.__version__)[:2]] < [0, 3] else []
        )
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


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def read_history(run: SweepRun, metric: str) -> list[dict[str, float]]:
    """Return the metric of a run after each validation, as in its `metrics.csv`."""
    with suppress(OSError, ValueError), (Path(run.folder) / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get(metric)]
        return [{"_step": float(row["step"]), metric: float(row[metric])} for row in rows]
    return []


def read_metric(run: SweepRun, metric: str) -> float | None:
    """Return the metric of a finished run, else that of its last validation, else None."""
    last = run.history[-1][metric] if run.history else None
    value = RunFolder(Path(run.folder)).metrics().get(metric)
    return last if value is None else value


def logged(run: SweepRun, validated: bool) -> list[str]:
    """Return the names of the metrics of a run: those of `metrics.csv` and, unless `validated`, of `metrics.json`."""
    names = set() if validated else set(RunFolder(Path(run.folder)).metrics())
    with suppress(OSError, ValueError), (Path(run.folder) / "metrics.csv").open(newline="", encoding="utf-8") as file:
        names.update(csv.DictReader(file).fieldnames or ())
    return sorted(names - {"epoch", "step"})
