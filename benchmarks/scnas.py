"""Comparison of the searched network with the published one, random ones and others, all trained from scratch.

Claim measured here: at equal cost, a network that was searched scores no worse than the mean of random ones.

Each round is a seed: a search; then every network is trained for --minutes on the same cells of three lines and tested
on two held-out cell lines. A random genotype costs what the searched one does, within 15 % of its GFLOP. Two
trainings run side by side, one core each, so that all of them have the same neighbour. What is done stays in --work and
is not done again. Run it alone: minutes are minutes of this machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

import numpy as np
import torch
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._common import Table, Watch, finish, options, watched
from benchmarks._dints import DiNTSConfig
from benchmarks._scnas_run import run_once
from cytovox.networks import network_config
from cytovox.networks.architecture import random_genotype
from cytovox.networks.genotype import OPERATION_NAMES, Genotype, load_genotype
from cytovox.networks.scnas import ScNASConfig
from cytovox.networks.search_cost import cost_of, cost_tables
from cytovox.plots.charts import read_rows
from cytovox.statistics.bootstrap import Interval

#: One scale for all: width, layers, multiplier, and the patch.
SCALE: dict[str, Any] = {"width": 4, "layers": 4, "multiplier": 3}
PATCH, VOLUME = (32, 32, 32), (64, 128, 128)
RANDOM, CLOSE, TRIES = 3, 0.15, 3000
SEEN, UNSEEN = ("NIH3T3", "A549", "HeLa"), ("MDA-MB-231", "RAW264.7")
#: Steps an epoch, of a patch each.
STEPS = 60


def more(parser: argparse.ArgumentParser) -> None:
    """Options of this script alone."""
    parser.add_argument("--minutes", type=float, default=3.0, help="of each training (3)")
    parser.add_argument("--search", type=float, default=7.5, help="minutes of each search, about (7.5)")
    parser.add_argument("--fields", type=int, default=6, help="training volumes of each line, and test ones (6)")
    parser.add_argument("--side", type=int, default=2, help="trainings side by side, one thread each (2)")
    parser.add_argument("--work", type=Path, default=Path("runs/scnas_benchmark"), help="where the runs are kept")


def words_of(arguments: argparse.Namespace, seed: int) -> list[str]:
    """What all runs of a seed have in common."""
    n = arguments.fields
    lines = ", ".join(f"{line}: {n}" for line in SEEN)
    unseen = ", ".join(f"{line}: {n}" for line in UNSEEN)
    return [
        f"seed={seed}", f"data.train={{counts: {{{lines}}}, first_seed: 0}}",
        "data.val={counts: {NIH3T3: 1, A549: 1, HeLa: 1}, first_seed: 100000}",
        f"data.test={{counts: {{{unseen}}}, first_seed: 200000}}", f"data.patch_size={list(PATCH)}",
        f"predict.stride={list(PATCH)}", "predict.pad_yx=[0,0]", "optimizer.schedule=constant",
        "optimizer.warmup_steps=0", "optimizer.lr=2e-3", "data.batch_size=1", f"data.patches_per_epoch={STEPS}",
        "data.num_workers=0", "trainer.check_val_every_n_epoch=3", "trainer.precision=32-true",
    ]  # fmt: skip


def search_words(arguments: argparse.Namespace, seed: int, steps: int, warmup: float) -> list[str]:
    """Of a search of about so many steps."""
    said = ", ".join(f"{key}: {value}" for key, value in SCALE.items())
    return [
        *words_of(arguments, seed), f"model={{network: scnas, {said}}}", "stages=[fit]",
        f"trainer.max_epochs={max(1, round(steps / STEPS))}", "search.cost={target: 1.0}", f"search.warmup={warmup}",
        "search.lr=0.03",
    ]  # fmt: skip


def train_words(arguments: argparse.Namespace, seed: int) -> list[str]:
    """Of a training from scratch, of the average of its weights."""
    limit = time.strftime("00:%H:%M:%S", time.gmtime(60 * arguments.minutes))
    return [
        *words_of(arguments, seed), "trainer.max_epochs=100000", f"trainer.max_time='{limit}'",
        "trainer.ema={decay: 0.99, warmup: true}",
    ]  # fmt: skip


def side_by_side(arguments: argparse.Namespace, orders: list[tuple[str, str, list[str]]]) -> list[Path]:
    """The finished runs of these (name, config, words), in their order."""
    with ThreadPoolExecutor(arguments.side) as pool:
        return list(pool.map(lambda order: run_once(arguments.work, *order), orders))


def search_orders(arguments: argparse.Namespace) -> list[tuple[str, str, list[str]]]:
    """A search for each seed, as long as it was asked for by the pace of a short one."""
    (paced,) = side_by_side(arguments, [("pace", "scnas_search_demo", search_words(arguments, 999, STEPS, 0.0))])
    seconds = json.loads((paced / "metrics.json").read_text())["fit/batch_seconds"]
    steps = max(STEPS, int(60 * arguments.search / seconds))
    return [
        (f"search-{n}", "scnas_search_demo", search_words(arguments, n, steps, 0.2)) for n in range(arguments.repeats)
    ]


def gflop_of(model: Any) -> float:
    """Of a patch, forward."""
    network = model.build(1, 4)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, *PATCH))
    return float(counter.get_total_flops() / 1e9)


def scaled(genotype: Genotype) -> ScNASConfig:
    """The network of this genotype, at the scale of all."""
    return ScNASConfig(**SCALE, genotype=json.dumps(genotype.to_json()))


def random_ones(like: Genotype, seed: int) -> list[Genotype]:
    """Genotypes that cost what this one does; those whose operations do are looked at whole."""
    aim, generator = gflop_of(scaled(like)), torch.Generator().manual_seed(1000 + seed)
    tables = cost_tables(ScNASConfig(**SCALE), OPERATION_NAMES, PATCH, "gflop")
    edges = cost_of(like, tables, OPERATION_NAMES, SCALE["multiplier"])
    found: list[Genotype] = []
    for _ in range(TRIES):
        genotype = random_genotype(generator, OPERATION_NAMES, SCALE["multiplier"])
        extra = cost_of(genotype, tables, OPERATION_NAMES, SCALE["multiplier"]) - edges
        if abs(extra) <= CLOSE * aim and abs(gflop_of(scaled(genotype)) / aim - 1) <= CLOSE:
            found.append(genotype)
            if len(found) == RANDOM:
                return found
    raise RuntimeError(f"seed {seed}: of {TRIES} random genotypes {len(found)} cost {aim:.2f} GFLOP within {CLOSE:.0%}")


def known_models() -> dict[str, tuple[Any, str]]:
    """Those that need no search: name to config and the word that asks for it."""
    unet: Any = network_config("residual_unet")()
    return {
        "published": as_word(load_genotype("published")),
        "residual U-Net": (unet, f"model={{network: residual_unet, channels: {unet.channels}}}"),
        "DiNTS, a U": (DiNTSConfig(), "model={network: dints, width: 0.25}"),
    }


def found_models(path: Path, seed: int) -> dict[str, tuple[Any, str]]:
    """What was searched, and random networks that cost as much."""
    own = load_genotype(str(path))
    others = {f"random {n + 1}": as_word(one) for n, one in enumerate(random_ones(own, seed))}
    return {"searched": as_word(own), **others}


def as_word(genotype: Genotype) -> tuple[Any, str]:
    """The network of this genotype, and the word that asks for it."""
    said = ", ".join(f"{key}: {value}" for key, value in SCALE.items())
    return scaled(genotype), f"model={{network: scnas, {said}, genotype: '{json.dumps(genotype.to_json())}'}}"


def measure(arguments: argparse.Namespace) -> tuple[list[Table], dict[str, Any]]:
    """Train and test all; scores by network, seed and case."""
    seeds, searches = range(arguments.repeats), search_orders(arguments)
    wanted = [(name, seed, *model) for seed in seeds for name, model in known_models().items()]
    done = side_by_side(arguments, [*searches, *(order(arguments, *one) for one in wanted)])
    genotypes, runs = [run / "genotype.json" for run in done[: len(searches)]], done[len(searches) :]
    found = [(name, seed, *model) for seed in seeds for name, model in found_models(genotypes[seed], seed).items()]
    runs += side_by_side(arguments, [order(arguments, *one) for one in found])
    dice: dict[str, list[list[float]]] = {}
    metadata: dict[str, list[tuple[float, float, float, float]]] = {}
    for (name, _, model, _), run in zip([*found, *wanted], [*runs[len(wanted) :], *runs[: len(wanted)]], strict=True):
        dice.setdefault(name, []).append([float(r["dice_mean"]) for r in read_rows(run / "tables" / "test_cases.csv")])
        steps = json.loads((run / "metrics.json").read_text())["fit/steps"]
        numbers = sum(p.numel() for p in model.build(1, 4).parameters()) / 1e6
        metadata.setdefault(name, []).append((numbers, gflop_of(model), seconds_of(model), steps))
    found_by = [json.loads((path.parent / "metrics.json").read_text()) for path in genotypes]
    plain = {str(seed): load_genotype(str(path)).to_json() for seed, path in enumerate(genotypes)}
    rows = {"dice": dice, "metadata": metadata, "searches": found_by, "genotypes": plain}
    return tables_of(arguments, dice, metadata, found_by), rows


def order(arguments: argparse.Namespace, name: str, seed: int, _: Any, word: str) -> tuple[str, str, list[str]]:
    """A training from scratch, as `run_once` takes it."""
    plain = name.replace(" ", "-").replace(",", "")
    return f"{plain}-{seed}", "organelle_demo", [*train_words(arguments, seed), word]


def tables_of(arguments: argparse.Namespace, dice: Any, metadata: Any, searches: list[dict[str, float]]) -> list[Table]:
    """What a reader sees."""
    heads = ["network", "Dice, unseen lines", "95 %", "parameters (M)", "GFLOP a patch", "seconds a volume", "steps"]
    shown = [
        [name, *spread(found), *(f"{statistics.mean(column):.{3 if n == 0 else 2 if n < 3 else 0}f}"
                                 for n, column in enumerate(zip(*metadata[name], strict=True)))]
        for name, found in dice.items()
    ]  # fmt: skip
    random = np.mean([dice[f"random {n + 1}"] for n in range(RANDOM)], axis=0)
    gaps = []
    for name, other in {"random, mean": random, **{n: dice[n] for n in dice if not n.startswith(("ra", "se"))}}.items():
        gap = over_seeds(np.asarray(dice["searched"]) - np.asarray(other))
        gaps.append([f"searched minus {name}", f"{gap.value:+.3f}", f"{gap.low:+.3f} to {gap.high:+.3f}"])
    each = []
    for n, one in enumerate(searches):
        share = one["search/cost_derived"] / one["search/cost_published"]
        numbers = (f"{one['fit/seconds'] / 60:.1f}", f"{one['fit/steps']:.0f}", f"{one['search/entropy']:.2f}")
        each.append([str(n), *numbers, f"{share:.2f}"])
    return [
        Table(f"{arguments.minutes:g} minutes of one core of training each, {arguments.repeats} seeds", heads, shown),
        Table("Differences; the interval is Student's over the seeds", ["", "Dice", "95 %"], gaps),
        Table("The searches", ["seed", "minutes", "steps", "entropy at the end", "cost over published"], each),
    ]


def seconds_of(model: Any) -> float:
    """Median of three: windows of a volume without overlap, all threads."""
    network, x = model.build(1, 4).eval(), torch.zeros(1, 1, *PATCH)
    taken = []
    with torch.no_grad():
        for _ in range(4):
            begun = time.perf_counter()
            network(x)
            taken.append(time.perf_counter() - begun)
    windows = np.prod([-(-whole // part) for whole, part in zip(VOLUME, PATCH, strict=True)])
    return float(statistics.median(taken[1:]) * windows)


def spread(found: list[list[float]]) -> list[str]:
    """Mean and its interval, as shown."""
    output = over_seeds(np.asarray(found))
    return [f"{output.value:.3f}", f"{output.low:.3f} to {output.high:.3f}"]


def over_seeds(values_SN: np.ndarray) -> Interval:
    """Mean with its 95 % interval for other seeds of search, weights and random draws, on these cases (Student's t)."""
    means = values_SN.mean(1)
    if len(means) < 2:
        return Interval(float(means[0]), float("nan"), float("nan"))
    half = float(stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / len(means) ** 0.5)
    return Interval(float(means.mean()), float(means.mean()) - half, float(means.mean()) + half)


def main() -> None:
    """Measure, print, write."""
    arguments = options("scnas", "Was the architecture search worth it? Each round is a seed.", 3, more)
    if arguments.quick:
        arguments.minutes, arguments.search, arguments.repeats, arguments.fields = 0.1, 0.1, 1, 1
    with Watch() as watch:
        tables, rows = watched(watch, lambda: measure(arguments))
    finish(arguments, rows, {}, tables, watch)


if __name__ == "__main__":
    main()
