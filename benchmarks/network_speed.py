"""What a forward pass and a training step cost: our networks, and MONAI's of comparable width.

Claims measured here: a residual U-Net that begins below full resolution trains faster than one that does not
(cytovox/networks/residual_unet.py); in bfloat16 channels last is the faster layout (lightning_modules/organelle.py);
checkpointing costs a third more time (cytovox/networks/scnas.py).
"""

from __future__ import annotations

import copy
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

import torch
from monai.networks.nets import DynUNet, SegResNet, UNet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._common import Table, Watch, finish, interleaved, options, ratio, show_ratio, without_bfloat16
from cytovox.losses.segmentation import DiceBCEConfig
from cytovox.networks.residual_unet import ResidualUNetConfig
from cytovox.networks.scnas import ScNASConfig

Shape = tuple[int, int, int, int, int]

ORGANELLES = 4
WIDE, NARROW = [32, 64, 128, 256], [16, 32, 64, 128]
FULL: dict[str, Any] = {"strides": [1, 2, 2, 2], "strides_z": [1, 2, 2, 1]}
FORWARD: Shape = (1, 1, 64, 128, 128)
TRAINING: Shape = (4, 1, 32, 64, 64)
#: The least depth that ScNAS takes is 48.
SCNAS_TRAINING: Shape = (1, 1, 48, 64, 64)


@dataclass(frozen=True)
class Candidate:
    """A network under test."""

    build: Callable[[], nn.Module]
    forward: Shape | None = FORWARD
    training: Shape = TRAINING
    ours: bool = False
    """Also timed in bfloat16 with torch's own layout."""


@dataclass(frozen=True)
class Mode:
    """Precision and layout."""

    mixed: bool
    last: bool


MODES = {"float32": Mode(False, False), "bf16": Mode(True, True), "bf16 contiguous": Mode(True, False)}


def _monai_unet() -> nn.Module:
    act, norm = ("leakyrelu", {"inplace": True}), ("instance", {"affine": True})
    return UNet(3, 1, ORGANELLES, WIDE, (2, 2, 2), num_res_units=2, act=act, norm=norm)


def _dynunet() -> nn.Module:
    strides = [1, 2, 2, 2]
    return DynUNet(3, 1, ORGANELLES, [3] * 4, strides, strides[1:], filters=WIDE)


#: Names are the rows of the tables.
CANDIDATES: dict[str, Candidate] = {
    "residual_unet 32": Candidate(lambda: ResidualUNetConfig(channels=WIDE).build(1, ORGANELLES), ours=True),
    "residual_unet 32, full resolution": Candidate(
        lambda: ResidualUNetConfig(channels=WIDE, **FULL).build(1, ORGANELLES)
    ),
    "residual_unet 16 (demo)": Candidate(lambda: ResidualUNetConfig(channels=NARROW).build(1, ORGANELLES), ours=True),
    "residual_unet 16, full resolution": Candidate(
        lambda: ResidualUNetConfig(channels=NARROW, **FULL).build(1, ORGANELLES)
    ),
    "scnas 12/8/3": Candidate(lambda: ScNASConfig().build(1, ORGANELLES), training=SCNAS_TRAINING, ours=True),
    "scnas 12/8/3, checkpointing": Candidate(
        lambda: ScNASConfig(checkpointing=True).build(1, ORGANELLES), forward=None, training=SCNAS_TRAINING
    ),
    "MONAI UNet 32": Candidate(_monai_unet),
    "MONAI DynUNet 32": Candidate(_dynunet),
    "MONAI SegResNet 32": Candidate(lambda: SegResNet(3, 32, 1, ORGANELLES)),
}

#: (claim, above, below): how many times longer a training step of `above` takes.
TRAINING_CLAIMS = (
    ("full resolution over default, width 32", "residual_unet 32, full resolution", "residual_unet 32"),
    ("full resolution over default, width 16", "residual_unet 16, full resolution", "residual_unet 16 (demo)"),
    ("checkpointing over none", "scnas 12/8/3, checkpointing", "scnas 12/8/3"),
    ("MONAI UNet over residual_unet, width 32", "MONAI UNet 32", "residual_unet 32"),
    ("MONAI DynUNet over residual_unet, width 32", "MONAI DynUNet 32", "residual_unet 32"),
    ("MONAI SegResNet over residual_unet, width 32", "MONAI SegResNet 32", "residual_unet 32"),
)


def gflop(build: Callable[[], nn.Module], shape: Shape, backward: bool) -> float:
    """10^9 floating-point operations, 2 a multiply-add, counted without computing."""
    with torch.device("meta"):
        network, x = build(), torch.zeros(shape)
    with FlopCounterMode(display=False) as counter:
        logits = network(x)
        if backward:
            logits.sum().backward()
    return counter.get_total_flops() / 1e9


def forward_task(network: nn.Module, shape: Shape, mode: Mode) -> Callable[[], None]:
    """A forward pass, laid out as in prediction."""
    x = _laid_out(torch.rand(shape), mode)

    def task() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=mode.mixed):
            network.eval()(x)

    return task


def training_task(network: nn.Module, shape: Shape, mode: Mode) -> Callable[[], None]:
    """A training step: forward, loss, backward, AdamW."""
    x = _laid_out(torch.rand(shape), mode)
    target = (torch.rand(shape[0], ORGANELLES, *shape[2:]) > 0.7).to(torch.uint8)
    labelled = torch.ones(shape[0], ORGANELLES, dtype=torch.bool)
    loss = DiceBCEConfig().build()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)

    def task() -> None:
        network.train()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mode.mixed):
            total = loss(network(x), target, labelled).sum()
        total.backward()
        optimizer.step()

    return task


