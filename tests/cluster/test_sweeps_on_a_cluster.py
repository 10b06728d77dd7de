"""Sweeps as arrays of jobs: by our own agents without a server, and by the real W&B client with one."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster.jobs import Jobs
from training.rundir import RunFolder

pytestmark = pytest.mark.cluster

SLURM = [
    "slurm.array=2",
    "slurm.nodes=1",
    "slurm.gpus_per_node=0",
    "slurm.tasks_per_node=2",
    "slurm.cpus_per_task=1",
    "slurm.time=10",
]


def write_sweep(jobs: Jobs, name: str, srun: list[str], wandb: str, epochs: int) -> Path:
    config = jobs.config(f"{name}-base.yaml", name=name, trainer={"devices": 2, "accelerator": "cpu"},
                         logging={"wandb": wandb, "project": "cells"})  # fmt: skip
    tree = {
        "program": "experiments.run",
        "method": "grid",
        "metric": {"name": "val/dice_mean", "goal": "maximize"},
        "parameters": {"optimizer.lr": {"values": [0.01, 0.001]}, "trainer.max_epochs": {"value": epochs}},
        "command": [*srun, "${env}", "python", "-m", "experiments.run", str(config), "${args_no_hyphens}"],
    }
    path = jobs.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_two_agents_share_a_sweep_and_resume_it_after_a_kill(idle: Jobs) -> None:
    sweep = write_sweep(idle, "ours", [], "disabled", 30)
    job, folder = idle.submit(sweep, *SLURM, module="experiments.sweep")
    idle.wait(lambda: len(list((idle.folder / "runs" / "ours").glob("*/checkpoints/last.ckpt"))) == 2, 120)
    idle.slurm("scancel", "--signal=KILL", "--full", job)
    idle.wait(lambda: not idle.states(), 60)
    states = [run["state"] for run in json.loads((folder / "runs.json").read_text())]
    assert "running" in states
    again = idle.submit(sweep, *SLURM, module="experiments.sweep")
    assert again[1] == folder
    idle.wait(lambda: not idle.states(), 240)
    with (folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["finished", "finished"]
    assert sorted(float(row["optimizer.lr"]) for row in rows) == [0.001, 0.01]
    for row in rows:
        assert RunFolder(Path(row["folder"])).metrics()["fit/ranks"] == 2
        assert RunFolder(Path(row["folder"])).metrics()["fit/steps"] == 30 * 6
    assert len(list((idle.folder / "runs" / "ours").iterdir())) == 2
    assert (folder / "sweep.png").is_file()


def test_wandb_agents_run_a_sweep_of_a_server(idle: Jobs, server: dict[str, str]) -> None:
    sweep = write_sweep(idle, "served", ["srun", "--kill-on-bad-exit=1"], "auto", 3)
    served = Jobs(
        {**idle.environment, **server, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}, idle.folder
    )
    made = subprocess.run(
        ["wandb", "sweep", "--project", "cells", str(sweep)], cwd=idle.folder, env=served.environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    found = re.search(r"wandb agent (\S+/\S+/\S+)", made.stdout + made.stderr)
    assert found is not None, made.stderr
    served.submit(found[1].strip("'\""), "--count", 1, *SLURM, module="experiments.sweep")
    served.wait(lambda: not served.states(), 300)
    logs = "".join(path.read_text(errors="replace") for path in (idle.folder / "runs" / "sweeps").rglob("*.log"))
    runs = sorted((idle.folder / "runs" / "served").glob("sweep-*"))
    assert len(runs) == 2, logs[-4000:]
    rates = []
    for run in runs:
        assert RunFolder(run).status()["status"] == "finished", logs[-4000:]
        assert RunFolder(run).metrics()["fit/ranks"] == 2
        rates.append(yaml.safe_load((run / "config.yaml").read_text())["optimizer"]["lr"])
        assert run.name.endswith(RunFolder(run).status()["wandb_id"])
    assert sorted(rates) == [0.001, 0.01]
