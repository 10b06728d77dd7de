"""Cost of a prediction: our engine compared with MONAI's and with the limits of the machine, and its memory.

Claims measured here: on a tomogram of 128x512x512 voxels with 6 to 10 cells, the engine is at least five times as
fast on a CPU as MONAI's sliding window in float32, and half as fast again at equal precision and layout
(cytovox/inference/predictor.py, cytovox/networks/residual_unet.py). The mean Dice of each variant is printed, too: when
computing the same windows it is the same; skipping medium also takes away what a network sees in it. Streamed from
OME-Zarr to OME-Zarr a prediction needs less than 2 GiB beyond the model, whatever the size of the volume.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

import numpy as np

from benchmarks import _tables as tables
from benchmarks._common import Watch, finish, options, quiet_rounds, say, without_bfloat16
from benchmarks._engine import MONAI_BATCH, Run, Variant, Windows, network_of, prepare
from benchmarks._fields import FIELDS, QUICK, count_cells, simulated
from benchmarks._floor import floor_seconds, layers_of, machine_tasks, shares
from benchmarks._plain import PlainResidualUNet
from benchmarks._streaming import measure_memory
from cytovox.metrics.overlap import dice_per_organelle
from cytovox.networks.weights import shipped_weights
from cytovox.simulation.tomogram import Tomogram
from experiments.weights import weights_path

#: As `predict.skip_below` has it by default.
SKIP = 0.1
#: How far the probabilities of two variants with the same windows may be apart, in the mean over all voxels.
CLOSE = {"float32": 1e-5, "bfloat16": 5e-3}

#: Names are the rows of the tables. Each differs from an earlier one by a single ingredient.
VARIANTS = {
    "MONAI, float32": Variant("MONAI", mixed=False, plain=True, batch=MONAI_BATCH),
    "MONAI, bfloat16": Variant("MONAI", plain=True, batch=MONAI_BATCH),
    "MONAI, bfloat16, our forward pass": Variant("MONAI", batch=MONAI_BATCH),
    "ours, batches of 4, nothing skipped": Variant("ours", batch=4),
    "ours, batches of 2, nothing skipped": Variant("ours", batch=2),
    "ours, batches of 1, nothing skipped": Variant("ours"),
    "ours, batches of 4": Variant("ours", batch=4, skip_below=SKIP),
    "ours": Variant("ours", skip_below=SKIP),
    "ours, float32, nothing skipped": Variant("ours", mixed=False),
    "ours, float32": Variant("ours", mixed=False, skip_below=SKIP),
}


def variants_here() -> dict[str, Variant]:
    """Return the variants that this processor has instructions for."""
    left_out = without_bfloat16()
    return {name: variant for name, variant in VARIANTS.items() if not (variant.mixed and left_out)}


def scores(run: Run, tomogram: Tomogram, first: np.ndarray | None) -> dict[str, Any]:
    """Dice of one variant against the truth, and how far its probabilities are from those of the first variant."""
    assert run.result is not None
    truth = np.stack(list(tomogram.masks.values()))
    dice = dice_per_organelle(run.result >= 0.5, truth)
    far = [np.abs(a - b) for a, b in zip(run.result, run.result if first is None else first, strict=True)]
    known = dice[~np.isnan(dice)]
    return {
        "dice": dict(zip(tomogram.masks, (None if np.isnan(value) else float(value) for value in dice), strict=True)),
        "dice_mean": float(known.mean()) if len(known) else 0.0,
        "windows": run.windows,
        "probabilities_differ": float(np.mean([part.mean(dtype=np.float64) for part in far])),
        "most": float(max(part.max() for part in far)),
    }


def accuracy(runs: dict[str, Run], tomogram: Tomogram) -> dict[str, dict[str, Any]]:
    """Each variant once, before anything is timed: all that skip nothing must say the same.

    Raises
    ------
    AssertionError
        They do not predict the same windows with the same weights: their times could not be compared.
    """
    found: dict[str, dict[str, Any]] = {}
    first: np.ndarray | None = None
    for name, run in runs.items():
        run(keep=True)
        say(f"inference: {name}: checked, {run.seconds:.1f} s")
        found[name] = scores(run, tomogram, first)
        if first is None:
            first = run.result
        variant = VARIANTS[name]
        if variant.skip_below is None:
            assert found[name]["windows"] == next(iter(found.values()))["windows"], name
            assert found[name]["probabilities_differ"] < CLOSE["bfloat16" if variant.mixed else "float32"], name
        run.result = None
        gc.collect()
    return found


def measure_speed(arguments: argparse.Namespace) -> None:
    """Time every variant on every field in turn, and the rates of the machine."""
    fields = QUICK if arguments.quick else FIELDS
    windows = Windows((24, 32, 32), (12, 16, 16)) if arguments.quick else Windows()
    variants = variants_here()
    ours = "ours" if "ours" in variants else "ours, float32"
    network, normalise, spacing_um = network_of(arguments.weights, organelles=4)
    tomograms = {}
    for name, field in fields.items():
        say(f"inference: simulating field {name}")
        tomograms[name] = simulated(field, arguments.cache)
    runs = {
        name: {variant: prepare(how, network, tomogram, normalise, windows) for variant, how in variants.items()}
        for name, tomogram in tomograms.items()
    }
    agreed = {name: accuracy(runs[name], tomogram) for name, tomogram in tomograms.items()}
    machine = machine_tasks(arguments.quick, mixed="ours" in variants)
    for task, _ in machine.values():
        task()  # the first call allocates; the variants have been called already
    timed: dict[str, Any] = {
        f"{name}|{variant}": run for name, variants in runs.items() for variant, run in variants.items()
    }
    timed |= {f"rate|{name}": partial(tables.seconds_of, task) for name, (task, _) in machine.items()}
    with Watch() as watch:
        rounds = quiet_rounds(arguments, watch, lambda: {name: task() for name, task in timed.items()}, warm=False)

    series = {name: [one[name] for one in rounds] for name in timed}
    rates = {n: amount / statistics.median(s for s, _ in series[f"rate|{n}"]) for n, (_, amount) in machine.items()}
    layers = layers_of(PlainResidualUNet(network), (1, 1, *windows.size))
    floors = {
        kind: floor_seconds(layers, size, rates[kind], rates["bandwidth"])
        for kind, size in (("bfloat16", 2), ("float32", 4))
        if kind in rates
    }
    rows: dict[str, Any] = {"machine": rates, "floor of a window, s": floors, "windows": vars(windows)}
    rows["weights"] = {"file": arguments.weights and arguments.weights.name, "trained at um": spacing_um}
    rows["operations of a window"] = sum(layer.operations for layer in layers)
    for name, tomogram in tomograms.items():
        rows[f"field: {name}"] = {
            "cells": count_cells(tomogram),
            "voxels": list(tomogram.ri_ZYX.shape),
            "spacing_um": list(tomogram.spacing_um),
        }
        for variant in variants:
            both = series[f"{name}|{variant}"]
            rows[f"{name}: {variant}"] = {
                "seconds": [total for total, _ in both],
                "in_network": [inside for _, inside in both],
                **agreed[name][variant],
            }
    profiled = shares(runs[next(iter(fields))][ours].call)
    rows["profile"] = {f"{place}: {kind}": seconds for (place, kind), seconds in profiled.items()}
    ratios, shown = tables.speed_tables(list(fields), variants, rows, floors, profiled, ours)
    finish(arguments, rows, ratios, shown, watch)


def more(parser: argparse.ArgumentParser) -> None:
    """Options of this script alone."""
    parser.add_argument("--part", choices=("speed", "memory", "all"), default="all", help="what to measure (all)")
    parser.add_argument("--weights", default=None, help="a .ckpt or .safetensors file, a run folder or a shipped name")
    parser.add_argument("--cache", type=Path, default=None, help="folder for what is simulated (the user's cache)")


def main() -> None:
    """Write speed to ``inference.json`` and memory to ``inference_memory.json``."""
    arguments = options(
        "inference", "Predicting whole volumes: speed against MONAI and the machine's limits, and memory.", 3, more
    )
    shipped = shipped_weights().get("organelle")
    arguments.weights = (
        weights_path(arguments.weights, "--weights") if arguments.weights else None if arguments.quick else shipped
    )
    if arguments.part != "memory":
        if arguments.weights is None and not arguments.quick:
            raise SystemExit("--weights: none are shipped with this version; name a .ckpt file or a run folder")
        measure_speed(arguments)
    if arguments.part != "speed":
        out = arguments.out.with_stem(f"{arguments.out.stem}_memory")
        measure_memory(argparse.Namespace(**{**vars(arguments), "name": "inference_memory", "out": out}))


if __name__ == "__main__":
    main()
