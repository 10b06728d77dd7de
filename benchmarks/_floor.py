"""The least time that a network's layers can take on a machine, and where the time goes instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks._engine import INSIDE

#: Edge of the matrices whose product tells the rate, in either precision.
EDGE = {torch.bfloat16: 4096, torch.float32: 2048}
#: Bytes that are copied to tell the bandwidth: far more than any cache holds.
COPIED = 1 << 29

#: Kinds of work by what torch calls it; the first that fits counts.
KINDS = (
    ("convolutions", ("convolution", "conv_transpose", "conv3d", "mkldnn")),
    ("normalisations", ("norm",)),
    ("activations, sums of branches", ("relu", "silu", "prelu", "aten::add", "dropout")),
    ("copies, casts, joins", ("copy_", "cat", "clone", "_to_copy", "contiguous", "flip", "fill_", "zero_", "pad")),
)
#: Of what is outside the network.
AROUND = (
    ("sigmoid", ("sigmoid",)),
    ("weighted sums of windows", ("mul", "add", "div")),
    ("is it medium?", ("avg_pool3d", "aten::gt", "aten::any", "aten::max")),
    ("copies", ("copy_", "cat", "clone", "_to_copy", "contiguous", "fill_", "zero_", "stack")),
)


@dataclass(frozen=True)
class Layer:
    """What one convolution or normalisation must do, whatever computes it."""

    name: str
    operations: float
    """2 a multiply-add; a normalisation counts for none."""
    numbers: int
    """Read and written: input, output and weights."""


def layers_of(network: nn.Module, shape: tuple[int, ...]) -> list[Layer]:
    """The layers with weights of a network, in the order of a forward pass.

    Activations, sums and joins are left out, as they could be done in passing: this is a floor.

    Parameters
    ----------
    network : Module
        Each layer is called as a module: a plain one (`benchmarks._plain`).
    shape : (B, C, Z, Y, X)
        Of the input.
    """
    found: list[Layer] = []
    names = {module: name for name, module in network.named_modules()}

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weights = sum(p.numel() for p in module.parameters())
        operations = 0.0
        if isinstance(module, nn.Conv3d):
            operations = 2.0 * output.numel() * module.in_channels // module.groups * prod(module.kernel_size)
        elif isinstance(module, nn.ConvTranspose3d):
            operations = 2.0 * inputs[0].numel() * module.out_channels // module.groups * prod(module.kernel_size)
        found.append(Layer(names[module], operations, inputs[0].numel() + output.numel() + weights))

    kinds = (nn.Conv3d, nn.ConvTranspose3d, nn.InstanceNorm3d, nn.BatchNorm3d, nn.GroupNorm)
    hooks = [module.register_forward_hook(note) for module in network.modules() if isinstance(module, kinds)]
    try:
        with torch.inference_mode():
            network(torch.zeros(shape))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def floor_seconds(layers: list[Layer], bytes_a_number: int, rate: float, bandwidth: float) -> float:
    """Sum over the layers of the larger of computing and moving.

    Parameters
    ----------
    layers : list of Layer
        From `layers_of`.
    bytes_a_number : int
        2 in bfloat16, 4 in float32.
    rate : float
        Operations a second of a large matrix product in that precision.
    bandwidth : float
        Bytes a second, read and written, of a large copy.
    """
    return sum(max(one.operations / rate, one.numbers * bytes_a_number / bandwidth) for one in layers)


def machine_tasks(quick: bool, mixed: bool = True) -> dict[str, tuple[Callable[[], Any], float]]:
    """What tells the rates of the machine: a task each, and how many operations or bytes it is.

    Without `mixed`, none in bfloat16.
    """
    tasks: dict[str, tuple[Callable[[], Any], float]] = {}
    for dtype, edge in EDGE.items():
        if dtype == torch.bfloat16 and not mixed:
            continue
        n = 256 if quick else edge
        a, b = (torch.rand(n, n).to(dtype) for _ in range(2))
        out = torch.empty(n, n, dtype=dtype)
        tasks[str(dtype).removeprefix("torch.")] = (lambda a=a, b=b, out=out: torch.mm(a, b, out=out), 2.0 * n**3)
    source = torch.ones((1 << 20 if quick else COPIED) // 4)
    target = torch.zeros_like(source)
    tasks["bandwidth"] = (lambda: target.copy_(source), 2.0 * source.nbytes)
    return tasks


def shares(call: Callable[[], Any]) -> dict[tuple[str, str], float]:
    """Seconds of one call by place and kind of work, from torch's profiler; in all, what the call took."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler, torch.profiler.record_function("all"):
        call()
    found: dict[tuple[str, str], float] = {}
    for event in profiler.events() or ():
        above, inside = event, False
        while above is not None and not inside:
            inside, above = above.name == INSIDE, above.cpu_parent
        own = event.self_cpu_time_total / 1e6
        if event.name == "all":
            key = ("around the network", "Python, numpy and waiting")
        elif event.name == INSIDE:
            key = ("in the network", "Python")
        else:
            kinds = KINDS if inside else AROUND
            kind = next((kind for kind, words in kinds if any(word in event.name for word in words)), "other")
            key = ("in the network" if inside else "around the network", kind)
        found[key] = found.get(key, 0.0) + own
    return found
