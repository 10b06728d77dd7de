"""What a shape costs on one core: the published sampler's thousand evaluations against the fast models' few."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch

from benchmarks._common import Table, Watch, finish, interleaved, ratio, show_ratio
from cytovox.models.shape import BATCH
from cytovox.networks.dispr_unet import DISPRUNetConfig
from experiments.build import build_for_training
from experiments.config import load_config
from lightning_modules.shape_base import ShapeBase

#: Steps of the published sampler.
FAITHFUL_STEPS = 1000
SIDE = 64
#: Models that are timed from image to shape: config and number of network passes per shape.
FAST = {"traits": ("shape_rbc", 2), "flow": ("shape_flow", 6), "shapr": ("shapr", 1)}


def cost_table(arguments: argparse.Namespace) -> None:
    """Time one evaluation of DISPR's U-Net and whole shapes of the fast models in turn, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tasks: dict[str, Callable[[], Any]] = {"dispr, one evaluation": faithful(arguments.quick)}
    tasks |= {name: shapes(config) for name, (config, _) in FAST.items()}
    with Watch() as watch:
        seconds = interleaved(arguments, watch, tasks)
    torch.set_num_threads(threads)
    one = seconds["dispr, one evaluation"]
    columns = ["model", "evaluations", "core-seconds an evaluation", "core-seconds a shape", "dispr / model"]
    table, ratios = (
        Table(
            "Cost of a shape on one thread: DISPR's network alone, the others from image to voxels, eight at once",
            columns,
        ),
        {},
    )
    middle = statistics.median(one)
    table.rows.append(["dispr", str(FAITHFUL_STEPS), f"{middle:.2f}", f"{FAITHFUL_STEPS * middle:.0f}", "1"])
    for name, (_, evaluations) in FAST.items():
        each = [value / BATCH for value in seconds[name]]
        value = ratios[f"cost, dispr over {name}"] = ratio([FAITHFUL_STEPS * s for s in one], each)
        shape = statistics.median(each)
        shown = [f"{shape / evaluations:.4f}", f"{shape:.4f}"]
        table.rows.append([name, str(evaluations), *shown, show_ratio(value)])
    finish(arguments, {name: {"seconds": values} for name, values in seconds.items()}, ratios, [table], watch)


def faithful(quick: bool) -> Callable[[], Any]:
    """One evaluation of the published network, as its sampler asks it: one cell at 64 voxels a side."""
    config = DISPRUNetConfig(base_channels=32, multipliers=[1, 1], attention_levels=[]) if quick else DISPRUNetConfig()
    network, side = config.build().eval(), SIDE
    x, t, condition = torch.zeros(1, 1, side, side, side), torch.full((1,), 500.0), torch.zeros(1, 2, side, side)

    @torch.no_grad()
    def evaluate() -> None:
        network(x, t, condition)

    return evaluate


def shapes(config: str) -> Callable[[], Any]:
    """Eight shapes of one cell and their mean, from its image to voxels, as a prediction makes them."""
    module = build_for_training(load_config(config, ["trainer.accelerator=cpu"])).eval()
    assert isinstance(module, ShapeBase)
    image, mask = torch.rand(1, SIDE, SIDE), torch.zeros(1, SIDE, SIDE)
    mask[:, 20:44, 20:44] = 1
    return lambda: module.shapes(image, mask, 0, BATCH)