def _laid_out(tensor: torch.Tensor, mode: Mode) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last_3d) if mode.last else tensor


def _small(shape: Shape) -> Shape:
    """The least that each network takes, for a quick run."""
    return (1, 1, 48, 48, 48) if shape == SCNAS_TRAINING else (1, 1, 24, 32, 32)


def _add(
    tasks: dict[str, Callable[[], None]],
    name: str,
    candidate: Candidate,
    shapes: tuple[Shape | None, Shape],
    modes: dict[str, Mode],
) -> None:
    network = candidate.build()
    for word, mode in modes.items():
        if mode.mixed and not mode.last and not candidate.ours:
            continue
        laid = copy.deepcopy(network)
        if mode.last:
            laid.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        if shapes[0] is not None:
            tasks[f"{name}|forward|{word}"] = forward_task(laid, shapes[0], mode)
        # a network of its own, so that training does not move the weights that forward is timed with
        tasks[f"{name}|training|{word}"] = training_task(copy.deepcopy(laid), shapes[1], mode)


def _row(name: str, stage: str, shape: Shape, seconds: dict[str, list[float]]) -> dict[str, Any]:
    build = CANDIDATES[name].build
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build().parameters())
    times = {word: seconds[f"{name}|{stage}|{word}"] for word in MODES if f"{name}|{stage}|{word}" in seconds}
    medians = {word: statistics.median(values) for word, values in times.items()}
    return {
        "network": name,
        "shape": list(shape),
        "parameters": parameters,
        "gflop": gflop(build, shape, stage == "training"),
        "seconds": times,
        "median_seconds": medians,
        "megavoxels_per_second": {p: math.prod(shape) / 1e6 / value for p, value in medians.items()},
    }


def _table(title: str, rows: list[dict[str, Any]], ratios: dict[str, Any], stage: str) -> Table:
    table = Table(
        title,
        ["network", "input", "M parameters", "GFLOP", "float32, s", "bfloat16, s", "float32 / bfloat16"],
    )
    for row in rows:
        times = row["median_seconds"]
        table.rows.append(
            [
                row["network"],
                "x".join(map(str, row["shape"])),
                f"{row['parameters'] / 1e6:.2f}",
                f"{row['gflop']:.1f}",
                f"{times['float32']:.3f}",
                *_in_bfloat16(times, ratios.get(f"{stage}: float32 over bfloat16: {row['network']}")),
            ]
        )
    return table


def _in_bfloat16(times: dict[str, float], over: dict[str, float] | None) -> tuple[str, str]:
    """Blank where the processor has no instructions for it."""
    return ("", "") if over is None else (f"{times['bf16']:.3f}", show_ratio(over))


def _claims(rows: dict[str, Any], ratios: dict[str, Any]) -> list[Table]:
    """The ratios that the code speaks of; they are added to `ratios`."""
    steps = Table("A training step: how many times longer", ["claim", "float32", "bfloat16"])
    for claim, above, below in TRAINING_CLAIMS:
        shown = []
        for word in ("float32", "bf16"):
            if word not in rows[f"training: {above}"]["seconds"]:
                shown.append("")
                continue
            times = [rows[f"training: {name}"]["seconds"][word] for name in (above, below)]
            value = ratios[f"training: {claim}: {word}"] = ratio(*times)
            shown.append(show_ratio(value))
        steps.rows.append([claim, *shown])
    layouts = Table("bfloat16: torch's own layout over channels_last_3d", ["network", "forward", "training step"])
    for name in (name for name, candidate in CANDIDATES.items() if candidate.ours):
        shown = []
        for stage in ("forward", "training"):
            times = rows[f"{stage}: {name}"]["seconds"]
            if "bf16" not in times:
                shown.append("")
                continue
            value = ratios[f"{stage}: layout: {name}"] = ratio(times["bf16 contiguous"], times["bf16"])
            shown.append(show_ratio(value))
        layouts.rows.append([name, *shown])
    return [steps, layouts]


def main() -> None:
    """Time every candidate in both precisions, in turn."""
    arguments = options("network_speed", "Forward passes and training steps of the networks.", repeats=5)
    torch.manual_seed(0)
    left_out = without_bfloat16()
    modes = {word: mode for word, mode in MODES.items() if not mode.mixed or not left_out}
    tasks: dict[str, Callable[[], None]] = {}
    shapes: dict[str, tuple[Shape | None, Shape]] = {}
    for name, candidate in CANDIDATES.items():
        training = _small(candidate.training) if arguments.quick else candidate.training
        forward = candidate.forward and (training if arguments.quick else candidate.forward)
        shapes[name] = (forward, training)
        _add(tasks, name, candidate, shapes[name], modes)
    with Watch() as watch:
        seconds = interleaved(arguments, watch, tasks)

    rows: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    for stage, place in (("forward", 0), ("training", 1)):
        for name in CANDIDATES:
            shape = shapes[name][place]
            if shape is not None:
                row = rows[f"{stage}: {name}"] = _row(name, stage, shape, seconds)
                pair = row["seconds"]
                if "bf16" in pair:
                    ratios[f"{stage}: float32 over bfloat16: {name}"] = ratio(pair["float32"], pair["bf16"])
    claims = _claims(rows, ratios)
    found = {stage: [row for key, row in rows.items() if key.startswith(stage)] for stage in ("forward", "training")}
    tables = [
        _table("A forward pass", found["forward"], ratios, "forward"),
        _table("A training step (forward, loss, backward, AdamW)", found["training"], ratios, "training"),
        *claims,
    ]
    finish(arguments, rows, ratios, tables, watch)


if __name__ == "__main__":
    main()
