"""From a 2D image to a 3D shape: what it costs, how wrong it is, how honest its spread, and what it is good for.

    python benchmarks/shape.py --data FOLDER --part train    # hours; goes on where it was stopped
    python benchmarks/shape.py --data FOLDER                 # every table of what is trained

FOLDER holds `image`, `mask` and `obj` of the red blood cells; without it only the cost is measured. The cost goes into
`shape.json`, every other part into `shape_PART.json`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the packages before this script's own neighbours

from benchmarks._common import Table, Watch, finish, options
from benchmarks._shape_classes import SETS, class_tables
from benchmarks._shape_conditioned import conditioned_table
from benchmarks._shape_cost import cost_table
from benchmarks._shape_errors import error_tables, limits_table, model_errors
from benchmarks._shape_runs import CLASSIFIED, COMPARED, FOLDS, inner_of, jobs, outer_of, train_all
from benchmarks._shape_spread import spread_tables
from benchmarks._shape_steps import steps_table
from benchmarks._shape_train import read_cells
from cytovox.statistics.classify import Forest

Found = tuple[list[Table], dict[str, Any]]
#: The model that is shipped; and the one whose conformal intervals every spread is held against.
SHIPPED = "traits"
BAR = "regressor"


def errors(arguments: argparse.Namespace) -> Found:
    """All models on the same cells, and what limits the best."""
    cells, found = read_cells(arguments.data), complete(arguments)
    tables, rows = error_tables(cells, model_errors(cells, found))
    limits, values = limits_table(cells, found[SHIPPED])
    oracle, conditioned_rows = conditioned_table(cells, arguments.data, arguments.work)
    return [*tables, limits, oracle], {**rows, "limits": values, "traits": conditioned_rows}


def spread(arguments: argparse.Namespace) -> Found:
    """Volumes and voxel probabilities."""
    return spread_tables(read_cells(arguments.data), complete(arguments), BAR, arguments.out.parent)


def classes(arguments: argparse.Namespace) -> Found:
    """What predicted shapes are worth to a classifier."""
    runs = {
        model: (outer, inner_of(arguments.work, model))
        for model, outer in complete(arguments).items()
        if model in CLASSIFIED
    }
    nested = {model: found for model, found in runs.items() if found[1]}
    if not nested:
        raise SystemExit("no model has all its inner folds yet: --part train first")
    forest = Forest(trees=20, seeds=(0,)) if arguments.quick else Forest(jobs=arguments.cores)
    kinds = tuple(SETS) if arguments.features == "all" else (arguments.features,)
    return class_tables(read_cells(arguments.data), nested, arguments.work / "features", forest, kinds)


def steps(arguments: argparse.Namespace) -> Found:
    """Few steps and many."""
    table, rows = steps_table(read_cells(arguments.data), arguments.data, arguments.work)
    return [table], rows


def complete(arguments: argparse.Namespace) -> dict[str, Any]:
    """The outer folds of every model that has all of them."""
    found = {model: outer_of(arguments.work, model) for model in COMPARED}
    whole = {model: folds for model, folds in found.items() if len(folds) == FOLDS}
    for needed in (SHIPPED, BAR):
        if needed not in whole:
            raise SystemExit(f"{needed} has {len(found[needed])} of {FOLDS} folds: --part train first")
    return whole


#: What is measured without a clock.
PARTS: dict[str, Callable[[argparse.Namespace], Found]] = {
    "errors": errors,
    "spread": spread,
    "classes": classes,
    "steps": steps,
}


def more(parser: argparse.ArgumentParser) -> None:
    """Options of this script alone."""
    parser.add_argument("--data", type=Path, default=None, help="folder of the cells; the cost needs none")
    parser.add_argument("--work", type=Path, default=Path("runs/shape_bench"), help="folder of the trainings")
    parser.add_argument("--part", choices=("train", "cost", *PARTS, "all"), default="all", help="what to do (all)")
    parser.add_argument("--minutes", type=float, default=9.3, help="of each outer training (9.3)")
    parser.add_argument("--inner-minutes", type=float, default=2.3, help="of each inner training (2.3)")
    parser.add_argument("--features", choices=(*SETS, "all"), default="all", help="of the classes: which set (all)")
    parser.add_argument("--cores", type=int, default=2, help="trainings at once, and threads of the forests (2)")


def main() -> None:
    """Train, or measure what is trained."""
    arguments = options("shape", "Shapes from images: cost, errors, spread, classes, steps.", 3, more)
    if arguments.data is None and arguments.part == "all":
        print("--data: not given: the cost alone is measured")
        arguments.part = "cost"
    elif arguments.data is None and arguments.part != "cost":
        raise SystemExit("--data: expected the folder that holds image, mask and obj of the cells")
    if arguments.part == "train":
        train_all(jobs(arguments.minutes, arguments.inner_minutes), arguments.data, arguments.work, arguments.cores)
        return
    if arguments.part in ("cost", "all"):
        cost_table(arguments)
    stem = arguments.out
    for part in PARTS if arguments.part == "all" else {arguments.part} & PARTS.keys():
        arguments.name, arguments.out = f"shape_{part}", stem.with_stem(f"{stem.stem}_{part}")
        with Watch() as watch:
            tables, rows = PARTS[part](arguments)
        finish(arguments, rows, {}, tables, watch)


if __name__ == "__main__":
    main()
