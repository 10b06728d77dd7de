"""Score shipped and other weights on data that neither our simulator's shapes nor its microscope made.

Phantoms are drawn by `_phantom_cells` and imaged by `_phantom_microscope`, which import nothing of `cytovox.simulation`
(an import contract) and which no config trains on. Nuclei are scored by their visibility d' (contrast across the
surface over the deviation within 1.2 µm of it) and by how far they lie from the middle of their cell.

The set ``full_wave`` comes from a full-wave forward model and from odtbrain's reconstruction. It is made beforehand, in
an environment of its own: ``bash benchmarks/full_wave/make_environment.sh``.

Run as ``python benchmarks/independent.py [--weights NAME ...]``. The first run makes the phantoms of the other sets,
about ten minutes on two cores, and stores them in ``--cache``.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

import numpy as np

import cytovox
from benchmarks._common import Table, Watch, finish, options, say
from benchmarks._independent_cells import cells_table, nuclei_table
from benchmarks._phantom_scores import CellScore, MaskScores, cell_scores, organelle_scores
from benchmarks._phantom_sets import SETS, Case, cached_cases, load_case
from benchmarks.full_wave import files as full_wave
from cytovox.errors import InputError
from cytovox.organelles import ORGANELLES
from cytovox.statistics.bootstrap import interval

VISIBILITIES = ((0.0, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, math.inf))
OFFSETS = ((0.0, 0.2), (0.2, 0.4), (0.4, math.inf))


def more(parser: argparse.ArgumentParser) -> None:
    """Add the options of this script."""
    parser.add_argument("--weights", nargs="+", default=["organelle"], help="names or files of organelle weights")
    parser.add_argument(
        "--sets",
        nargs="+",
        choices=[*SETS, full_wave.NAME],
        help=f"sets of phantoms; all if left out, {full_wave.NAME} if it was made (bash {full_wave.COMMAND})",
    )
    parser.add_argument("--count", type=int, help="phantoms of each set; all if left out")
    parser.add_argument("--cache", type=Path, default=full_wave.CACHE, help="folder of the phantoms")
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("CYTOVOX_DATA"), help="folder of the real images (CYTOVOX_DATA)"
    )


def main() -> None:
    """Make the phantoms, predict, and print the tables."""
    arguments = options("independent", "Weights on data that our simulator did not make.", 1, more)
    count = 1 if arguments.quick else arguments.count
    watch, begun = Watch(), time.perf_counter()
    with watch:
        try:
            cases = cases_of(arguments.sets, count, arguments.cache)
        except InputError as error:
            print(error, file=sys.stderr)
            sys.exit(error.exit_code)
        say(f"phantoms: {sum(map(len, cases.values()))}, made or read in {time.perf_counter() - begun:.0f} s")
        tables, rows = [], {}
        for weights in arguments.weights:
            found = score_weights(weights, cases)
            tables += tables_of(weights, found)
            rows[weights] = {name: dataclasses.asdict(scores) for name, scores in found.items()}
        if fields := [case for found in cases.values() for case in found if case.cells_ZYX.max() > 1]:
            tables.append(cells_table(fields))
        if arguments.data is not None:
            tables.append(nuclei_table(Path(arguments.data)))
    finish(arguments, rows, {}, tables, watch)


def cases_of(names: Sequence[str] | None, count: int | None, cache: Path) -> dict[str, list[Case]]:
    """Return the phantoms of sets.

    Parameters
    ----------
    names : sequence of str or None
        Sets; None stands for all, and leaves out `full_wave` where its phantoms are missing, which is printed.
    count : int or None
        Phantoms of each set; None stands for all.
    cache : Path
        Folder of the phantoms. Those of `full_wave` must be there, the others are made.

    Raises
    ------
    InputError
        `full_wave` was named, and its phantoms are missing.
    """
    found: dict[str, list[Case]] = {}
    for name in names or [*SETS, full_wave.NAME]:
        if name in SETS:
            found[name] = cached_cases(name, count or SETS[name].count, cache, os.cpu_count() or 1, say)
            continue
        paths = full_wave.phantom_paths(cache, count or full_wave.COUNT)
        there = sum(path.is_file() for path in paths)
        if there == len(paths):
            found[name] = [load_case(path) for path in paths]
            continue
        missing = (
            f"set {name}: {there} of {len(paths)} phantoms in {paths[0].parent}; "
            f"make them: bash {full_wave.COMMAND} --count {len(paths)} --cache {cache}"
        )
        if names:
            raise InputError(missing)
        say(f"{missing}; this run is without the set")
    return found


@dataclasses.dataclass
class SetScores:
    """Scores of one set of phantoms."""

    organelles: list[dict[str, MaskScores]] = dataclasses.field(default_factory=list)
    """Per phantom."""
    cells: list[CellScore] = dataclasses.field(default_factory=list)
    """Per cell."""


def score_weights(weights: str, cases: dict[str, list[Case]]) -> dict[str, SetScores]:
    """Return the scores of weights in every set."""
    model = cytovox.load_model(weights, task="organelle")
    found: dict[str, SetScores] = {}
    for name, phantoms in cases.items():
        begun = time.perf_counter()
        scores = found[name] = SetScores()
        for case in phantoms:
            masks = model.predict(cytovox.Volume(case.ri_ZYX, spacing_um=case.spacing_um))
            scores.organelles.append(organelle_scores(case, masks))
            scores.cells += cell_scores(case, np.asarray(masks["nucleus"], bool))
        say(f"{weights}: {name}, {len(phantoms)} phantoms, {time.perf_counter() - begun:.0f} s")
    return found


def tables_of(weights: str, found: dict[str, SetScores]) -> list[Table]:
    """Return the tables that a reader sees."""
    overall = Table(
        f"{weights}: mean over phantoms [95 % bootstrap interval]",
        ["set", "organelle", "Dice", "surface Dice 0.4 µm", "HD95 µm, median", "volume error, median"],
    )
    for name, scores in found.items():
        for organelle in ORGANELLES:
            rows = [phantom[organelle] for phantom in scores.organelles if not math.isnan(phantom[organelle].dice)]
            overall.rows.append(
                [
                    name,
                    organelle,
                    shown([row.dice for row in rows]),
                    shown([row.surface_dice for row in rows]),
                    f"{np.median([row.hausdorff_um for row in rows]):.2f}" if rows else "-",
                    f"{np.median([row.volume_error for row in rows]):+.2f}" if rows else "-",
                ]
            )
    cells = [cell for scores in found.values() for cell in scores.cells]
    nuclei = [cell for cell in cells if cell.nuclei]
    seen = Table(f"{weights}: Dice of the nucleus by visibility d' and by offset from the cell's middle, all sets",
                 ["", "cells", "Dice", "share with Dice >= 0.8"])  # fmt: skip
    for title, value, bins in (
        ("d'", lambda cell: cell.visibility, VISIBILITIES),
        ("offset", lambda cell: cell.offset, OFFSETS),
    ):
        seen.rows += [_bin_row(title, low, high, nuclei, value) for low, high in bins]
    for sign, chosen in (("brighter", 1), ("darker", -1)):
        here = [cell.dice for cell in nuclei if np.sign(cell.contrast) == chosen and cell.visibility >= 1]
        seen.rows.append([f"{sign} than the cytoplasm, d' >= 1", *_columns(here)])
    counts = Table(
        f"{weights}: number of nuclei per cell, all sets", ["true nuclei", "cells", "none found", "one", "two or more",
                                                            "predicted share of the cell, median"]
    )  # fmt: skip
    for number in (0, 1, 2):
        here_cells = [cell for cell in cells if cell.nuclei == number]
        fewest = [sum(cell.found == k for cell in here_cells) for k in (0, 1)]
        share = f"{np.median([cell.predicted_share for cell in here_cells]):.3f}" if here_cells else "-"
        rest = len(here_cells) - sum(fewest)
        counts.rows.append([str(number), str(len(here_cells)), *(str(n) for n in (*fewest, rest)), share])
    return [overall, seen, counts]


def shown(values: Sequence[float]) -> str:
    """Return a mean and its interval, such as ``0.912 [0.890, 0.931]``."""
    if not values:
        return "-"
    array = np.array(values)
    found = interval(lambda index: float(array[index].mean()), len(array))
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _bin_row(
    title: str, low: float, high: float, cells: Iterable[CellScore], value: Callable[[CellScore], float]
) -> list[str]:
    name = f"{title} {low:g} to {high:g}" if math.isfinite(high) else f"{title} {low:g} and more"
    return [name, *_columns([cell.dice for cell in cells if low <= value(cell) < high])]


def _columns(values: Sequence[float]) -> list[str]:
    good = f"{np.mean(np.array(values) >= 0.8):.2f}" if values else "-"
    return [str(len(values)), shown(values), good]


if __name__ == "__main__":
    main()
