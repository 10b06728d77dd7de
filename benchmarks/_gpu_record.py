"""Records of the GPU benchmark that survive an interruption.

A part is a function of a `Recorder`. It calls `Recorder.measure` for one figure, or `Recorder.interleave` for several
that are compared with each other. A figure that fails is recorded with its error in one line, and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks._gpu_common import (
    NotHere,
    Settings,
    free_memory,
    journal_of,
    one_line,
    peak_memory,
    seconds_of,
    spread,
    write_json,
)

#: A record holds figures, an error in one line, or why nothing was measured.
OK, FAILED, SKIPPED = "ok", "failed", "not measured"
OUT_OF_TIME = "out of time"

#: Words of an error after which CUDA refuses all further work of the process.
FATAL = ("illegal memory access", "device-side assert", "unspecified launch failure", "misaligned address")


class PartAborted(RuntimeError):
    """The device accepts no further work from this process."""


@dataclass
class Candidate:
    """One of several figures that are compared with each other."""

    name: str
    prepare: Callable[[], Callable[[], Any]]
    """Builds what is timed; called once."""
    labels: dict[str, Any] = field(default_factory=dict)
    """Precision, layout, mode and batch of the record."""
    figures: Callable[[float, Any], dict[str, Any]] | None = None
    """From the median in seconds and what the last call returned to further figures of the record."""
    needs_s: float = 10.0
    """Seconds that must be left for it to begin."""


@dataclass
class Recorder:
    """The records of one part, written to its journal as they come.

    Parameters
    ----------
    part : str
        Name of the part.
    settings : Settings
        Of the run.
    deadline : float
        `time.monotonic()` after which no further figure begins.
    kept : list of dict
        Records of an earlier run that are not measured again.
    begun : float
        `time.monotonic()` at the start of the run, for progress lines.
    """

    part: str
    settings: Settings
    deadline: float
    kept: list[dict[str, Any]] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.records: list[dict[str, Any]] = list(self.kept)
        self._write(None)

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def has(self, name: str) -> bool:
        """Whether there is a figure, or an error, of this name."""
        return any(record["name"] == name and record["status"] != SKIPPED for record in self.records)

    def say(self, text: str) -> None:
        """Print a progress line with the time since the start of the run."""
        print(f"[{time.monotonic() - self.begun:6.1f} s] {self.part}: {text}", flush=True)

    def skip(self, name: str, reason: str, **labels: Any) -> None:
        """Record that something is not measured, and why."""
        self.add({"name": name, "status": SKIPPED, "error": reason, **labels})

    def add(self, record: Mapping[str, Any]) -> None:
        """Keep a record in place of an earlier one of its name; the journal is written anew."""
        self.records = [one for one in self.records if one["name"] != record["name"]]
        self.records.append(dict(record))
        self._write(None)

    def measure(
        self, name: str, task: Callable[[], dict[str, Any]], needs_s: float = 5.0, **labels: Any
    ) -> dict[str, Any] | None:
        """Record the figures that a task returns; None where it fails or no time is left.

        Parameters
        ----------
        name : str
            Of the record, unique in its part.
        task : callable
            Returns the figures.
        needs_s : float
            Seconds that must be left for it to begin.
        **labels
            Precision, layout, mode and batch of the record.

        Raises
        ------
        PartAborted
            The device accepts no further work.
        """
        if self.has(name):
            return next(record for record in self.records if record["name"] == name)
        if not self._may_begin(name, needs_s, labels):
            return None
        try:
            with peak_memory(self.settings) as peak:
                figures = task()
        except Exception as error:  # any failure is a result of the benchmark, and the others go on
            self._fail(name, error, labels)
            return None
        finally:
            free_memory(self.settings)
        self.add({"name": name, "status": OK, **labels, **peak, **figures})
        return self.records[-1]

    def interleave(self, candidates: Sequence[Candidate], budget_s: float, most: int = 5) -> None:
        """Record several figures, each timed in every round, so that a slow minute concerns all of them.

        Parameters
        ----------
        candidates : sequence of Candidate
            Those that are recorded already are left out.
        budget_s : float
            About how long the counted rounds may take; one round is played in any case.
        most : int
            Rounds at most.
        """
        ready: list[tuple[Candidate, Callable[[], Any], float, dict[str, Any]]] = []
        for candidate in candidates:
            if self.has(candidate.name) or not self._may_begin(candidate.name, candidate.needs_s, candidate.labels):
                continue
            try:
                with peak_memory(self.settings) as peak:
                    task = candidate.prepare()
                    first = seconds_of(task, self.settings.device)
                again = first if self.settings.quick else seconds_of(task, self.settings.device)
            except Exception as error:  # as in `measure`
                self._fail(candidate.name, error, candidate.labels)
                continue
            ready.append((candidate, task, again, {**peak, "first_call_ms": 1e3 * first}))
        rounds = max(1, min(most, int(min(budget_s, max(self.left_s, 0)) / max(sum(r[2] for r in ready), 1e-6))))
        self._play(ready, 1 if self.settings.quick else rounds)
        free_memory(self.settings)

    def _play(self, ready: list[tuple[Candidate, Callable[[], Any], float, dict[str, Any]]], rounds: int) -> None:
        """Time what is ready, round after round; a candidate that fails takes no further part."""
        seconds: dict[str, list[float]] = {candidate.name: [] for candidate, *_ in ready}
        results: dict[str, Any] = {}
        for _ in range(rounds):
            for candidate, task, _, _ in ready:
                if candidate.name in results and results[candidate.name] is FAILED:
                    continue

                def call(candidate: Candidate = candidate, task: Callable[[], Any] = task) -> None:
                    results[candidate.name] = task()

                try:
                    results.pop(candidate.name, None)
                    seconds[candidate.name].append(seconds_of(call, self.settings.device))
                except Exception as error:  # as in `measure`
                    results[candidate.name] = FAILED
                    self._fail(candidate.name, error, candidate.labels)
        for candidate, _, _, peak in ready:
            result = results.pop(candidate.name)
            if result is FAILED:
                continue
            timed = spread(seconds[candidate.name])
            more = candidate.figures(timed["median_ms"] / 1e3, result) if candidate.figures else {}
            self.add({"name": candidate.name, "status": OK, **candidate.labels, **timed, **peak, **more})

    def _may_begin(self, name: str, needs_s: float, labels: dict[str, Any]) -> bool:
        if not self.settings.quick and self.left_s < needs_s:
            self.skip(name, OUT_OF_TIME, **labels)
            return False
        if not self.settings.on_gpu and labels.get("precision") == "float16" and labels.get("kind") != "step":
            self.skip(name, "CPUs compute float16 too slowly", **labels)
            return False
        self.say(name)
        self._write({"name": name, **labels})
        return True

    def _fail(self, name: str, error: Exception, labels: dict[str, Any]) -> None:
        text = one_line(error)
        status = SKIPPED if isinstance(error, NotHere) else FAILED
        self.say(f"{name}: {status}: {text}")
        self.add({"name": name, "status": status, "error": text, **labels})
        if any(word in str(error) for word in FATAL):
            raise PartAborted(text) from error

    def _write(self, running: dict[str, Any] | None) -> None:
        write_json(journal_of(self.settings.out, self.part), {"records": self.records, "running": running})
