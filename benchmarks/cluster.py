"""Runs on a cluster: whether any stop loses or changes something, what the trainer costs, and a full disk.

Claims measured here: runs on a real SLURM of two nodes, stopped in eight ways at seeded random moments, all come back,
none hangs, no checkpoint is ever unreadable, and the weights are in the end those of a run that was not stopped, bit
for bit.

The trainer costs less than 5 % of a step over a loop written by hand around the same network, loader and DDP
(`--part steps`, which is timed). A disk that fills during a save leaves the checkpoint before it whole (`--part disk`).

`--part kills` needs root, slurm-wlm and munge, as `make test-cluster` does; `--part disk` needs root.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

from benchmarks._common import Watch, finish, options
from benchmarks._ddp_step import step_tables
from benchmarks._full_disk import disk_table
from benchmarks._kills import kill_table
from tests.cluster.jobs import Jobs
from tests.cluster.two_nodes import missing, two_nodes


def more(parser: argparse.ArgumentParser) -> None:
    """Options of this script alone."""
    parser.add_argument("--part", choices=("steps", "kills", "disk"), default="steps", help="what to do (steps)")
    parser.add_argument("--kills", type=int, default=32, help="runs that are stopped (32)")
    parser.add_argument("--epochs", type=int, default=40, help="of each of these runs (40)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")


def main() -> None:
    """Measure, print, write."""
    arguments = options("cluster", "Runs on a cluster: what the trainer costs, stops, a full disk.", 5, more)
    if arguments.part == "steps":
        with Watch() as watch:
            tables, rows, ratios = step_tables(arguments, watch)
        finish(arguments, rows, ratios, tables, watch)
        return
    if (why := missing()) is not None:
        raise SystemExit(why)
    arguments.name, arguments.out = (
        f"cluster_{arguments.part}",
        arguments.out.with_stem(f"{arguments.out.stem}_{arguments.part}"),
    )
    with tempfile.TemporaryDirectory() as folder, Watch() as watch:
        work = Path(folder) / "work"
        work.mkdir()
        if arguments.part == "disk":
            table, rows = disk_table(work)
        else:
            with two_nodes(Path(folder) / "slurm") as environment:
                table, trials = kill_table(Jobs(environment, work), arguments.kills, arguments.seed, arguments.epochs)
            rows = {f"{n + 1}": trial for n, trial in enumerate(trials)}
    finish(arguments, rows, {}, [table], watch)


if __name__ == "__main__":
    main()
