"""Accuracy of `--plan`: its estimates for a run, and the measured run.

Both are started as a person starts them, in turn, round after round, with the volumes already prepared. The plan's
tables are read as they are printed; the run's figures are in its metrics.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the packages before this script's own neighbours

from benchmarks._common import Table, Watch, finish, options, quiet_rounds, ratio, show_ratio

CONFIG = "organelle_demo"
HOME = Path(__file__).resolve().parents[1]
#: What is compared, and how many digits are shown.
FIGURES = {"seconds a batch": 4, "seconds an epoch": 1, "seconds of the fit": 1, "peak memory, MB": 0}


def words(quick: bool) -> list[str]:
    """The demo with few volumes, long enough that its start does not matter."""
    more = ["stages=[fit]", "logging.wandb=disabled", "trainer.max_time=null", "data.test.count=0"]
    if quick:
        more += ["data.shape=[32,64,64]", "data.patch_size=[24,32,32]", "data.train.count=2", "data.val.count=2"]
        more += ["model.channels=[16,32,64]", "data.batch_size=2", "data.patches_per_epoch=200"]
        return [*more, "predict.stride=[12,16,16]", "trainer.max_epochs=3"]
    return [*more, "data.train.count=10", "trainer.max_epochs=4"]


def call(*command: str) -> str:
    """Standard output of `experiments.run`."""
    full = [sys.executable, "-m", "experiments.run", CONFIG, *command]
    environment = {**os.environ, "PYTHONPATH": str(HOME), "COLUMNS": "160"}
    return subprocess.run(full, cwd=HOME, env=environment, capture_output=True, text=True, check=True).stdout


def planned(out: str) -> dict[str, float]:
    """The figures of a printed plan."""
    row = {
        cells[0]: cells[1:] for line in out.splitlines() if len(cells := [c.strip() for c in line.split("│")][1:]) > 2
    }
    return {
        "seconds a batch": float(row["fit: a batch"][0].removesuffix(" s")),
        "seconds an epoch": seconds(row["fit: an epoch"][0]),
        "seconds of the fit": seconds(row["fit"][1]),
        "peak memory, MB": 1e3 * float(row["main memory: in all"][0]),
    }


def seconds(output: str) -> float:
    """Back from `12 s`, `3 min 20 s` or `5 h 07 min`."""
    units = {"s": 1, "min": 60, "h": 3600, "d": 86400}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.e+-]+) (s|min|h|d)\b", output))


def took(run: Path) -> dict[str, float]:
    """The same figures of a run."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return {
        "seconds a batch": metrics["fit/batch_seconds"],
        "seconds an epoch": metrics["fit/epoch_seconds"],
        "seconds of the fit": metrics["fit/seconds"],
        "peak memory, MB": metrics["fit/peak_memory_mb"],
    }


def compare(quick: bool) -> dict[str, dict[str, float]]:
    """A plan, then its run."""
    with tempfile.TemporaryDirectory() as folder:
        output = planned(call(*words(quick), "--plan"))
        last = call(*words(quick), f"runs_dir={folder}").splitlines()[-1]
        return {"plan": output, "run": took(Path(last.removeprefix("run: ")))}


def main() -> None:
    """Compare round after round."""
    arguments: argparse.Namespace = options(
        "plan_agreement", "Estimates of --plan for the demo, compared with its run.", repeats=3
    )
    with tempfile.TemporaryDirectory() as folder:
        call(*words(arguments.quick), "trainer.max_steps=1", "trainer.limit_val_batches=0", f"runs_dir={folder}")
    with Watch() as watch:
        found = quiet_rounds(arguments, watch, lambda: compare(arguments.quick), warm=False)
    rows: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    table = Table(f"{CONFIG}: the plan against the run", ["what", "plan", "run", "plan / run"])
    for name, digits in FIGURES.items():
        rows[name] = {side: [values[side][name] for values in found] for side in ("plan", "run")}
        ratios[f"plan over run: {name}"] = value = ratio(rows[name]["plan"], rows[name]["run"])
        middle = {side: sorted(rows[name][side])[len(found) // 2] for side in ("plan", "run")}
        table.rows.append([name, *(f"{middle[side]:.{digits}f}" for side in ("plan", "run")), show_ratio(value)])
    finish(arguments, rows, ratios, [table], watch)


if __name__ == "__main__":
    main()
