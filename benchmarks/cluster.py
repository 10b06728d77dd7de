"""Runs on a cluster: whether any stop loses or changes something, what the trainer costs, and a full disk.

Claims measured here: runs on a real SLURM of two nodes, stopped in eight ways at seeded random moments, all come back,
none hangs, no checkpoint is ever unreadable, and the weights are in the end those of a run that was not stopped, bit
for bit.

`--part kills` needs root, slurm-wlm and munge, as `make test-cluster` does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

from benchmarks._common import Watch, finish, options
from benchmarks._kills import kill_table
from tests.cluster.jobs import Jobs
from tests.cluster.two_nodes import missing, two_nodes


def more(parser: argparse.ArgumentParser) -> None:
    """Options of this script alone."""
    parser.add_argument("--part", choices=("kills",), default="kills", help="what to do (kills)")
    parser.add_argument("--kills", type=int, default=30, help="runs that are stopped (30)")
    parser.add_argument("--epochs", type=int, default=40, help="of each of these runs (40)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")


def main() -> None:
    """Measure, print, write."""
    told = options("cluster", "Runs on a cluster: stops, cost, a full disk.", 1, more)
    if (why := missing()) is not None:
        raise SystemExit(why)
    stem = told.out
    with tempfile.TemporaryDirectory() as folder, Watch() as watch:
        with two_nodes(Path(folder) / "slurm") as environment:
            work = Path(folder) / "work"
            work.mkdir()
            table, trials = kill_table(Jobs(environment, work), told.kills, told.seed, told.epochs)
        told.name, told.out = "cluster_kills", stem.with_stem(f"{stem.stem}_kills")
    finish(told, {f"{n + 1}": trial for n, trial in enumerate(trials)}, {}, [table], watch)


if __name__ == "__main__":
    main()
