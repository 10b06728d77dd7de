"""Cost of telling cells from each other, with 8 to 64 of them in one volume of the same size."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

from benchmarks._common import Table, Watch, interleaved, ratio, show_ratio
from cytovox.models.networks import CELL_CHANNELS
from cytovox.networks import network_config
from cytovox.preprocess.resampling import ResampleTo
from cytovox.segmentation.field import CellField, SeedRule
from cytovox.segmentation.networks import ConditionedCells
from experiments.tasks.analyze.predictors import cell_finder, cell_weights

COUNTS = (8, 16, 32, 64)
SHAPE, SPACING = (64, 320, 320), (0.3, 0.3, 0.3)


def packed_field(count: int, shape: tuple[int, int, int] = SHAPE) -> CellField:
    """So many equal cells that fill a layer of the volume, each with a nucleus: what is timed is not their form."""
    rows = int(np.floor(np.sqrt(count)))
    while count % rows:
        rows -= 1
    columns = count // rows
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij", sparse=True)
    membrane = np.broadcast_to((z >= shape[0] // 8) & (z < 5 * shape[0] // 8), shape)
    height, width = shape[1] / rows, shape[2] / columns
    radius = 0.3 * min(height, width, shape[0] / 2)
    seeds = np.zeros(shape, np.int32)
    for k in range(count):
        cy, cx = (k // columns + 0.5) * height, (k % columns + 0.5) * width
        seeds[(z - 3 * shape[0] / 8) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = k + 1
    ri = (1.337 + 0.02 * membrane + 0.01 * (seeds > 0)).astype(np.float32)
    return CellField(np.array(membrane), seeds > 0, SPACING, ri, seeds)


def measure_cost(arguments: argparse.Namespace, watch: Watch) -> tuple[list[Table], dict[str, Any], dict[str, Any]]:
    """Seconds a volume of each method and number of cells, in rounds over all of them."""
    shape = (16, 64, 64) if arguments.quick else SHAPE
    counts = COUNTS[:2] if arguments.quick else COUNTS
    finders = {m: cell_finder(m, cell_weights(m, None), SeedRule()) for m in ("network", "offsets", "watershed")}
    fields = {count: packed_field(count, shape) for count in counts}
    tasks = {
        f"{method}, {count}": (lambda finder=finder, count=count: finder(fields[count]))
        for method, finder in finders.items()
        for count in counts
    }
    seconds = interleaved(arguments, watch, tasks)
    table = Table(
        f"seconds a volume of {'x'.join(map(str, shape))} voxels (median)",
        ["cells", "nucleus by nucleus (published)", "centre offsets", "seeded watershed", "published over offsets"],
    )
    ratios: dict[str, Any] = {}
    for count in counts:
        name = f"published over offsets, {count} cells"
        ratios[name] = ratio(seconds[f"network, {count}"], seconds[f"offsets, {count}"])
        cells = [f"{statistics.median(seconds[f'{method}, {count}']):.2f}" for method in finders]
        table.rows.append([str(count), *cells, show_ratio(ratios[name])])
    grows = f"offsets, {counts[-1]} cells over {counts[0]}"
    ratios[grows] = ratio(seconds[f"offsets, {counts[-1]}"], seconds[f"offsets, {counts[0]}"])
    table.rows.append([f"{counts[-1]} over {counts[0]}", "", show_ratio(ratios[grows]), "", ""])
    return [table, _published_network(fields[counts[0]], counts[0], arguments.quick)], dict(seconds), ratios


def _published_network(field: CellField, count: int, quick: bool) -> Table:
    """One timing of the published network, ScNAS, in the published way: random weights cost what trained ones do."""
    grid = (48, 48, 48) if quick else (64, 128, 128)
    finders = {
        "ScNAS 12/8/3, nucleus by nucleus": ConditionedCells(
            network_config("scnas")().build(*CELL_CHANNELS["network"]), ResampleTo(grid=grid), batch_size=1
        ),
        "centre offsets": cell_finder("offsets", cell_weights("offsets", None), SeedRule()),
    }
    table = Table(f"the published network, {count} cells, timed once", ["method", "s"])
    for name, finder in finders.items():
        begun = time.perf_counter()
        finder(field)
        table.rows.append([name, f"{time.perf_counter() - begun:.1f}"])
    return table
