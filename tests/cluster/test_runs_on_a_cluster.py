"""Runs that a user submits, on a real SLURM of two nodes."""

from __future__ import annotations

import csv
import json
import re
import shutil
import time
from pathlib import Path

import pytest
import yaml

from benchmarks._kills import kill_table
from tests.cluster.jobs import Jobs, differences, trained
from training.rundir import RunFolder

pytestmark = pytest.mark.cluster


def test_two_nodes_train_and_test_one_run(jobs: Jobs, finished: Path) -> None:
    metrics = RunFolder(finished).metrics()
    assert metrics["fit/ranks"] == 2
    assert metrics["fit/global_batch"] == 4
    assert metrics["test/cases"] == 3  # each on one rank, none twice
    with (finished / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps))  # one writer
    assert len(list(finished.parent.iterdir())) == 1
    assert (finished / "report.html").is_file()
    log = jobs.logs(finished)
    assert log.count("a step: 4 samples (2 ranks, 1 batches of 2)") == 1
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["trainer"]["num_nodes"] == 1  # it reruns anywhere; the job's own words say how many


def test_a_stopped_run_is_requeued_and_ends_bit_for_bit_equal(idle: Jobs) -> None:
    kinds = ("USR1", "USR1 in validation", "SIGKILL of a rank", "time limit")
    _, trials = kill_table(idle, len(kinds), seed=3, epochs=30, kinds=kinds)
    for trial in trials:
        assert trial["resumed"], trial
        assert trial["equal"], trial
        assert not trial["unreadable"], trial
        assert trial["looks"] > 10, trial


def test_a_cancelled_run_stays_cancelled_until_it_is_submitted_again(idle: Jobs) -> None:
    job, run = idle.submit(idle.config("cancel.yaml", trainer={"max_epochs": 200}))
    idle.wait(lambda: RunFolder(run).last_checkpoint.is_file(), 90)
    idle.slurm("scancel", job)
    idle.wait(lambda: not idle.states(), 60)
    assert RunFolder(run).status()["status"] == "preempted"
    assert "JobState=CANCELLED" in idle.slurm("scontrol", "show", "job", job)
    assert "Restarts=0" in idle.slurm("scontrol", "show", "job", job)
    assert "was cancelled, and is not run again" in idle.logs(run)


def test_a_dependent_job_continues_if_requeue_is_forbidden(idle: Jobs) -> None:
    tools = idle.folder / "site"
    tools.mkdir()
    real = shutil.which("scontrol")
    refusal = '[ "$1" != requeue ] || { echo "Requested operation is presently disabled" >&2; exit 1; }'
    (tools / "scontrol").write_text(f'#!/bin/bash\n{refusal}\nexec {real} "$@"\n')
    (tools / "scontrol").chmod(0o755)
    config = idle.config("forbidden.yaml", trainer={"max_epochs": 40}, slurm={"setup": [f"export PATH={tools}:$PATH"]})
    _, whole = idle.submit(config)
    idle.wait(lambda: idle.finished(whole), 180)
    job, run = idle.submit(config)
    idle.wait(lambda: RunFolder(run).last_checkpoint.is_file(), 90)
    idle.slurm("scancel", "--signal=USR1", job)
    idle.wait(lambda: idle.finished(run), 180)
    assert re.search(rf"job \d+ continues when {job} has ended", idle.logs(run))
    assert len(list((run / "slurm").glob("*.log"))) == 2
    assert not differences(trained(whole), trained(run))


def test_a_second_job_on_the_same_run_folder_is_refused(idle: Jobs) -> None:
    job, run = idle.submit(idle.config("twice.yaml", trainer={"max_epochs": 400}))
    idle.wait(lambda: RunFolder(run).last_checkpoint.is_file(), 90)
    here = idle.cli(f"resume={run}")
    assert here.returncode == 2
    assert "is working in it" in here.stderr
    _, same = idle.submit(f"resume={run}")
    assert same == run
    idle.wait(lambda: len(list((run / "slurm").glob("*.log"))) == 2 and len(idle.states()) == 1, 90)
    assert "is working in it" in idle.logs(run)
    assert RunFolder(run).status()["job"] == job


def test_an_unknown_partition_is_reported_in_one_line(idle: Jobs) -> None:
    done = idle.cli(idle.config(), "--submit", "slurm.partition=nowhere")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "SLURM refuses" in line
    assert "artition" in line


def test_a_node_without_the_data_fails_within_a_minute(idle: Jobs) -> None:
    job, run = idle.submit(idle.config("gone.yaml"), "slurm.options=[--hold]")
    needs = run / "slurm" / "needs.json"
    needs.write_text(json.dumps({**json.loads(needs.read_text()), "paths": ["/nowhere/cells"]}))
    begun = time.monotonic()
    idle.slurm("scontrol", "release", job)
    idle.wait(lambda: not idle.states(), 60)
    assert time.monotonic() - begun < 60
    output = [line for line in idle.logs(run).splitlines() if "/nowhere/cells: is not there" in line]
    assert len(output) == 2  # a line a node
    assert RunFolder(run).status()["status"] == "submitted"


def test_a_gpu_invisible_to_torch_fails_within_a_minute(idle: Jobs) -> None:
    """The nodes offer GPUs that torch on this machine does not see."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    job, run = idle.submit(idle.config("gpus.yaml", slurm={"gpus_per_node": 8, "tasks_per_node": None, "nodes": 1}))
    idle.wait(lambda: not idle.states(), 90)
    assert "sees 0 GPUs, expected 8" in idle.logs(run)
    assert "gres/gpu:v100:8" in idle.slurm("scontrol", "show", "job", job) or "gpu" in idle.slurm(
        "scontrol", "show", "job", job
    )


@pytest.mark.parametrize("kind", ["predict", "analyze"])
def test_an_array_divides_the_inputs_and_writes_one_table(
    idle: Jobs, finished: Path, tomograms: list[Path], kind: str
) -> None:
    cells = tomograms[0].parent
    slurm = ["slurm.array=3", "slurm.gpus_per_node=0", "slurm.nodes=1", "slurm.cpus_per_task=1", "slurm.time=10"]
    if kind == "predict":
        words = [idle.config(), "name=shared", "stages=[predict]", f"predict.checkpoint={finished}"]
        words.append(f"predict.inputs=[{cells}/*.TCF]")
    else:
        words = ["analyze", f"inputs=[{cells}/*.TCF]", f"runs_dir={idle.folder / 'runs'}", "meshes=none", "workers=0"]
    _, run = idle.submit(*words, *slurm)
    idle.wait(lambda: idle.finished(run), 400, idle.logs(run))
    assert len((run / "slurm" / "manifest.txt").read_text().split()) == 5
    assert len(list((run / "slurm").glob("*.log"))) == 3
    table = run / "tables" / ("predictions.csv" if kind == "predict" else "files.csv")
    with table.open() as file:
        names = {Path(row.get("input") or row["file"]).name.partition(".")[0] for row in csv.DictReader(file)}
    assert names == {path.name.partition(".")[0] for path in tomograms}
    assert (run / "report.html").is_file()
