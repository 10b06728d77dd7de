"""Part `training`: time of a training step and share of the matrix rate, by config, precision, layout and batch."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._gpu_batches import random_batch
from benchmarks._gpu_common import (
    LIGHTNING,
    layout_word,
    products_in,
    repeated,
    seconds_of,
    spread,
    synchronise,
    utilisation,
)
from benchmarks._gpu_record import Recorder
from benchmarks._gpu_step import QUICK, build_step, config_of
from experiments.build import build_for_training
from experiments.progress import silence_lightning
from experiments.tasks import task_of
from training.metrics_log import MetricsCSV
from training.rundir import RunFolder
from training.trainer import build_trainer

#: Shipped configs in the order of their importance, and further batch sizes.
CONFIGS: dict[str, tuple[int, ...]] = {
    "organelle": (1, 4, 8),
    "organelle_choi": (2, 4),
    "shape_rbc": (32, 128),
    "cells": (4, 8),
    "cells_network": (4, 8),
    "cells_choi": (4,),
    "shapr": (32,),
    "shape_dispr": (4,),
}
#: Configs whose network is compiled, too, while time is left.
COMPILED = ("organelle", "organelle_choi", "shape_rbc")
COMPILE_S = 60.0
#: Steps of a fit through the trainer: all, and first ones that do not count.
STEPS, FIRST = 60, 20


@dataclass(frozen=True)
class Variant:
    """How a step is computed; None for the batch is the config's own."""

    precision: str
    channels_last: bool
    batch: int | None = None
    mode: str = "eager"
    second_stage: bool = False


def ways_of(name: str, settings_quick: bool) -> list[Variant]:
    """Ways of one config, the most telling first."""
    if settings_quick:
        some = [Variant("bfloat16", True)]
        return some + (
            [Variant("float16", False), Variant("bfloat16", True, mode="compile")] if name == "organelle" else []
        )
    ways = [Variant("bfloat16", True), Variant("bfloat16", False), Variant("float16", True), Variant("tf32", False)]
    ways += [Variant("bfloat16", True, second_stage=True)] if name == "shapr" else []
    return ways + [Variant("bfloat16", True, batch) for batch in CONFIGS[name]]


def measure_training(bench: Recorder) -> None:
    """All configs; then the trainer's own loop; then what is compiled."""
    assert set(CONFIGS) == set(QUICK)
    ways = {name: ways_of(name, bench.settings.quick) for name in CONFIGS}
    for rank in range(max(len(found) for found in ways.values())):  # every config once, before any is varied
        for name, found in ways.items():
            if rank < len(found):
                _record(bench, name, found[rank])
        if rank == 0:
            for ema in (True, False):
                _loop_record(bench, "organelle", ema)
    if not bench.settings.quick:
        for name in COMPILED:
            _record(bench, name, Variant("bfloat16", True, mode="compile"))


def flop_of_sample(records: Sequence[dict[str, Any]], name: str, second_stage: bool) -> float | None:
    """Operations of a step for each sample, from an earlier record of the config; None where there is none."""
    for record in records:
        same = (record.get("config"), record.get("second_stage")) == (name, second_stage)
        if same and record.get("gflop") is not None:
            return 1e9 * float(record["gflop"]) / int(record["batch"])
    return None


def _record(bench: Recorder, name: str, way: Variant) -> None:
    size = way.batch or config_of(name, bench.settings).data.batch_size
    stage = ["second stage"] if way.second_stage else []
    title = " ".join([name, way.precision, layout_word(way.channels_last), way.mode, f"b{size}", *stage])
    bench.measure(
        title,
        lambda: _step(bench, name, way, size),
        needs_s=COMPILE_S if way.mode == "compile" else 6.0,
        kind="step",
        config=name,
        precision=way.precision,
        layout=layout_word(way.channels_last),
        mode=way.mode,
        batch=size,
        second_stage=way.second_stage,
    )


def _step(bench: Recorder, name: str, way: Variant, size: int) -> dict[str, Any]:
    """Time a step; the first one counts its operations where no record of the config has them."""
    settings, flop = bench.settings, flop_of_sample(bench.records, name, way.second_stage)
    counter = FlopCounterMode(display=False)
    counts = flop is None and way.mode == "eager"
    with products_in(way.precision):
        step = build_step(name, settings, way.precision, way.channels_last, size, way.mode, way.second_stage)
        with counter if counts else nullcontext():
            opening = seconds_of(step, settings.device)
        timed = spread([opening] if settings.quick else repeated(step, settings, budget_s=1.0))
    if counts:
        flop = counter.get_total_flops() / size
    seconds = timed["median_ms"] / 1e3
    used: dict[str, Any] = {"gflop": None, "tflop_per_s": None, "mfu": None, "of_datasheet": None}
    if flop is not None:
        used = utilisation(flop * size, seconds, way.precision, settings)
    return {**timed, "first_call_s": opening, "samples_per_s": size / seconds, **used}


class Window(pl.Callback):
    """Seconds of the steps of a fit, from the end of one step to the end of another.

    Parameters
    ----------
    device : str
        Waited for at both ends.
    first, last : int
        Steps after which the clock starts and stops.
    """

    def __init__(self, device: str, first: int, last: int) -> None:
        self.device, self.first, self.last = device, first, last
        self.times: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Note the time at both ends."""
        if trainer.global_step in (self.first, self.last):
            synchronise(self.device)
            self.times.append(time.perf_counter())


class Batches:
    """The same batch again and again, as a loader."""

    def __init__(self, batch: dict[str, Any], count: int) -> None:
        self.batch, self.count = batch, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for _ in range(self.count):
            yield self.batch


def _loop_record(bench: Recorder, name: str, ema: bool) -> None:
    """Compare a fit by the package's trainer with the bare step, for the cost of its loop."""
    bench.measure(
        f"trainer {name} bfloat16 {'with' if ema else 'without'} averaged weights",
        lambda: _loop(bench, name, ema),
        needs_s=10.0,
        kind="loop",
        config=name,
        precision="bfloat16",
        averaged_weights=ema,
    )


def _loop(bench: Recorder, name: str, ema: bool) -> dict[str, Any]:
    settings = bench.settings
    steps, first = (4, 2) if settings.quick else (STEPS, FIRST)
    config = config_of(name, settings)
    trainer = dataclasses.replace(
        config.trainer, max_steps=steps, max_epochs=-1, accelerator="gpu" if settings.on_gpu else "cpu", devices=1,
        precision=LIGHTNING["bfloat16"], enable_progress_bar=False, limit_val_batches=0, num_sanity_val_steps=0,
        benchmark=True, ema=config.trainer.ema if ema else None,
    )  # fmt: skip
    silence_lightning()
    batch = random_batch(config, config.data.batch_size, settings.device)
    window = Window(settings.device, first, steps)
    with tempfile.TemporaryDirectory() as folder, products_in("bfloat16"):
        run = RunFolder(Path(folder))
        loggers: list[Any] = [MetricsCSV(run.path / "metrics.csv")]
        fit = build_trainer(trainer, run, loggers, task_of(config).monitor, dry_run=False, extra=[window])
        fit.fit(build_for_training(config, start=False), train_dataloaders=Batches(batch, steps))
        bare = build_step(name, settings, "bfloat16", channels_last=True)
        timed = spread(repeated(bare, settings, budget_s=1.0))
    begun, ended = window.times
    each = 1e3 * (ended - begun) / (steps - first)
    return {"ms_a_step": each, "bare": timed, "ms_of_the_loop": each - timed["median_ms"]}
