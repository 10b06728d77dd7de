"""DISPR as published compared with the fast models, on the same held-out red blood cells.

    python -m studies.dispr --data FOLDER --part train --minutes 9     # again to train longer
    python -m studies.dispr --data FOLDER --part sample --part fast --part score

FOLDER holds `image`, `mask` and `obj`. Fold 0 of five is tested. DISPR is trained by `shape_dispr`, without its
validation; the fast models are trained on the same cells, on the same device. The shipped `shape_rbc` weights are
scored as well, but they have seen the tested cells in training. On a CPU, try it with `--steps 1 --cells 1
--sampling-steps 2`.

References
----------
Waibel et al., A diffusion model predicts 3D shapes from 2D microscopy images, ISBI 2023, arXiv 2208.14125.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cytovox.errors import InputError
from cytovox.inference.device import choose_precision
from cytovox.inference.ensemble import autocast
from cytovox.io.atomic import atomic_path
from cytovox.measurement.solids import cylinder, ellipsoid
from cytovox.metrics.shapes import ERRORS, ShapeErrors, change_rows, mean_shape, sample_errors, score_rows, shape_errors
from cytovox.preprocess.shape_fields import SLICE
from datamodules.shape.cases import ShapeCell
from datamodules.shape.datamodule import ShapeDataModule
from datamodules.shape.dataset import shape_sample
from experiments.build import build_from_weights
from experiments.config import load_config
from experiments.schema import Config
from experiments.tasks.shape.config import ShapeConfig
from experiments.weights import read_weights, weights_path
from lightning_modules.shape_base import ShapeBase
from studies._common import (
    add_shared_options,
    device_of,
    existing_run,
    print_table,
    require_folder,
    run_study,
    train_for,
    trained_seconds,
    trained_steps,
    write_half_weights,
    write_result,
)
from studies._sampling import SampleStore, SamplingPlan, sample_cells
from training.rundir import RunFolder

#: Where the study differs from the paper on purpose.
DEVIATIONS = (
    "EMA with warm-up (the paper's 0.9999 without it keeps the untrained weights for some 10,000 steps)",
    "mixed precision where the device has it",
)
PARTS = ("train", "sample", "fast", "score")
#: Samples of a fast model for each cell: as many as `predict.samples` of the shipped configs.
FAST_SAMPLES = 20


def study(arguments: argparse.Namespace) -> None:
    """Do the chosen parts.

    Raises
    ------
    InputError
        The data, an option or a config key is invalid, or an earlier part has not been done.
    """
    require_folder(arguments.data, "--data", "image", "mask", "obj")
    arguments.out = arguments.out or arguments.work
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "train": train, "sample": sample, "fast": train_fast, "score": score,
    }  # fmt: skip
    for part in PARTS:
        if part in (arguments.part or PARTS):
            parts[part](arguments)


def shared_overrides(arguments: argparse.Namespace) -> list[str]:
    """Return the overrides of every model: the same cells, the same fold, the same device."""
    words = [f"data.root={arguments.data.absolute()}", "data.folds=5", "data.fold=0", "data.val=0"]
    words.append(f"trainer.accelerator={device_of(arguments.device).type}")
    return words + ([f"trainer.max_steps={arguments.steps}"] if arguments.steps else [])


def dispr_overrides(arguments: argparse.Namespace) -> list[str]:
    """Return the overrides of `shape_dispr`."""
    words = [f"sampler.steps={arguments.sampling_steps}", *shared_overrides(arguments)]
    return [*words, "trainer.benchmark=true", *arguments.overrides]


def train(arguments: argparse.Namespace) -> None:
    """Train DISPR for the minutes of this call, and write its averaged weights."""
    words = dispr_overrides(arguments)
    folder = train_for("shape_dispr", words, arguments.work / "runs", "dispr", arguments.minutes)
    files = write_half_weights(checkpoint_of(folder, "train"), arguments.out / "dispr.safetensors")
    print(f"{trained_steps(folder)} steps in {trained_seconds(folder) / 60:.1f} min")
    print("weights:", *files, flush=True)


def sample(arguments: argparse.Namespace) -> None:
    """Sample the tested cells with DISPR, many in a batch, and write their shapes."""
    config, module, plan = dispr_module(arguments)
    fold = tested_fold(config)
    cells, store = fold[: arguments.cells], store_of(arguments, config, plan, fold)
    lacking = sample_cells(module, cells, plan, store)
    # here and not with the scores: a machine that is given back after this part would take them with it
    drawn = {cell.name: store.read(cell.name)[0] for cell in cells if store.has(cell.name)}
    write_shapes(arguments.out / "dispr_shapes.npz", drawn)
    if lacking:
        print(f"{lacking} cells are left: run --part sample again", flush=True)


def dispr_module(arguments: argparse.Namespace) -> tuple[Config, Any, SamplingPlan]:
    """Return the config of DISPR, its trained module on the device, and how it samples."""
    config = load_config("shape_dispr", dispr_overrides(arguments))
    checkpoint = checkpoint_of(existing_run(arguments.work / "runs", "dispr"), "train")
    module = build_from_weights(config, read_weights(config, [checkpoint])).to(device_of(arguments.device)).eval()
    precision = choose_precision(config.trainer.precision, config.trainer.accelerator)
    torch.backends.cudnn.benchmark = True
    plan = SamplingPlan(arguments.samples, arguments.batch, precision, config.seed, arguments.minutes)
    return config, module, plan


def store_of(
    arguments: argparse.Namespace, config: Config, plan: SamplingPlan, fold: Sequence[ShapeCell]
) -> SampleStore:
    """Return where DISPR's samples lie, by everything that they depend on.

    Parameters
    ----------
    arguments : Namespace
        Of the study; its overrides count as they are given.
    config : Config
        Of DISPR; its sampler and its process count as resolved.
    plan : SamplingPlan
        Its batch and its minutes do not count: no sample depends on them.
    fold : sequence of ShapeCell
        All cells of the tested fold, in order: with more `--cells` the samples of the first ones are kept.
    """
    checkpoint = checkpoint_of(existing_run(arguments.work / "runs", "dispr"), "train")
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    assert isinstance(config, ShapeConfig)
    settings = json.dumps({"sampler": asdict(config.sampler), "process": asdict(config.process)}, sort_keys=True)
    provenance = (
        digest, settings, tuple(arguments.overrides), cells_digest(fold), plan.samples, plan.seed, plan.precision,
    )  # fmt: skip
    return SampleStore.of(arguments.work / "samples", provenance)


def cells_digest(cells: Sequence[ShapeCell]) -> str:
    """Return a SHA-256 of the names, images and masks of cells, in their order."""
    digest = hashlib.sha256()
    for cell in cells:
        digest.update(f"{cell.name}\0".encode())
        for content in (cell.image_YX, cell.mask_YX):
            digest.update(f"{content.dtype} {content.shape}\0".encode())
            digest.update(np.ascontiguousarray(content).tobytes())
    return digest.hexdigest()


def checkpoint_of(folder: RunFolder | None, part: str) -> Path:
    """Return the last checkpoint of a run.

    Raises
    ------
    InputError
        There is none.
    """
    if folder is None or not folder.last_checkpoint.is_file():
        raise InputError(f"--part: nothing is trained yet; run --part {part} first")
    return folder.last_checkpoint


def tested_fold(config: Config) -> list[ShapeCell]:
    """Return all cells of the tested fold; the study takes the first `--cells` of them."""
    return list(ShapeDataModule(config.data, config.seed, splits=("test",)).find()["test"])


def train_fast(arguments: argparse.Namespace) -> None:
    """Train the fast models on the same cells, each by its own config; `--fast-minutes` limits each."""
    for name in arguments.fast:
        words = fast_overrides(arguments)
        folder = train_for(name, words, arguments.work / "runs", name, arguments.fast_minutes)
        write_half_weights(checkpoint_of(folder, "fast"), arguments.out / f"{name}_fold0.safetensors")
        print(f"{name}: {trained_steps(folder)} steps in {trained_seconds(folder) / 60:.1f} min", flush=True)


def fast_overrides(arguments: argparse.Namespace) -> list[str]:
    """Return the overrides of the fast models."""
    return [*shared_overrides(arguments), f"predict.samples={FAST_SAMPLES}"]


def score(arguments: argparse.Namespace) -> None:
    """Score all models on the same cells, and write `dispr.json`."""
    config, _, plan = dispr_module(arguments)
    fold = tested_fold(config)
    cells, store = fold[: arguments.cells], store_of(arguments, config, plan, fold)
    missing = [cell.name for cell in cells if not store.has(cell.name)]
    if missing:
        raise InputError(f"--part: {len(missing)} of {len(cells)} cells are not sampled yet; run --part sample first")
    errors, seconds = solid_errors(cells), {}
    shapes = {cell.name: store.read(cell.name) for cell in cells}
    drawn = {name: samples for name, (samples, _) in shapes.items()}
    errors |= model_errors("DISPR", cells, drawn)
    errors |= model_errors("DISPR, imaged slice written", cells, with_slices(cells, drawn))
    seconds["DISPR"] = float(np.mean([taken for _, taken in shapes.values()]))
    for name, checkpoint in fast_checkpoints(arguments).items():
        print(f"predicting with {name}", flush=True)
        means, samples, seconds[name] = predicted(arguments, name.split(",")[0], checkpoint, cells)
        errors[f"{name}: mean shape"] = [
            shape_errors(mean, truth(cell)) for mean, cell in zip(means, cells, strict=True)
        ]
        errors |= model_errors(name, cells, samples)
    report(arguments, cells, errors, seconds, plan.precision)


def fast_checkpoints(arguments: argparse.Namespace) -> dict[str, Path]:
    """Return the checkpoints of the fast models, and the shipped weights, by the names of the table."""
    runs = {name: existing_run(arguments.work / "runs", name) for name in arguments.fast}
    found = {name: checkpoint_of(folder, "fast") for name, folder in runs.items()}
    return found | {"shape_rbc, shipped (has seen these cells)": weights_path("shape_rbc", "shape_rbc")}


def predicted(
    arguments: argparse.Namespace, name: str, checkpoint: Path, cells: Sequence[ShapeCell]
) -> tuple[list[np.ndarray], dict[str, np.ndarray], float]:
    """Return a fast model's mean shapes, its samples by cell, and the seconds that a sample takes."""
    config = load_config(name, fast_overrides(arguments))
    module = build_from_weights(config, read_weights(config, [checkpoint])).to(device_of(arguments.device)).eval()
    assert isinstance(module, ShapeBase)
    precision = choose_precision(config.trainer.precision, config.trainer.accelerator)
    means, samples, begun = [], {}, time.perf_counter()
    for number, cell in enumerate(cells):
        shown = shape_sample(cell, number)
        with autocast(module.device.type, precision):
            found = module.shapes(
                shown["image"].to(module.device), shown["mask"].to(module.device), number, FAST_SAMPLES
            )
        means.append(found.mean_ZYX.numpy())
        samples[cell.name] = found.samples_NZYX.numpy()
    return means, samples, (time.perf_counter() - begun) / (len(cells) * FAST_SAMPLES)


