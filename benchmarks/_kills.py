"""Thirty ways to die: a run on two nodes is stopped at a seeded random moment, and must end as if it had not been."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks._common import Table
from tests.cluster.jobs import Jobs, differences, trained
from training.rundir import RunFolder

#: Kinds of stop, in turn. The run comes back by itself, but where the whole job is gone: then a person submits again.
KINDS = (
    "USR1", "TERM", "SIGKILL of a rank", "SIGKILL of all", "scancel", "time limit", "USR1 in validation",
    "USR1 while saving",
)  # fmt: skip
#: Seconds in which a stopped run must have come to its end.
LIMIT_S = 300.0


@dataclass
class Trial:
    """One run that was stopped."""

    kind: str
    moment_s: float
    seconds: float = 0.0
    resumed: bool = False
    hung: bool = False
    equal: bool = False
    unreadable: int = 0
    looks: int = 0
    step: int = 0
    """Optimiser steps on the disk when it was stopped."""
    jobs: str = ""


@dataclass
class Reader:
    """Reads the checkpoint over and over, as somebody who needs it at any moment."""

    path: Path
    looks: int = 0
    errors: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Reader:
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _read(self) -> None:
        while not self.over.is_set():
            if self.path.is_file():
                try:
                    torch.load(self.path, map_location="cpu", weights_only=True)
                    self.looks += 1
                except Exception as error:
                    self.errors.append(str(error))
            time.sleep(0.2)


def kill_table(
    jobs: Jobs, trials: int, seed: int, epochs: int, kinds: Sequence[str] = KINDS
) -> tuple[Table, list[dict[str, Any]]]:
    """Stop `trials` runs, a kind after the other."""
    config = jobs.config(
        trainer={"max_epochs": epochs, "max_time": None, "precision": "32-true", "enable_progress_bar": False}
    )
    begun = time.monotonic()
    _, whole = jobs.submit(config)
    times = _timeline(jobs, whole)
    print(f"unbroken: {time.monotonic() - begun:.0f} s, training from {times[0]:.1f} to {times[1]:.1f} s", flush=True)
    expected, rng = trained(whole), np.random.default_rng(seed)
    done = []
    for number in range(trials):
        trial = Trial(
            kinds[number % len(kinds)], float(rng.uniform(times[0] - 5, times[0] + 0.9 * (times[1] - times[0])))
        )
        _one(jobs, config, trial, expected, rng, times)
        done.append(trial)
        print(f"{number + 1:3d} {trial.kind:18s} at {trial.moment_s:5.1f} s, step {trial.step:3d}: "
              f"{'resumed' if trial.resumed else 'NOT RESUMED'}, {'equal' if trial.equal else 'DIFFERENT'}, "
              f"{trial.unreadable} of {trial.looks} looks unreadable, {trial.seconds:.0f} s", flush=True)  # fmt: skip
    rows = [_row(kind, [trial for trial in done if trial.kind == kind]) for kind in KINDS]
    rows = [*(row for row in rows if row[1] != "0"), _row("all", done)]
    heads = ["stopped by", "runs", "resumed", "hung", "weights equal bit for bit", "unreadable checkpoints", "of looks"]
    return Table("kills", heads, rows), [trial.__dict__ for trial in done]


def _row(what: str, trials: list[Trial]) -> list[str]:
    numbers = [len(trials), *(sum(getattr(t, key) for t in trials) for key in _COUNTED)]
    return [what, *map(str, numbers)]


_COUNTED = ("resumed", "hung", "equal", "unreadable", "looks")


def _timeline(jobs: Jobs, run: Path) -> tuple[float, float, list[float]]:
    """Seconds after submission at which an unbroken run began to train, ended, and saved each epoch."""
    begun, saved = time.monotonic(), list[float]()
    last, seen = RunFolder(run).last_checkpoint, 0.0
    while not jobs.finished(run):
        with contextlib.suppress(OSError):
            changed = last.stat().st_mtime
            if changed != seen:
                seen = changed
                saved.append(time.monotonic() - begun)
        assert time.monotonic() - begun < LIMIT_S, jobs.logs(run)
        time.sleep(0.02)
    each = (saved[-1] - saved[0]) / max(1, len(saved) - 1)
    return saved[0] - each, saved[-1], saved


def _one(jobs: Jobs, config: Path, trial: Trial, expected: Any, rng: Any, times: Any) -> None:
    words = ["slurm.time=1", "slurm.signal_s=30"] if trial.kind == "time limit" else []
    job, run = jobs.submit(config, *words)
    begun, last = time.monotonic(), RunFolder(run).last_checkpoint
    with Reader(last) as reader:
        _stop(jobs, job, run, trial, rng, times)
        trial.moment_s = time.monotonic() - begun
        with contextlib.suppress(OSError, RuntimeError):
            trial.step = int(torch.load(last, weights_only=True)["global_step"]) if last.is_file() else 0
        try:
            jobs.wait(lambda: not jobs.states(), LIMIT_S)
            if RunFolder(run).status()["status"] != "finished":  # nobody is left to requeue it
                trial.jobs = "submitted again"
                jobs.submit(f"resume={run}")
            jobs.wait(lambda: jobs.finished(run), LIMIT_S)
            trial.resumed = True
        except AssertionError:
            trial.hung = True
            jobs.slurm("scancel", "--user=root")
            print(jobs.logs(run)[-3000:])
    trial.seconds = time.monotonic() - begun
    trial.looks, trial.unreadable = reader.looks, len(reader.errors)
    if trial.resumed:
        output = differences(expected, trained(run))
        trial.equal = not output
        if output:
            print(output[:3], jobs.logs(run)[-3000:])
    if trial.equal:
        shutil.rmtree(run)


def _stop(jobs: Jobs, job: str, run: Path, trial: Trial, rng: Any, times: Any) -> None:
    last = RunFolder(run).last_checkpoint
    if trial.kind == "time limit":
        return  # SLURM does it
    if trial.kind == "USR1 while saving":
        _until(lambda: any(last.parent.glob(".part-*")), 60)
    elif trial.kind == "USR1 in validation":
        saves = times[2]
        _until(last.is_file, 90)
        epoch = float(np.median(np.diff(saves)))
        time.sleep(epoch * rng.uniform(0.55, 0.95))  # the end of an epoch is its validation
    else:
        time.sleep(trial.moment_s)
    ranks = jobs.ranks(run)
    if trial.kind.startswith("USR1"):
        jobs.slurm("scancel", "--signal=USR1", job)
    elif trial.kind == "TERM":
        jobs.slurm("scancel", "--signal=TERM", job)
    elif trial.kind == "scancel":
        jobs.slurm("scancel", job)
    else:
        chosen = [ranks[int(rng.integers(len(ranks)))]] if ranks and "a rank" in trial.kind else ranks
        for process in chosen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)


def _until(true: Any, limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not true() and time.monotonic() < end:
        time.sleep(0.002)
