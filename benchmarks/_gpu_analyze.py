"""Part `analyze`: seconds a frame of the whole analysis of a simulated time-lapse, and which stage takes them."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks._gpu_common import Settings, seconds_of
from benchmarks._gpu_record import Recorder
from experiments.tasks.analyze import analysis as analyze
from experiments.tasks.analyze import frames, predictors
from experiments.tasks.analyze.analysis import Analysis

#: Methods of telling cells from each other, and of a quick run.
METHODS, QUICK_METHODS = ("offsets", "network"), ("offsets",)
#: What is timed within an analysis: its name, and where it is looked up.
STAGES: tuple[tuple[str, Any, str], ...] = (
    ("organelles", Analysis, "_predict"),
    ("cells and measurements", analyze, "finish_frame"),
    ("cells", frames, "_found"),
    ("masks and surfaces", analyze, "write_time_lapse"),
    ("tables and report", analyze, "write_results"),
)


def measure_analyze(bench: Recorder) -> None:
    """A time-lapse by each method; the first one frame long and not counted."""
    quick = bench.settings.quick
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = bench.measure("simulation", lambda: _simulate(folder, bench.settings), needs_s=20.0, kind="simulation")
        if made is None:
            return
        if not (folder / "time_lapse").is_dir():  # measured by an earlier run, whose files are gone
            _simulate(folder, bench.settings)
        for method in QUICK_METHODS if quick else METHODS:
            bench.measure(
                f"analyze method={method}",
                partial(_analyse, folder, method, bench.settings),
                needs_s=15.0,
                kind="analyze",
                method=method,
            )


def _simulate(folder: Path, settings: Settings) -> dict[str, Any]:
    """Write a time-lapse to `time_lapse`, and one of one frame to `first`, by the simulator's command line."""
    shape = ("24", "48", "48") if settings.quick else ("64", "160", "160")
    begun = time.perf_counter()
    for name, count in (("first", 1), ("time_lapse", 2 if settings.quick else 4)):
        words = ["--preset", "RAW264.7", "--seed", "910001", "--film", "control", "--frames", str(count)]
        words += ["--interval", "120", "--shape", *shape, "--spacing", "0.3", "0.3", "0.3"]
        command = [sys.executable, "-m", "cytovox.simulation", *words, "--out", str(folder / name)]
        home = Path(__file__).resolve().parents[1]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["the simulator failed"])[-1])
    return {"seconds": time.perf_counter() - begun, "shape": [int(n) for n in shape]}


def _analyse(folder: Path, method: str, settings: Settings) -> dict[str, Any]:
    """Analyse the single frame, which loads the networks and chooses kernels, and then the time-lapse."""
    clear = getattr(predictors.cell_finder, "cache_clear", None)
    if clear is not None:
        clear()
    first = seconds_of(lambda: _run(folder, "first", method), settings.device)
    with stage_times() as seconds:
        whole = seconds_of(lambda: _run(folder, "time_lapse", method), settings.device)
    count = 2 if settings.quick else 4
    finder = predictors.cell_finder(method, analyze.cell_weights(method, None), _rule())
    return {
        "seconds_a_frame": whole / count,
        "frames": count,
        "first_run_s": first,
        "stages_s_a_frame": {name: spent / count for name, spent in seconds.items()},
        "cells_device": str(getattr(finder, "device", None)),
        "cells_precision": getattr(finder, "precision", None),
    }


def _rule() -> Any:
    from experiments.tasks.cell_options import SeedsConfig

    return SeedsConfig().rule()


def _run(folder: Path, which: str, method: str) -> None:
    """The command of a user, within this process.

    Raises
    ------
    RuntimeError
        It ended with another code than 0.
    """
    from experiments.run import main

    words = [f"inputs=[{folder / which}/*.TCF]", f"method={method}", f"out={folder / f'out-{which}-{method}'}"]
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = main(["analyze", *words, "workers=0"])
    if code:
        raise RuntimeError((errors.getvalue().strip().splitlines() or [f"it ended with {code}"])[-1])


@contextlib.contextmanager
def stage_times() -> Iterator[dict[str, float]]:
    """Seconds spent in each of `STAGES` within the context; a stage that this version does not have is left out."""
    seconds: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        for name, owner, attribute in STAGES:
            if hasattr(owner, attribute):
                stack.enter_context(
                    mock.patch.object(owner, attribute, _timed(name, getattr(owner, attribute), seconds))
                )
        yield seconds


def _timed(name: str, call: Callable[..., Any], seconds: dict[str, float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return call(*arguments, **named)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begun

    return timed