def truth(cell: ShapeCell) -> np.ndarray:
    """Return the true object of a cell, bool (Z, Y, X)."""
    assert cell.obj_ZYX is not None, "tested cells have an object"
    return cell.obj_ZYX


def solid_errors(cells: Sequence[ShapeCell]) -> dict[str, list[ShapeErrors]]:
    """Return the errors of the two solids that need no training."""
    solids = {"cylinder": cylinder, "ellipsoid": ellipsoid}
    return {name: [shape_errors(fit(cell.mask_YX), truth(cell)) for cell in cells] for name, fit in solids.items()}


def with_slices(cells: Sequence[ShapeCell], samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the samples with the mask as the imaged slice, as the project's own models give it."""
    written = {}
    for cell in cells:
        written[cell.name] = samples[cell.name].copy()
        written[cell.name][:, SLICE] = cell.mask_YX
    return written


def model_errors(name: str, cells: Sequence[ShapeCell], samples: dict[str, np.ndarray]) -> dict[str, list[ShapeErrors]]:
    """Return the errors of a single sample (each error's mean over a cell's samples), and of their majority."""
    found = {f"{name}: one sample": [sample_errors(samples[cell.name], truth(cell), k=1).single for cell in cells]}
    if name.startswith("DISPR") and len(samples[cells[0].name]) > 1:
        majority = [shape_errors(mean_shape(samples[cell.name]), truth(cell)) for cell in cells]
        found[f"{name}: mean shape"] = majority
    return found


def report(
    arguments: argparse.Namespace,
    cells: Sequence[ShapeCell],
    errors: dict[str, list[ShapeErrors]],
    seconds: dict[str, float],
    precision: str,
) -> None:
    """Print the table and write `dispr.json`."""
    groups = [cell.group for cell in cells]
    rows = score_rows(errors, strata=groups)
    shown = [
        [row["model"], *(f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]" for name in ERRORS)]
        for row in rows
    ]
    titles = ["model", "1 - IoU", "volume", "surface", "roughness"]
    print_table(f"Errors on {len(cells)} cells of fold 0, mean [95 %, bootstrap over cells]", titles, shown)
    print_table("Seconds a sample", ["model", "seconds"], [[name, taken] for name, taken in seconds.items()])
    trained = {}
    for name in ("dispr", *arguments.fast):
        folder = existing_run(arguments.work / "runs", name)
        assert folder is not None
        steps, taken = trained_steps(folder), trained_seconds(folder)
        trained[name] = {"steps": steps, "seconds": taken, **fit_figures(folder)}
    values = {
        "cells": [cell.name for cell in cells],
        "deviations": list(DEVIATIONS),
        "overrides": list(arguments.overrides),
        "samples": arguments.samples,
        "sampling_steps": arguments.sampling_steps,
        "batch": arguments.batch,
        "sampling_precision": precision,
        "trained": trained,
        "seconds_per_sample": seconds,
        "errors": rows,
        "change_against_dispr": change_rows(errors, "DISPR: one sample", strata=groups),
        "errors_by_cell": {name: [asdict(one) for one in found] for name, found in errors.items()},
    }
    write_result(arguments.out / "dispr.json", "dispr", values)


def fit_figures(folder: RunFolder) -> dict[str, float]:
    """Return what the run itself measured of its last training: seconds a batch, memory, parameters."""
    return {key: value for key, value in folder.metrics().items() if key.startswith("fit/")}


def write_shapes(path: Path, samples: dict[str, np.ndarray]) -> None:
    """Write packed bits of the samples, uint8 (S, Z * Y * X / 8) by cell: `np.unpackbits` gives the shapes back."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        packed: dict[str, Any] = {
            name: np.packbits(found.reshape(len(found), -1), axis=1) for name, found in samples.items()
        }
        np.savez_compressed(file, **packed)
    print(f"written: {path}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study and return its exit code."""
    parser = argparse.ArgumentParser(prog="studies.dispr", description=(__doc__ or "").splitlines()[0])
    add_shared_options(parser, "dispr")
    parser.add_argument("--data", type=Path, required=True, help="folder with image, mask and obj")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; default: all")
    parser.add_argument("--cells", type=int, default=20, help="tested cells (%(default)s)")
    parser.add_argument("--samples", type=int, default=1, help="of DISPR for each cell (%(default)s)")
    parser.add_argument("--sampling-steps", type=int, default=1000, help="of DISPR (%(default)s)")
    parser.add_argument("--batch", type=int, default=20, help="samples that DISPR draws at once (%(default)s)")
    parser.add_argument("--fast", action="append", help="shipped config to compare with (shape_rbc); may be repeated")
    parser.add_argument("--fast-minutes", type=float, default=4.0, help="most training of a fast model (%(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(%(default)s)")
    arguments = parser.parse_intermixed_args(argv)
    for option in ("cells", "samples", "sampling_steps", "batch"):
        if getattr(arguments, option) < 1:
            parser.error(f"--{option.replace('_', '-')}: expected 1 or more, got {getattr(arguments, option)}")
    arguments.fast = arguments.fast or ["shape_rbc"]
    return run_study(study, arguments)


if __name__ == "__main__":
    sys.exit(main())
