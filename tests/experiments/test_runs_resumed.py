"""Runs that were stopped, or are done: how they go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.experiments.folders import numbers, rows, same_everywhere, steps


def test_a_restart_that_cannot_begin_leaves_what_the_job_had_done(tmp_path, tiny, cli, monkeypatch):
    """A job that is run again names its folder itself, without resume=."""
    monkeypatch.setenv("CYTOVOX_RUN_ID", "job-7")
    # devices=auto: only the trainer knows the ranks, so that the batch below is refused after the folder was opened
    words = ["stages=[fit]", "trainer.max_steps=1", "trainer.devices=auto", f"runs_dir={tmp_path}"]
    run = cli(tiny, *words).run
    kept = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**kept, "status": "preempted"}))
    answer = cli(tiny, *words, "trainer.global_batch=1000003")
    assert answer.code == 2
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert cli(tiny, *words).run == run


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, tiny, process, cli):
    words = ["trainer.max_epochs=12", f"runs_dir={tmp_path}"]
    running = process(tiny, *words, cwd=tmp_path)
    last = wait_for(lambda: next(iter(tmp_path.glob("tiny/*/checkpoints/last.ckpt")), None), running)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    run = last.parent.parent
    assert json.loads((run / "status.json").read_text())["stages_done"] == []
    (run / "checkpoints" / ".part-0123456789ab.ckpt").write_bytes(b"what a kill leaves of a checkpoint")

    again = cli(f"resume={run}")
    assert again.run == run
    assert not list(run.rglob(".part-*"))
    assert list(tmp_path.glob("tiny/*")) == [run]
    assert steps(run) == list(range(24))
    assert numbers(run)["fit/epochs"] == 12
    assert {"fit", "test"} == set(json.loads((run / "status.json").read_text())["stages_done"])
    assert [p.name for p in run.glob("environment_*.json")] == ["environment_1.json"]


def wait_for(found, running, seconds: float = 1800):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (result := found()) is not None:
            return result
        if running.poll() is not None:
            raise AssertionError(running.communicate()[1])
        time.sleep(0.02)
    running.kill()
    raise AssertionError("it took too long")


def test_a_run_that_goes_on_ends_like_one_that_was_never_stopped(tmp_path, tiny, trained, cli):
    first = cli(tiny, "trainer.max_epochs=1", "stages=[fit]", f"runs_dir={tmp_path}")
    again = cli(f"resume={first.run}", "trainer.max_epochs=2", "stages=[fit, test]")
    for key, value in same_everywhere(again.run).items():
        assert value == pytest.approx(numbers(trained.run)[key], abs=1e-6), key


def contents(run: Path) -> dict[str, bytes]:
    return {p.relative_to(run).as_posix(): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def test_a_finished_run_has_nothing_left_to_do(copied, cli):
    before = contents(copied)
    answer = cli(f"resume={copied}")
    assert answer.run == copied
    assert "nothing is left to do" in answer.out
    assert contents(copied) == before


def test_stages_that_are_done_are_not_done_again(copied, cli):
    status = json.loads((copied / "status.json").read_text())
    (copied / "status.json").write_text(json.dumps({**status, "stages_done": ["fit", "predict"]}))
    weights = (copied / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    masks = (copied / "predictions" / "HeLa-00001.ome.tif").stat().st_mtime_ns
    assert cli(f"resume={copied}").run == copied
    assert (copied / "checkpoints" / "last.ckpt").stat().st_mtime_ns == weights
    assert (copied / "predictions" / "HeLa-00001.ome.tif").stat().st_mtime_ns == masks
    assert json.loads((copied / "status.json").read_text())["stages_done"] == ["fit", "predict", "test"]


def test_a_trained_run_predicts_more_files_later(copied, cells, cli):
    curve = (copied / "metrics.csv").read_bytes()
    digest = json.loads((copied / "environment.json").read_text())["data_digest"]
    answer = cli(f"resume={copied}", "stages=[predict]", f"predict.inputs=[{cells}/*.TCF]")
    assert answer.run == copied
    assert sorted(p.name for p in (copied / "predictions").glob("*.tif")) == [
        f"HeLa-0000{n}.ome.tif" for n in (1, 2, 3)
    ]
    assert {row["input"] for row in rows(copied / "tables" / "predictions.csv")} == set(map(str, cells.glob("*.TCF")))
    assert numbers(copied)["predict/files"] == 3
    assert (copied / "metrics.csv").read_bytes() == curve
    for name in ("environment.json", "environment_1.json"):
        assert json.loads((copied / name).read_text())["data_digest"] == digest


def test_testing_again_adds_nothing_to_the_learning_curve(copied, trained, cli):
    curve = (copied / "metrics.csv").read_bytes()
    assert cli(f"resume={copied}", "stages=[test]").run == copied
    assert (copied / "metrics.csv").read_bytes() == curve
    assert same_everywhere(copied) == same_everywhere(trained.run)


def test_a_run_is_not_resumed_under_another_name(copied, cli):
    answer = cli("organelle_demo", f"resume={copied}")
    assert answer.code == 2
    assert answer.errors == [f"resume: {copied} is a run of name tiny, but organelle_demo has organelle_demo"]


def interrupted(running, seconds: float = 1800) -> str:
    """What a process says on stderr that is interrupted until it ends.

    Python drops an interrupt that falls into a finaliser; a person then presses again. The first one is given time: a
    second one would cut short what the run writes at its end.
    """
    end, patience = time.monotonic() + seconds, 60.0
    while time.monotonic() < end:
        os.kill(running.pid, signal.SIGINT)
        try:
            return running.communicate(timeout=patience)[1]
        except subprocess.TimeoutExpired:
            patience *= 2
    running.kill()
    raise AssertionError(f"it did not end: {running.communicate()[1]}")


def test_ctrl_c_says_how_to_go_on(tmp_path, tiny, process):
    running = process(tiny, "trainer.max_epochs=5000", f"runs_dir={tmp_path}", cwd=tmp_path)
    last = wait_for(lambda: next(iter(tmp_path.glob("tiny/*/checkpoints/last.ckpt")), None), running)
    err = interrupted(running)
    run = last.parent.parent
    assert running.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1] == f"stopped; continue with resume={run}"
    assert json.loads((run / "status.json").read_text())["status"] == "interrupted"
    assert (run / "report.html").is_file()
