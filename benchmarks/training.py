"""How much of a training step is spent waiting for data, and how many samples a second are trained on.

Claims measured here: in every shipped config less than 5 % of a step is spent waiting for the next batch
(datamodules/organelle.py); and the datamodule with Lightning is not slower than the same network in a plain loop over
a MONAI ``CacheDataset`` in memory.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

from benchmarks._common import Table, Watch, finish, options, quiet_rounds, ratio, show_ratio
from benchmarks._train_loops import cache_dataset, train, train_plainly
from cytovox.inference.device import choose_precision
from datamodules.config import SimulatedSet
from datamodules.organelle import OrganelleDataModule
from experiments.build import build_data
from experiments.config import Config, load_config
from experiments.progress import silence_lightning

HOME = Path(__file__).resolve().parents[1]
AIM = 0.05


@dataclass(frozen=True)
class Cut:
    """What is changed of a shipped config so that some of its steps can be timed on a small machine."""

    steps: int
    """Of a round."""
    skip: int
    """First steps that do not count: a worker begins with nothing read, then reads ahead."""
    volumes: int | None
    """To train on; None leaves them as they are."""
    words: tuple[str, ...] = ()
    """As on the command line."""
    note: str = ""
    """What a reader must know of it."""
    workers: tuple[int | str, ...] = ("auto",)
    """Loader processes; `auto` is the value of the config."""
    beside_monai: bool = False
    """Also train on a `CacheDataset`."""


#: One that reads a folder is given the simulated cells of `organelle_choi`.
CELLS = ("data.source=simulator", "data.shape=[96,320,320]", "data.spacing_um=[0.3,0.2,0.2]")
PLAIN = ("optimizer.schedule=constant", "trainer.early_stopping=null")
CUTS = {
    "organelle_demo": Cut(80, 20, None, workers=(0, "auto"), beside_monai=True),
    "organelle_weights": Cut(40, 10, 8, note="8 volumes", beside_monai=True),
    "organelle_finetune": Cut(10, 3, 2, (*CELLS, "init_from=null"), "2 simulated volumes"),
    "organelle": Cut(10, 3, 2, CELLS, "2 simulated volumes"),
    "organelle_choi": Cut(
        10,
        3,
        2,
        ("data.patch_size=[48,64,64]", "predict.stride=null", *PLAIN),
        "2 volumes; patch cut from 64x128x128",
    ),
}
QUICK = ("data.shape=[24,48,48]", "data.spacing_um=[0.6,0.6,0.6]", "data.patch_size=[24,32,32]", "data.batch_size=1")


def config_of(name: str, cut: Cut, quick: bool) -> Config:
    """A shipped config, cut to its first steps, without validation."""
    words = [f"trainer.max_steps={cut.steps}", "trainer.max_time=null", "trainer.limit_val_batches=0", *cut.words]
    words += ["trainer.enable_progress_bar=false", "trainer.accelerator=cpu", "logging.wandb=disabled"]
    if quick:
        words += [*QUICK, "model.channels=[16,16]", "predict.stride=[12,16,16]"]
    config = load_config(name, words)
    changes: dict[str, Any] = {"val": SimulatedSet(count=0), "test": SimulatedSet(count=0)}
    if cut.volumes is not None:
        changes["train"] = SimulatedSet(["NIH3T3"], cut.volumes)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def cuts(quick: bool) -> dict[str, Cut]:
    """Of the organelle configs that this version ships."""
    if quick:
        demo = dataclasses.replace(CUTS["organelle_demo"], steps=6, skip=2, volumes=1)
        return {"organelle_demo": demo}
    shipped = {path.stem for path in (HOME / "experiments" / "configs").glob("organelle*.yaml")}
    if unknown := shipped - set(CUTS):
        raise SystemExit(f"benchmarks/training.py: say in CUTS how to time {', '.join(sorted(unknown))}")
    return {name: cut for name, cut in CUTS.items() if name in shipped}


def _waits_row(name: str, config: Config, cut: Cut, workers: int | str, row: dict[str, Any]) -> list[str]:
    shown = [f"{row['medians'][key]:.1f}" for key in ("mean_step_ms", "mean_wait_ms", "longest_wait_ms")]
    patch = "x".join(map(str, config.data.patch_size))
    share = f"{100 * row['medians']['waited_share']:.1f}"
    return [name, patch, str(config.data.batch_size), str(workers), *shown, share, cut.note]


def main() -> None:
    """Train every config in turn, and some also with MONAI's pipeline."""
    asked = options("training", "Waiting for data and samples a second, in the shipped configs.", repeats=3)
    silence_lightning()
    chosen = cuts(asked.quick)
    configs: dict[str, Config] = {}
    tasks: dict[str, Callable[[], dict[str, float]]] = {}
    for name, cut in chosen.items():
        config = configs[name] = config_of(name, cut, asked.quick)
        data: OrganelleDataModule = build_data(config)
        data.prepare_data()  # simulates and prepares, which is not what is timed
        data.setup("fit")
        for workers in cut.workers:
            tasks[f"{name}|{workers}"] = partial(train, config, data, workers, cut.skip)
        if cut.beside_monai:
            dataset = cache_dataset(config, data)
            tasks[f"{name}|MONAI"] = partial(train_plainly, config, dataset, "auto", cut.skip)
    with Watch() as watch:
        rounds = quiet_rounds(asked, watch, lambda: {key: task() for key, task in tasks.items()}, warm=False)

    rows: dict[str, Any] = {}
    for key in tasks:
        series = {what: [one[key][what] for one in rounds] for what in rounds[0][key]}
        name = key.split("|")[0]
        counted = chosen[name].steps - chosen[name].skip
        rows[key] = {"rounds": series, "medians": {k: statistics.median(v) for k, v in series.items()}}
        rows[key]["steps"] = counted
        rows[key]["below_aim"] = rows[key]["medians"]["waited_share"] < AIM
    columns = ["config", "patch", "batch", "loader processes", "step, ms", "waiting, ms", "longest, ms", "waiting, %"]
    waits = Table("Waiting for data", [*columns, "cut"])
    compared = Table(
        "Samples a second", ["config", "ours", "CacheDataset, plain loop", "ours / CacheDataset", "it waits, %"]
    )
    ratios: dict[str, Any] = {}
    for name, cut in chosen.items():
        for workers in cut.workers:
            waits.rows.append(_waits_row(name, configs[name], cut, workers, rows[f"{name}|{workers}"]))
        if cut.beside_monai:
            ours, theirs = rows[f"{name}|auto"], rows[f"{name}|MONAI"]
            what = "samples_per_second"
            value = ratios[f"samples a second, ours over CacheDataset: {name}"] = ratio(
                ours["rounds"][what], theirs["rounds"][what]
            )
            speeds = [f"{row['medians'][what]:.1f}" for row in (ours, theirs)]
            share = f"{100 * theirs['medians']['waited_share']:.1f}"
            compared.rows.append([name, *speeds, show_ratio(value), share])
    demo = configs["organelle_demo"].trainer
    rows["precision"] = choose_precision(demo.precision, demo.accelerator)
    finish(asked, rows, ratios, [waits, compared], watch)


if __name__ == "__main__":
    main()
