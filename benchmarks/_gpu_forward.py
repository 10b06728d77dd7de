"""A network's forward pass by itself: windows that lie on the device already, logits that stay there."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._gpu_common import (
    LAST,
    autocast_of,
    layout_word,
    products_in,
    repeated,
    seconds_of,
    spread,
    utilisation,
)
from benchmarks._gpu_modes import in_mode
from benchmarks._gpu_record import Recorder
from cytovox.io.regions import Shape

#: Seconds that must be left before something is compiled.
COMPILE_S = 60.0


def flop_of_window(network: nn.Module, window: Shape) -> float:
    """Operations of a forward pass of one window, 2 a multiply-add, counted without computing."""
    bare = copy.deepcopy(network).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        bare(torch.empty(1, 1, *window, device="meta"))
    return float(counter.get_total_flops())


def forward_records(
    bench: Recorder,
    network: nn.Module,
    window: Shape,
    batches: Sequence[int],
    quick_batch: int,
    every_precision: bool = True,
) -> None:
    """Record a forward pass by precision and layout at the first batch size, then by batch size and mode.

    Parameters
    ----------
    bench : Recorder
        Of the part.
    network : Module
        One channel in, in evaluation mode.
    window : three ints
        Voxels z, y, x.
    batches : sequence of int
        Windows a batch.
    quick_batch : int
        Windows a batch of a quick run.
    every_precision : bool
        Whether float32 and TF32 are measured, too.
    """
    first = quick_batch if bench.settings.quick else batches[0]
    flop = flop_of_window(network, window)
    precisions = ["bfloat16", "float16", *(["tf32", "float32"] if every_precision else [])]
    ways = [(precision, last, "eager", first) for precision in precisions for last in (True, False)]
    ways += [] if bench.settings.quick else [("bfloat16", True, "eager", batch) for batch in batches[1:]]
    ways += [("bfloat16", True, "graph", first), ("bfloat16", True, "compile", first)]
    for precision, last, mode, batch in ways:
        bench.measure(
            f"network {precision} {layout_word(last)} {mode} b{batch}",
            partial(_forward, bench, network, window, flop, precision, last, mode, batch),
            needs_s=COMPILE_S if mode == "compile" else 6.0,
            kind="network",
            precision=precision,
            layout=layout_word(last),
            mode=mode,
            batch=batch,
        )


def _forward(
    bench: Recorder, network: nn.Module, window: Shape, flop: float, precision: str, last: bool, mode: str, batch: int
) -> dict[str, Any]:
    settings = bench.settings
    own = copy.deepcopy(network).to(settings.device)
    # both the weights and the windows say the layout: of one channel, only the strides tell it
    shape = (batch, 1, *window)
    x_BCZYX = torch.rand(shape, device=settings.device)
    if last:
        own.to(memory_format=LAST)  # type: ignore[call-overload]
        x_BCZYX = x_BCZYX.as_strided(shape, (math.prod(window), 1, window[1] * window[2], window[2], 1))
    run = in_mode(own, mode, batch, settings)

    def task() -> None:
        with torch.inference_mode(), autocast_of(settings.device, precision):
            run(x_BCZYX)

    with products_in(precision):
        opening = seconds_of(task, settings.device)
        timed = spread(repeated(task, settings))
    seconds = timed["median_ms"] / 1e3
    return {
        **timed,
        "first_call_s": opening,
        "ms_a_window": timed["median_ms"] / batch,
        **utilisation(flop * batch, seconds, precision, settings),
    }
