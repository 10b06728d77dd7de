"""How much of a training step is spent waiting for the next batch, in the demo's config.

Lightning's profiling hooks tell how long each ``next()`` of the loader took; a callback tells how long the whole step
was, logging and averaging of the weights included.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

import pytorch_lightning as pl
from pytorch_lightning.profilers import Profiler

from benchmarks._common import Table, Watch, finish, options, quiet_rounds, ratio, show_ratio
from datamodules.config import SimulatedSet
from datamodules.organelle import OrganelleDataModule
from experiments.build import build_data, build_for_training
from experiments.config import Config, load_config
from experiments.progress import hush_lightning
from lightning_modules.organelle import MONITOR
from training.device import choose_precision
from training.rundir import RunFolder
from training.trainer import build_trainer

CONFIG = "organelle_demo"
WORKERS = (0, 1)
NEXT = "[_TrainingEpochLoop].train_dataloader_next"


class Waits(Profiler):
    """How long each fetch of a batch took."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0.0
        self.seconds: list[float] = []

    def start(self, action_name: str) -> None:
        """Note the time."""
        if action_name == NEXT:
            self.begun = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Note how long it was."""
        if action_name == NEXT:
            self.seconds.append(time.perf_counter() - self.begun)


class StepEnds(pl.Callback):
    """When each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())


def config_of(steps: int, quick: bool) -> Config:
    """The demo's config, cut to its first steps, without validation."""
    words = [f"trainer.max_steps={steps}", "trainer.max_time=null", "trainer.limit_val_batches=0"]
    words += ["trainer.enable_progress_bar=false", "trainer.accelerator=cpu", "logging.wandb=disabled"]
    if quick:
        words += ["data.shape=[24,32,32]", "data.patch_size=[24,32,32]", "data.train.count=1"]
        words += ["data.batch_size=1", "model.channels=[16,16]", "predict.stride=[12,16,16]"]
    config = load_config(CONFIG, words)
    none = SimulatedSet(count=0)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, val=none, test=none))


def train(config: Config, data: OrganelleDataModule, workers: int, skip: int) -> dict[str, float]:
    """Train for the config's steps; medians and shares of all but the first ones."""
    pl.seed_everything(config.seed, verbose=False)
    data.config.num_workers = workers
    ends, waits = StepEnds(), Waits()
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config.trainer, RunFolder(Path(folder)), [], MONITOR, dry_run=False, extra=[ends])
        trainer.profiler = waits  # type: ignore[attr-defined]
        trainer.fit(build_for_training(config), datamodule=data)
    waited = waits.seconds[skip : len(ends.times)]
    steps = [end - begin for begin, end in zip(ends.times[skip - 1 :], ends.times[skip:], strict=False)]
    assert len(waited) == len(steps) == config.trainer.max_steps - skip
    return {
        "mean_step_ms": 1e3 * statistics.mean(steps),
        "mean_wait_ms": 1e3 * statistics.mean(waited),
        "longest_wait_ms": 1e3 * max(waited),
        "waited_share": sum(waited) / sum(steps),
    }


def main() -> None:
    """Train with 0 and with 1 loader process, in turn."""
    told = options("training_wait", "Share of a training step spent waiting for data, in the demo's config.", repeats=5)
    hush_lightning()
    steps, skip = (6, 2) if told.quick else (80, 20)  # a worker begins with nothing read, then reads ahead
    config = config_of(steps, told.quick)
    data = build_data(config)
    data.setup("fit")  # simulates and prepares, which is not what is timed
    with Watch() as watch:
        found = quiet_rounds(told, watch, lambda: {workers: train(config, data, workers, skip) for workers in WORKERS})

    rows: dict[str, Any] = {}
    table = Table(
        f"{CONFIG}: batches of {config.data.batch_size} patches of {'x'.join(map(str, config.data.patch_size))}",
        ["loader processes", "step, ms", "of it waiting for data, ms", "longest wait, ms", "waiting, %"],
    )
    for workers in WORKERS:
        series = {key: [values[workers][key] for values in found] for key in found[0][workers]}
        medians = {key: statistics.median(values) for key, values in series.items()}
        rows[f"workers: {workers}"] = {"rounds": series, "medians": medians, "steps": steps - skip}
        share = f"{100 * medians['waited_share']:.1f}"
        shown = [f"{medians[key]:.1f}" for key in ("mean_step_ms", "mean_wait_ms", "longest_wait_ms")]
        table.rows.append([str(workers), *shown, share])
    times = [rows[f"workers: {workers}"]["rounds"]["mean_step_ms"] for workers in WORKERS]
    value = ratio(*times)
    table.rows.append(["0 / 1", show_ratio(value), "", "", ""])
    rows["precision"] = choose_precision(config.trainer.precision, config.trainer.accelerator)
    finish(told, rows, {"step with 0 over 1 loader process": value}, [table], watch)


if __name__ == "__main__":
    main()
