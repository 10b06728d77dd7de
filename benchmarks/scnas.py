"""Was the search worth it? The searched network beside the published one, random ones and others, all from scratch.

Claim measured here: at equal cost, a network that was searched scores no worse than the mean of random ones.

For each seed: a search of --minutes; then every network is trained for --minutes on the same cells of three lines and
tested on two lines that nobody saw. A random genotype costs what the searched one does, within 15 % of its GFLOP. What
is done stays in --work, and is not done again. Run it alone: minutes are minutes of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from analysis.bootstrap import Interval
from analysis.charts import read_rows
from benchmarks._common import Table, Watch, finish, options
from benchmarks._dints import DiNTSConfig
from networks import network_config
from networks.architecture import random_genotype
from networks.genotype import OPERATION_NAMES, Genotype, load_genotype
from networks.scnas import ScNASConfig

#: One scale for all: width, layers, multiplier, and the patch.
SCALE: dict[str, Any] = {"width": 4, "layers": 4, "multiplier": 3}
PATCH = (48, 64, 64)
RANDOM, CLOSE = 3, 0.15
SEEN, UNSEEN = ("NIH3T3", "A549", "HeLa"), ("MDA-MB-231", "RAW264.7")


def more(parser: argparse.ArgumentParser) -> None:
    """Options of this script alone."""
    parser.add_argument("--minutes", type=float, default=4.0, help="of each training, and of each search (4)")
    parser.add_argument("--seeds", type=int, default=3, help="of weights and searches (3)")
    parser.add_argument("--fields", type=int, default=6, help="training volumes of each line, and test ones (6)")
    parser.add_argument("--work", type=Path, default=Path("runs/scnas_benchmark"), help="where the runs are kept")


def words_of(told: argparse.Namespace, seed: int) -> list[str]:
    """What all runs of a seed have in common."""
    n = told.fields
    lines = ", ".join(f"{line}: {n}" for line in SEEN)
    unseen = ", ".join(f"{line}: {n}" for line in UNSEEN)
    limit = time.strftime("00:%H:%M:%S", time.gmtime(60 * told.minutes))
    return [
        f"seed={seed}", f"data.train={{counts: {{{lines}}}, first_seed: 0}}",
        "data.val={counts: {NIH3T3: 1, A549: 1, HeLa: 1}, first_seed: 100000}",
        f"data.test={{counts: {{{unseen}}}, first_seed: 200000}}", f"data.patch_size={list(PATCH)}",
        "predict.stride=[16,64,64]", "optimizer.schedule=constant", "optimizer.warmup_steps=0", "data.batch_size=2",
        f"trainer.max_time='{limit}'", "trainer.check_val_every_n_epoch=1", "logging.wandb=disabled",
        "data.patches_per_epoch=60",
    ]  # fmt: skip


def run_once(told: argparse.Namespace, name: str, config: str, words: list[str]) -> Path:
    """The finished run of this name; done now if it was not."""
    folder = told.work / name
    for run in sorted(folder.glob("*")):
        status = json.loads((run / "status.json").read_text()) if (run / "status.json").is_file() else {}
        if status.get("status") == "finished":
            return run
    told.work.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(Path(__file__).with_name("_scnas_run.py")), config, f"name={name}", *words]
    log = told.work / f"{name}.log"
    with log.open("wb") as file:
        done = subprocess.run([*command, f"runs_dir={told.work}"], stdout=file, stderr=subprocess.STDOUT, check=False,
                              env={**os.environ, "WANDB_MODE": "disabled"})  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{name}: failed, see {log}")
    return run_once(told, name, config, words)


def steps_within(told: argparse.Namespace, seed: int) -> int:
    """Steps that a search does in the minutes, from a short one: its temperature follows the steps."""
    words = [*words_of(told, seed), "stages=[fit]", "trainer.max_epochs=2", "search.warmup=0.0"]
    run = run_once(told, f"pace-{seed}", "scnas_search_demo", [w for w in words if "max_time" not in w])
    seconds = json.loads((run / "metrics.json").read_text())["fit/batch_seconds"]
    return max(30, int(60 * told.minutes / seconds))


def searched(told: argparse.Namespace, seed: int) -> Path:
    """Genotype of a search of this seed."""
    epochs = max(1, steps_within(told, seed) // 30)
    words = [word for word in words_of(told, seed) if "max_time" not in word]
    words += ["stages=[fit]", f"trainer.max_epochs={epochs}", "search.cost={target: 1.0}"]
    return run_once(told, f"search-{seed}", "scnas_search_demo", words) / "genotype.json"


def gflop_of(model: Any) -> float:
    """Of a patch, forward."""
    with torch.device("meta"):
        network = model.build(1, 4)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, 1, *PATCH))
    return float(counter.get_total_flops() / 1e9)


def random_ones(folder: Path, like: Path, seed: int) -> list[Path]:
    """Genotypes that cost what this one does."""
    aim = gflop_of(ScNASConfig(**SCALE, genotype=str(like)))
    generator, found = torch.Generator().manual_seed(1000 + seed), []
    while len(found) < RANDOM:
        genotype: Genotype = random_genotype(generator, OPERATION_NAMES, SCALE["multiplier"])
        path = folder / f"random-{seed}-{len(found)}.json"
        path.write_text(json.dumps(genotype.to_json()), encoding="utf-8")
        if abs(gflop_of(ScNASConfig(**SCALE, genotype=str(path))) / aim - 1) <= CLOSE:
            found.append(path)
    return found


def models_of(told: argparse.Namespace, seed: int) -> dict[str, tuple[Any, list[str]]]:
    """Name to config and the words that ask for it."""
    own = searched(told, seed)
    genotypes = {"searched": str(own), "published": "published"}
    genotypes.update({f"random {n + 1}": str(path) for n, path in enumerate(random_ones(told.work, own, seed))})
    models: dict[str, tuple[Any, list[str]]] = {}
    for name, genotype in genotypes.items():
        options_ = {**SCALE, "genotype": genotype}
        said = ", ".join(f"{key}: {value}" for key, value in options_.items())
        models[name] = (ScNASConfig(**options_), [f"model={{network: scnas, {said}}}"])
    unet = network_config("residual_unet")(channels=[16, 32, 64, 128])  # type: ignore[call-arg]
    models["residual U-Net"] = (unet, ["model={network: residual_unet, channels: [16, 32, 64, 128]}"])
    models["DiNTS, a U"] = (DiNTSConfig(), ["model={network: dints, width: 0.25}"])
    return models


def measure(told: argparse.Namespace) -> tuple[list[Table], dict[str, Any]]:
    """Train and test all; scores by network, seed and case."""
    dice: dict[str, list[list[float]]] = {}
    facts: dict[str, list[tuple[float, float, float]]] = {}
    for seed in range(told.seeds):
        for name, (model, words) in models_of(told, seed).items():
            run = run_once(told, f"{name.replace(' ', '-').replace(',', '')}-{seed}", "organelle_demo",
                           [*words_of(told, seed), *words, "trainer.max_epochs=1000"])  # fmt: skip
            rows = read_rows(run / "tables" / "test_cases.csv")
            dice.setdefault(name, []).append([float(row["dice_mean"]) for row in rows])
            numbers = sum(p.numel() for p in model.build(1, 4).parameters()) / 1e6
            facts.setdefault(name, []).append((numbers, gflop_of(model), _seconds_a_volume(model)))
    shown = [
        [name, *_spread(found), *(f"{statistics.mean(column):.2f}" for column in zip(*facts[name], strict=True))]
        for name, found in dice.items()
    ]
    heads = ["network", "Dice, unseen lines", "95 %", "parameters (M)", "GFLOP a patch", "seconds a volume"]
    tables = [Table(f"{told.minutes:g} minutes of training each, {told.seeds} seeds", heads, shown)]
    others = {name: dice[name] for name in ("published", "residual U-Net", "DiNTS, a U")}
    random = np.mean([dice[f"random {n + 1}"] for n in range(RANDOM)], axis=0)
    gaps = []
    for name, other in {"random, mean": random, **others}.items():
        gap = two_level(np.asarray(dice["searched"]) - np.asarray(other))
        gaps.append([f"searched minus {name}", f"{gap.value:+.3f}", f"{gap.low:+.3f} to {gap.high:+.3f}"])
    tables.append(Table("Differences, seeds and cases drawn anew", ["", "Dice", "95 %"], gaps))
    genotypes = {str(seed): load_genotype(str(searched(told, seed))).to_json() for seed in range(told.seeds)}
    return tables, {"dice": dice, "facts": facts, "genotypes": genotypes}


def _seconds_a_volume(model: Any) -> float:
    """Median of three: windows of a volume of 64x128x128 without overlap, one thread a core."""
    network, x = model.build(1, 4).eval(), torch.zeros(1, 1, *PATCH)
    taken = []
    with torch.no_grad():
        for _ in range(4):
            begun = time.perf_counter()
            network(x)
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:]) * 2 * 2 * 2


def _spread(found: list[list[float]]) -> list[str]:
    told = two_level(np.asarray(found))
    return [f"{told.value:.3f}", f"{told.low:.3f} to {told.high:.3f}"]


def two_level(values_SN: np.ndarray, resamples: int = 2000) -> Interval:
    """Mean with its 95 % interval when seeds, and cases within them, are drawn anew."""
    rng, (seeds, cases) = np.random.default_rng(0), values_SN.shape
    draws = [
        values_SN[rng.integers(seeds, size=seeds)][:, rng.integers(cases, size=cases)].mean() for _ in range(resamples)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(values_SN.mean()), float(low), float(high))


def main() -> None:
    """Measure, print, write."""
    told = options("scnas", "Was the architecture search worth it?", 1, more)
    if told.quick:
        told.minutes, told.seeds, told.fields = 0.1, 1, 1
    with Watch() as watch:
        tables, rows = measure(told)
    finish(told, rows, {}, tables, watch)


if __name__ == "__main__":
    main()
