"""Runs on the test cluster: submit one, wait for its end, look at what it left."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml

from training.rundir import RunFolder

HOME = Path(__file__).resolve().parents[2]

#: A run that trains for some seconds on two ranks, with dropout, averaged weights and a schedule.
TINY: dict[str, Any] = {
    "base": ["organelle_demo"],
    "name": "tiny",
    "seed": 5,
    "stages": ["fit"],
    "data": {
        "shape": [16, 32, 32],
        "spacing_um": [0.6, 0.6, 0.6],
        "train": {"count": 4, "first_seed": 0},
        "val": {"count": 6, "first_seed": 100},
        "test": {"count": 2, "first_seed": 200},
        "resample_spacing_um": [0.6, 0.6, 0.6],
        "patch_size": [16, 32, 32],
        "patches_per_epoch": 24,
        "batch_size": 2,
        "num_workers": 0,
    },
    "model": {"channels": [8, 16], "dropout": 0.2},
    "trainer": {"max_epochs": 4, "max_time": None, "precision": "32-true", "enable_progress_bar": False},
    "predict": {"stride": [16, 32, 32]},
    "logging": {"wandb": "disabled"},
    "slurm": {"gpus_per_node": 0, "nodes": 2, "tasks_per_node": 1, "cpus_per_task": 1, "time": "10", "signal_s": 30},
}


class Jobs:
    """The cluster as its user meets it: through the command line.

    Parameters
    ----------
    environment : mapping
        What leads to the cluster.
    folder : Path
        Where configs and runs lie.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "CYTOVOX_RUN"))},
            **environment,
            "CYTOVOX_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(HOME),
        }

    def config(self, file: str = "tiny.yaml", **groups: Any) -> Path:
        """Write TINY, its groups changed."""
        tree = {key: dict(value) if isinstance(value, dict) else value for key, value in TINY.items()}
        for key, value in groups.items():
            tree[key] = {**tree.get(key, {}), **value} if isinstance(value, dict) else value
        path = self.folder / file
        path.write_text(yaml.safe_dump({**tree, "runs_dir": str(self.folder / "runs")}))
        return path

    def cli(self, *words: object, module: str = "experiments.run") -> subprocess.CompletedProcess[str]:
        """`python -m experiments.run WORDS`."""
        command = [sys.executable, "-m", module, *map(str, words)]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300, check=False
        )

    def submit(self, *words: object, module: str = "experiments.run") -> tuple[str, Path]:
        """Number of the job, and its run folder."""
        done = self.cli(*words, "--submit", module=module)
        assert done.returncode == 0, done.stderr
        output = dict(re.findall(r"^(job|run|sweep):? (.*)$", done.stdout, re.MULTILINE))
        return output["job"].partition(":")[0], Path(output.get("run", output.get("sweep", "")))

    def slurm(self, *words: str) -> str:
        """A command of SLURM."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout

    def states(self) -> list[str]:
        """Of all jobs that wait or run."""
        return self.slurm("squeue", "--noheader", "--format=%T").split()

    def wait(self, until: Callable[[], bool], limit_s: float, why: str = "") -> None:
        """Wait; fail with the cluster's state where it takes longer."""
        end = time.monotonic() + limit_s
        while not until():
            if time.monotonic() > end:
                raise AssertionError(f"{why or until} within {limit_s} s: {self.slurm('squeue')}")
            time.sleep(0.1)

    def finished(self, run: Path) -> bool:
        """Whether a run came to its end and left the cluster."""
        return RunFolder(run).status()["status"] == "finished" and not self.states()

    def ranks(self, run: Path) -> list[psutil.Process]:
        """The Python processes of a run."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "experiments.run" in words and f"resume={run}" in words and "python" in Path(words[0]).name:
                found.append(process)
        return found

    def logs(self, run: Path) -> str:
        """All that its jobs printed."""
        return "".join(path.read_text(errors="replace") for path in sorted((run / "slurm").rglob("*.log")))


def trained(run: Path) -> dict[str, Any]:
    """What a run's last checkpoint holds that its training depends on."""
    saved = torch.load(RunFolder(run).last_checkpoint, map_location="cpu", weights_only=True)
    keys = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "global_step")
    return {key: saved[key] for key in keys if key in saved}


def differences(left: Any, right: Any, where: str = "") -> list[str]:
    """Where two such trees are not the same, bit for bit."""
    if isinstance(left, torch.Tensor):
        return [] if isinstance(right, torch.Tensor) and torch.equal(left, right) else [where]
    if isinstance(left, dict):
        if not isinstance(right, dict) or left.keys() != right.keys():
            return [where]
        return [output for key in left for output in differences(left[key], right[key], f"{where}.{key}")]
    if isinstance(left, list | tuple):
        if not isinstance(right, list | tuple) or len(left) != len(right):
            return [where]
        return [
            output
            for n, pair in enumerate(zip(left, right, strict=True))
            for output in differences(*pair, f"{where}.{n}")
        ]
    return [] if left == right else [where]
