"""Cost of each operation of the search space in each cell, for searches that favour cheap networks."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cytovox.networks.architecture import EDGES, Architecture
from cytovox.networks.genotype import CELL_TYPES, NODES, Genotype, live_states
from cytovox.networks.scnas import ScNASConfig
from cytovox.networks.scnas_cells import OPERATIONS, plan_cells

Measure = Literal["gflop", "parameters", "latency_ms"]

#: Runs of an operation whose median is its latency, after one run that is not counted.
REPEATS = 5


def operation_cost(
    name: str, width: int, stride: int, grid_ZYX: Sequence[int], measure: Measure, device: str = "cpu"
) -> float:
    """Return the cost of one operation in the forward pass of one sample.

    Parameters
    ----------
    name : str
        One of `cytovox.networks.genotype.OPERATION_NAMES`.
    width : int
        Channels.
    stride : int
        1 or 2.
    grid_ZYX : sequence of int
        Size of the input in voxels.
    measure : {"gflop", "parameters", "latency_ms"}
        Billions of floating-point operations (torch's count: 2 per multiply-add, 0 for pooling), number of learned
        parameters, or median latency in milliseconds.
    device : str
        Device of the latency.
    """
    if name == "none":
        return 0.0
    if measure == "parameters":
        return float(sum(p.numel() for p in OPERATIONS[name](width, stride).parameters()))
    where = "meta" if measure == "gflop" else device
    with torch.device(where), torch.no_grad():
        operation, x = OPERATIONS[name](width, stride), torch.zeros(1, width, *grid_ZYX)
        if measure == "gflop":
            with FlopCounterMode(display=False) as counter:
                operation(x)
            return counter.get_total_flops() / 1e9
        return _latency(operation, x)


def _latency(operation: nn.Module, x: torch.Tensor) -> float:
    taken = []
    for _ in range(REPEATS + 1):
        begun = time.perf_counter()
        operation(x)
        if x.device.type != "cpu":
            torch.accelerator.synchronize(x.device)
        taken.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(taken[1:])


def cost_tables(
    config: ScNASConfig, operations: Sequence[str], patch_ZYX: Sequence[int], measure: Measure, device: str = "cpu"
) -> dict[str, torch.Tensor]:
    """Return the cost of each operation on each edge (E, O), summed over all cells of a type."""
    found: dict[tuple[str, int, int, int], float] = {}
    tables = {kind: torch.zeros(len(EDGES), len(operations)) for kind in CELL_TYPES}
    for plan in itertools.chain(*plan_cells(config.width, config.layers, config.multiplier)):
        for row, (_, source) in enumerate(EDGES):
            stride = plan.stride(source)
            level = plan.level - (stride == 2)
            for column, name in enumerate(operations):
                key = (name, plan.width, stride, level)
                if key not in found:
                    grid = [n // 2**level for n in patch_ZYX]
                    found[key] = operation_cost(name, plan.width, stride, grid, measure, device)
                tables[plan.kind][row, column] += found[key]
    return tables


def expected_cost(architecture: Architecture, tables: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the expected cost of the operations of a drawn network; differentiable.

    Modules that all networks have (stem, inputs of cells, head) are excluded. Edges that do not reach an output count.
    """
    total = torch.zeros((), device=next(architecture.parameters()).device)
    for kind in CELL_TYPES:
        read_E, share_EO = architecture.probabilities(kind)
        total = total + (read_E[:, None] * share_EO * tables[kind].to(total)).sum()
    return total


def cost_of(
    genotype: Genotype, tables: Mapping[str, torch.Tensor], operations: Sequence[str], multiplier: int
) -> float:
    """Return the cost of the operations of one network, without edges that do not reach an output.

    Raises
    ------
    ValueError
        An operation that is not in the tables.
    """
    total = 0.0
    for kind in CELL_TYPES:
        cell, costs = getattr(genotype, kind), tables[kind].tolist()
        live = live_states(cell, multiplier)
        for node, edges in zip(NODES, cell, strict=True):
            for edge in edges if node in live else ():
                total += costs[EDGES.index((node, edge.source))][list(operations).index(edge.operation)]
    return total
