"""The protocol of Choi et al. 2021 for some minutes: ScNAS 12/8/3 trained on one simulated line, tested on five.

    python -m studies.choi --part simulate
    python -m studies.choi --task organelle --part train --minutes 9    # again to train longer
    python -m studies.choi --task organelle --part test
    python -m studies.choi --task cells --part train --part test --minutes 6

`organelle_choi` and `cells_choi` are trained at their full size: patches, and for cells the grid, of 64x128x128 voxels.
The number of volumes is smaller than the paper's unless `--paper-counts` is given, since 177 volumes of 96x320x320
voxels take one core about two hours to simulate. Learning curves go into `choi_TASK_curves.csv`.

References
----------
Choi et al. 2021, bioRxiv 2021.05.23.445351.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cytovox.errors import InputError
from cytovox.simulation import PRESETS
from experiments.build import build_data
from experiments.config import load_config
from experiments.launch import launch
from experiments.progress import Bars
from experiments.tasks import task_of
from studies._common import (
    add_shared_options,
    device_of,
    existing_run,
    metric_rows,
    print_table,
    run_study,
    train_for,
    trained_seconds,
    trained_steps,
    write_half_weights,
    write_result,
)
from training.rundir import RunFolder, write_text

#: The line that is trained.
TRAINED = "NIH3T3"
PARTS = ("simulate", "train", "test")
#: By task: the table of the test, and the columns to show of it.
TABLES = {
    "organelle": ("test_groups.csv", ("dice_membrane", "dice_nucleus", "dice_nucleolus", "dice_lipid", "dice_mean")),
    "cells": ("test_cell_lines.csv", ("dice", "dice_matched", "ap_50", "pq")),
}
#: The paper's numbers of volumes: training, validation (not in the paper), test of the trained line, of each other.
PAPER_COUNTS = (105, 12, 24, 9)


def study(arguments: argparse.Namespace) -> None:
    """Do the chosen parts for the chosen tasks.

    Raises
    ------
    InputError
        An option or a config key is invalid, or an earlier part has not been done.
    """
    arguments.out = arguments.out or arguments.work
    parts: dict[str, Callable[[argparse.Namespace, str], None]] = {"simulate": simulate, "train": train, "test": test}
    for task in arguments.task or TABLES:
        for part in PARTS:
            if part in (arguments.part or PARTS):
                parts[part](arguments, task)


def overrides_of(arguments: argparse.Namespace) -> list[str]:
    """Return the overrides of both tasks: numbers of volumes and the device; the command line's come last."""
    train, val, test, others = PAPER_COUNTS if arguments.paper_counts else arguments.counts
    tested = {line: test if line == TRAINED else others for line in PRESETS}
    shown = ", ".join(f"{line}: {count}" for line, count in tested.items())
    return [
        f"data.train.counts={{{TRAINED}: {train}}}", f"data.val.counts={{{TRAINED}: {val}}}",
        f"data.test.counts={{{shown}}}", f"data.cache_dir={(arguments.work / 'cache').absolute()}",
        f"trainer.accelerator={device_of(arguments.device).type}", "trainer.benchmark=true",
        "trainer.check_val_every_n_epoch=5", *([f"trainer.max_steps={arguments.steps}"] if arguments.steps else []),
        *arguments.overrides,
    ]  # fmt: skip


def simulate(arguments: argparse.Namespace, task: str) -> None:
    """Fill the cache with all volumes, on all cores; both tasks share them."""
    config = load_config(f"{task}_choi", overrides_of(arguments))
    with Bars() as bars:
        task_of(config).prepare(build_data(config, bars), ("fit", "test"), bars)


def train(arguments: argparse.Namespace, task: str) -> None:
    """Train for the minutes of this call; write the learning curves and the best weights."""
    name = f"{task}_choi"
    folder = train_for(name, overrides_of(arguments), arguments.work / "runs", name, arguments.minutes)
    print(f"{name}: {trained_steps(folder)} steps in {trained_seconds(folder) / 60:.1f} min", flush=True)
    weights = folder.weights()
    assert weights is not None
    files = write_half_weights(weights, arguments.out / f"choi_{task}.safetensors")
    print("weights:", *files, flush=True)
    write_curves(metric_rows(folder), arguments.out / f"choi_{task}_curves.csv")


def write_curves(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Write the rows with a training loss or a validation metric: `step`, `epoch` and their columns."""
    kept = [key for key in rows[0] if key.startswith(("train/", "val/"))] if rows else []
    shown = [row for row in rows if any(row[key] for key in kept)]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["step", "epoch", *kept], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(shown)
    write_text(path, text.getvalue())
    print(f"written: {path}", flush=True)


def test(arguments: argparse.Namespace, task: str) -> None:
    """Test the trained weights on all lines; print the table and write `choi_TASK.json`."""
    folder = existing_run(arguments.work / "runs", f"{task}_choi")
    if folder is None or folder.weights() is None:
        raise InputError(f"--part: {task}: nothing is trained yet; run --part train first")
    launch(
        "", [f"resume={folder.path}", "stages=[test]", "trainer.enable_progress_bar=false", *overrides_of(arguments)]
    )
    rows = line_rows(folder, task)
    _, columns = TABLES[task]
    shown = [[row["cell_line"], row["n"], *(row[column] for column in columns)] for row in rows]
    title = f"{task}_choi: {trained_steps(folder)} steps in {trained_seconds(folder) / 60:.1f} min"
    print_table(title, ["line", "volumes", *columns], shown)
    values = {
        "task": task, "steps": trained_steps(folder), "seconds": trained_seconds(folder), "lines": rows,
        "overrides": overrides_of(arguments), "metrics": folder.metrics(),
    }  # fmt: skip
    write_result(arguments.out / f"choi_{task}.json", "choi", values)


def line_rows(folder: RunFolder, task: str) -> list[dict[str, str]]:
    """Return one row per line of the test's table; of cells, those that start from nuclei found by the rule."""
    with (folder.tables / TABLES[task][0]).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        {"cell_line": row.get("cell_line") or row["group"], **row} for row in rows if row.get("seeds", "rule") == "rule"
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study and return its exit code."""
    parser = argparse.ArgumentParser(prog="studies.choi", description=(__doc__ or "").splitlines()[0])
    add_shared_options(parser, "choi")
    parser.add_argument("--task", action="append", choices=tuple(TABLES), help="may be repeated; default: both")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; default: all")
    parser.add_argument(
        "--counts", type=int, nargs=4, default=(48, 4, 4, 4), metavar=("TRAIN", "VAL", "TEST", "OTHERS"),
        help="volumes: training, validation, test of the trained line, test of each other line (48 4 4 4)",
    )  # fmt: skip
    parser.add_argument("--paper-counts", action="store_true", help="as many volumes as in the paper: 105 12 24 9")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(%(default)s)")
    arguments = parser.parse_intermixed_args(argv)
    if min(arguments.counts) < 1:
        parser.error(f"--counts: expected numbers of 1 or more, got {min(arguments.counts)}")
    return run_study(study, arguments)


if __name__ == "__main__":
    sys.exit(main())
