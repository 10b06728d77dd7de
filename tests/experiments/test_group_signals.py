"""Signals to a run's whole process group, as `timeout`, SLURM and terminals send them: saved, and exit code 75."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

HOME = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="only Linux reports the sender of a signal")


@pytest.fixture
def group(_session_cache, tmp_path):
    """Start the command line as the leader of a process group; what is left of it is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        environment = {**os.environ, "CYTOVOX_CACHE": _session_cache, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HOME)}
        environment.pop("CYTOVOX_RUN_DIR", None)
        command = [*before, sys.executable, "-m", "experiments.run", *map(str, words)]
        with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
            process = subprocess.Popen(
                command, cwd=tmp_path, env=environment, stdout=out, stderr=err, start_new_session=True
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until(found, process, seconds=120):
    end = time.monotonic() + seconds
    while not (result := found()):
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)
    return result


def answer(folder: Path) -> tuple[list[str], str]:
    return (folder / "out").read_text().splitlines(), (folder / "err").read_text()


@pytest.mark.parametrize(
    ("workers", "number"),
    [
        pytest.param(1, signal.SIGTERM),
        pytest.param(4, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(1, signal.SIGUSR1, marks=pytest.mark.slow),
        pytest.param(4, signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_training_saves_its_state_and_reports_it(tmp_path, tiny, group, workers, number):
    runs = tmp_path / "runs"
    words = [tiny, "trainer.max_epochs=5000", f"data.num_workers={workers}", "stages=[fit]", f"runs_dir={runs}"]
    process = group(*words)
    last = wait_until(lambda: next(iter(runs.glob("tiny/*/checkpoints/last.ckpt")), None), process)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= workers
    os.killpg(process.pid, number)
    os.killpg(process.pid, number)  # `timeout` sends it twice: to its child, and to the group
    code = process.wait(timeout=120)
    _, err = answer(tmp_path)
    status = json.loads((last.parents[1] / "status.json").read_text())["status"]
    interrupted = number == signal.SIGINT
    assert (code, status) == ((130, "interrupted") if interrupted else (75, "preempted")), err
    assert "Traceback" not in err
    assert f"continue with resume={last.parents[1]}" in err.splitlines()[-1]
    psutil.wait_procs(children, timeout=20)
    assert not any(child.is_running() for child in children)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_dry_run_that_simulates_its_cells_is_stopped_without_a_traceback(tmp_path, group, number):
    process = group("organelle_choi", "--dry-run", f"data.cache_dir={tmp_path / 'cache'}", f"runs_dir={tmp_path}/runs")
    children = wait_until(lambda: psutil.Process(process.pid).children(recursive=True)[1:], process)
    os.killpg(process.pid, number)
    os.killpg(process.pid, number)
    code = process.wait(timeout=120)
    _, err = answer(tmp_path)
    assert code == (130 if number == signal.SIGINT else 75), err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("*/*"))
    psutil.wait_procs(children, timeout=20)
    assert not any(child.is_running() for child in children)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_analysis_with_workers_is_stopped_and_resumed(tmp_path, cells, group, cli, number):
    out = tmp_path / "analysis"
    words = ["analyze", f"inputs=[{cells}/*.TCF]", f"out={out}", "workers=2", "meshes=none"]
    process = group(*words)
    wait_until(lambda: list(out.glob(".frames/*/*/organelles.json")), process)
    os.killpg(process.pid, number)
    code = process.wait(timeout=120)
    _, err = answer(tmp_path)
    assert code == (75 if number == signal.SIGTERM else 130), err
    assert "Traceback" not in err
    assert cli(*words).code == 0
