"""Cells distinguished from each other: what it costs with 8 to 64 of them, and how well it is done.

Claims measured here: with 32 cells in a volume the centre offsets (one pass, whatever the number of cells) are at least
ten times as fast as the published method (one pass per nucleus), and from 8 to 64 cells they take less than 1.5 times
longer; on simulated touching cells they score at least as well (cytovox/segmentation/networks.py).

`--part cost` is timed; `--part quality` is not. The weights are the shipped ones; for cell lines that they have not
seen, train others (`python -m experiments.run cells 'data.train.counts={NIH3T3: 15, A549: 15, HeLa: 15, ...: 0}'`) and
name them with --fast, --network and --lines.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

from benchmarks._cell_cost import measure_cost
from benchmarks._cell_quality import LINES, finders_of, quality_table, tissue_table
from benchmarks._common import Watch, finish, options


def more(parser: argparse.ArgumentParser) -> None:
    """Options of this script alone."""
    parser.add_argument(
        "--part", choices=("cost", "quality", "tissue", "all"), default="cost", help="what to do (cost)"
    )
    parser.add_argument("--fast", default="cells_offsets", help="weights of the fast way")
    parser.add_argument("--network", default="cells_network", help="weights of the published way")
    parser.add_argument("--lines", default=",".join(LINES), help="cell lines of the quality, by commas")
    parser.add_argument("--data", type=Path, default=None, help="folder that has tissue/, real cells (tissue)")
    parser.add_argument("--suffix", default="", help="of the quality's JSON")


def main() -> None:
    """Measure, print, write."""
    arguments = options("cells", "Cells distinguished from each other: cost and quality.", 3, more)
    stem = arguments.out
    if arguments.part in ("cost", "all"):
        with Watch() as watch:
            tables, rows, ratios = measure_cost(arguments, watch)
        finish(arguments, rows, ratios, tables, watch)
    if arguments.part in ("quality", "all"):
        arguments.name = f"cells_quality{arguments.suffix}"
        arguments.out = stem.with_stem(f"{stem.stem}_quality{arguments.suffix}")
        with Watch() as watch:
            tables, found = quality_table(arguments)
        finish(arguments, found, {}, tables, watch)
    if arguments.part in ("tissue", "all") and arguments.data is not None:
        arguments.name, arguments.out = "cells_tissue", stem.with_stem(f"{stem.stem}_tissue")
        with Watch() as watch:
            table = tissue_table(arguments.data / "tissue", finders_of(arguments))
        finish(arguments, {row[0]: row[1:] for row in table.rows}, {}, [table], watch)


if __name__ == "__main__":
    main()
