"""Run every command of docs/cluster.md."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.jobs import HOME, Jobs
from tests.cluster.test_sweeps_on_a_cluster import write_sweep
from training.rundir import RunFolder

pytestmark = pytest.mark.cluster

#: Made small, and without GPUs: whatever the page asks for.
SMALL = ["slurm.gpus_per_node=0", "slurm.tasks_per_node=1", "slurm.nodes=1", "slurm.time=10", "slurm.cpus_per_task=1"]


def commands() -> list[str]:
    text = (HOME / "docs" / "cluster.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def test_every_command_of_the_page_runs(idle: Jobs, finished: Path, tomograms: list[Path]) -> None:
    config = idle.config("mine.yaml", name="mine", trainer={"max_epochs": 60})
    sweep = write_sweep(idle, "page", [], "disabled", 1)
    known = {"MINE.yaml": str(config), "SWEEP.yaml": str(sweep), "CELLS": str(tomograms[0].parent)}
    known |= {"JOB": "", "RUN": ""}
    done = set()
    for line in commands():
        if "SERVED" in line or "ENTITY" in line or "wandb sync" in line or "two_nodes.py" in line:
            continue  # below, in test_sweeps_on_a_cluster.py, and by the fixture that starts this very cluster
        for name, value in known.items():
            line = re.sub(rf"\b{re.escape(name)}\b", value, line)
        words = shlex.split(line)
        if "slurm.array" in line:
            line_run = str(finished)
            words = [word.replace(known["RUN"], line_run) if "checkpoint" in word else word for word in words]
            words.append("--dry-run")  # tests of their own do it
        if "--submit" in words:
            words += [word for word in SMALL if "experiments.run" in words]
        if words[0] == "python":
            words[0] = sys.executable
        if words[:2] == ["scancel", "--signal=USR1"] or words[0] == "scancel":
            idle.wait(lambda: RunFolder(Path(known["RUN"])).last_checkpoint.is_file(), 120)
        output = subprocess.run(
            words, cwd=idle.folder, env=idle.environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert output.returncode == 0, f"{line}\n{output.stderr}"
        if "--submit" in words and "--dry-run" not in words and "experiments.run" in words:
            found = dict(re.findall(r"^(job|run):? (.*)$", output.stdout, re.MULTILINE))
            known["JOB"], known["RUN"] = found["job"].partition(":")[0], found["run"]
        if words == ["scancel", known["JOB"]]:
            idle.wait(lambda: not idle.states(), 60)
        done.add(words[0])
    assert {"squeue", "scancel"} <= done
    idle.wait(lambda: idle.finished(Path(known["RUN"])), 240)


def test_an_offline_run_can_be_synced(idle: Jobs, server: dict[str, str]) -> None:
    """The page's `wandb sync RUN/wandb/offline-run-*`."""
    gone = {**server, "WANDB_BASE_URL": "http://127.0.0.1:9"}  # nobody listens there
    offline = Jobs({**idle.environment, **gone}, idle.folder)
    words = {"trainer": {"max_epochs": 1, "devices": 1, "accelerator": "cpu"}, "logging": {"wandb": "auto"}}
    done = offline.cli(offline.config("offline.yaml", name="offline", **words))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the run continues offline") == 1
    run = Path(done.stdout.splitlines()[-1].removeprefix("run: "))
    (kept,) = (run / "wandb").glob("offline-run-*")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    synced = subprocess.run(
        ["wandb", "sync", str(kept)], env={**idle.environment, **server, "PATH": path}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert synced.returncode == 0, synced.stderr
    assert RunFolder(run).status()["wandb_id"] in synced.stdout + synced.stderr
