"""The trainings behind the benchmark of shapes: which there are, and as many at once as there are cores."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks._shape_predicted import Predicted, is_predicted, read_predicted
from benchmarks._shape_train import INNER_FOLDS

FOLDS = 5
#: Models of the table, those whose shapes are classified, and the one that is trained on the first fold only.
COMPARED = ("traits", "regressor", "flow", "shapr")
CLASSIFIED = ("traits", "shapr")
ONCE = "dispr_objective"
#: Optimiser steps in a minute on one core, so that all are trained for the same time; the minutes they took are in the
#: table. (On a Xeon with AVX512, float32.)
STEPS_A_MINUTE = {"traits": 215.0, "regressor": 215.0, "flow": 215.0, "shapr": 20.0, ONCE: 215.0}
#: What a model is trained with besides its config: half the batch doubles SHAPR's steps.
MORE = {"shapr": ("data.batch_size=4",)}


@dataclass(frozen=True)
class Job:
    """One training."""

    model: str
    run: str
    steps: int


def outer_runs() -> list[str]:
    """The names of the outer folds' runs."""
    return [f"fold{fold}" for fold in range(FOLDS)]


def inner_runs(fold: int) -> list[str]:
    """The names of an outer fold's inner runs."""
    return [f"fold{fold}_inner{inner}" for inner in range(INNER_FOLDS)]


def jobs(minutes: float, inner_minutes: float) -> list[Job]:
    """Every training, the table's first."""
    compared = [Job(model, run, _steps(model, minutes)) for model in COMPARED for run in outer_runs()]
    once = [Job(ONCE, "fold0", _steps(ONCE, minutes))]
    inner = [run for fold in range(FOLDS) for run in inner_runs(fold)]
    return [*compared, *once, *(Job(m, run, _steps(m, inner_minutes)) for m in CLASSIFIED for run in inner)]


def _steps(model: str, minutes: float) -> int:
    return max(1, round(STEPS_A_MINUTE[model] * minutes))


def train_all(found: Sequence[Job], data: Path, work: Path, cores: int) -> None:
    """Train what is not there yet, one process a core; a stopped training goes on from its last checkpoint.

    Raises
    ------
    RuntimeError
        A training failed; its log is named.
    """
    missing = [job for job in found if not is_predicted(work, job.model, job.run)]
    columns = TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns) as progress, ThreadPoolExecutor(cores) as pool:
        bar = progress.add_task("training", total=len(missing))
        for future in [pool.submit(_train, job, data, work) for job in missing]:
            future.result()
            progress.advance(bar)


def _train(job: Job, data: Path, work: Path) -> None:
    script = Path(__file__).with_name("_shape_train.py")
    log = work / "logs" / f"{job.model}_{job.run}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(script), str(data), str(work), job.model, job.run, str(job.steps)]
    with log.open("wb") as file:
        done = subprocess.run(
            [*command, *MORE.get(job.model, ())],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{job.model} {job.run}: training failed, see {log}")


def outer_of(work: Path, model: str) -> list[Predicted]:
    """What the outer runs of a model predicted, as far as they are done."""
    return [read_predicted(work, model, run) for run in outer_runs() if is_predicted(work, model, run)]


def inner_of(work: Path, model: str) -> list[list[Predicted]]:
    """What the inner runs predicted, fold by fold; empty unless all are done."""
    runs = [inner_runs(fold) for fold in range(FOLDS)]
    if not all(is_predicted(work, model, run) for fold in runs for run in fold):
        return []
    return [[read_predicted(work, model, run) for run in fold] for fold in runs]
