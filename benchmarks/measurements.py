"""What measurements are worth: against the truth of simulated cells, in time, and how sure volumes are.

Claims measured here: curves of treated and untreated cells hold the truth inside their intervals and show the known
directions (`--part series`); the 90 % intervals on volumes hold as many (`--part uncertainty`); areas of thin bodies
are off by as much as docs/measurements.md says (`--part area`); an analysis from end to end takes at most 1.5 times its
organelle inference alone (`--part speed`, timed).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

from benchmarks._common import Table, Watch, finish, options
from benchmarks._measured_area import area_tables
from benchmarks._measured_series import series_tables
from benchmarks._measured_speed import speed_tables
from benchmarks._measured_spread import spread_tables

PARTS: dict[str, Callable[[argparse.Namespace], tuple[list[Table], dict[str, Any]]]] = {
    "series": series_tables,
    "uncertainty": spread_tables,
    "area": area_tables,
}


def more(parser: argparse.ArgumentParser) -> None:
    """Options of this script alone."""
    parser.add_argument("--part", choices=(*PARTS, "speed", "all"), default="speed", help="what to measure (speed)")
    parser.add_argument("--fields", type=int, default=3, help="of view, a group, of the series (3)")
    parser.add_argument("--frames", type=int, default=2, help="of 128x512x512 voxels, of the speed (2)")


def main() -> None:
    """Measure, print, write."""
    arguments = options("measurements", "Measurements: truth, uncertainty, speed.", 1, more)
    stem = arguments.out
    for part in PARTS if arguments.part == "all" else {arguments.part} & PARTS.keys():
        arguments.name, arguments.out = f"measurements_{part}", stem.with_stem(f"{stem.stem}_{part}")
        with Watch() as watch:
            tables, rows = PARTS[part](arguments)
        finish(arguments, rows, {}, tables, watch)
    if arguments.part in ("speed", "all"):
        arguments.name, arguments.out = "measurements", stem
        with Watch() as watch:
            tables, rows, ratios = speed_tables(arguments, watch)
        finish(arguments, rows, ratios, tables, watch)


if __name__ == "__main__":
    main()
