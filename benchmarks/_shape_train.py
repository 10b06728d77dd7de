"""Train one model on one fold and predict the cells held out: a process of `benchmarks/shape.py`, on one core.

python benchmarks/_shape_train.py DATA WORK MODEL RUN STEPS
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the packages before this script's own neighbours

import numpy as np
import pytorch_lightning as pl
import torch

from benchmarks._shape_predicted import Predicted
from datamodules.shape.cases import ShapeCell
from datamodules.shape.config import ShapeFolderData
from datamodules.shape.datamodule import ShapeDataModule
from datamodules.shape.dataset import shape_sample
from datamodules.shape.folder import find_shapes, read_shapes
from datamodules.shape.folds import stratified_folds
from experiments.build import build_for_training
from experiments.config import load_config
from experiments.schema import Config
from lightning_modules.shape_base import MONITOR, ShapeBase
from training.rundir import RunFolder
from training.trainer import build_trainer, checkpoint_path

#: The config of each model, what is changed in it, and how many shapes are drawn of a cell.
MODELS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "traits": ("shape_rbc", (), 20),
    "regressor": ("shape_rbc", ("traits.name=none",), 1),
    "flow": ("shape_flow", (), 20),
    # DISPR's objective on the cheap network: its chain, its loss, its sampler, at 32 voxels a side
    "dispr_objective": (
        "shape_flow",
        (
            "process.name=linear_betas", "preconditioning.name=noise_and_variance", "loss.name=noise_mse_vlb",
            "sampler.name=ancestral", "sampler.steps=1000", "sampler.clip=[-1.0,1.0]",
        ),
        5,
    ),
    "shapr": ("shapr", (), 1),
}  # fmt: skip
#: Of the inner folds' division, so that it is another one than the outer folds'.
INNER_SEED = 1
INNER_FOLDS = 3


def read_cells(root: Path) -> list[ShapeCell]:
    """Every cell of a folder, in the order of their names."""
    return read_shapes(find_shapes(ShapeFolderData(root=str(root))))


def fold_cells(cells: Sequence[ShapeCell], run: str, folds: int = 5) -> tuple[list[ShapeCell], list[ShapeCell]]:
    """Training cells and held-out cells of `fold2` or `fold2_inner0`."""
    outer, _, inner = run.removeprefix("fold").partition("_inner")
    train, held = _divided(cells, folds, 0, int(outer))
    return _divided(train, INNER_FOLDS, INNER_SEED, int(inner)) if inner else (train, held)


def _divided(cells: Sequence[ShapeCell], folds: int, seed: int, fold: int) -> tuple[list[ShapeCell], list[ShapeCell]]:
    fold_N = stratified_folds([cell.name for cell in cells], [cell.group for cell in cells], folds, seed)
    held = [cell for cell, own in zip(cells, fold_N, strict=True) if own == fold]
    return [cell for cell, own in zip(cells, fold_N, strict=True) if own != fold], held


def config_of(model: str, root: Path, steps: int, more: Sequence[str] = ()) -> Config:
    """The config of a run."""
    name, changes, samples = MODELS[model]
    return load_config(
        name,
        [
            f"data.root={root}", *changes, f"predict.samples={samples}", f"trainer.max_steps={steps}",
            "trainer.max_epochs=null", "trainer.precision=32-true", "trainer.accelerator=cpu", "data.num_workers=0",
            "trainer.enable_progress_bar=false", *more,
        ],
    )  # fmt: skip


def trained(config: Config, train: Sequence[ShapeCell], folder: RunFolder) -> tuple[ShapeBase, float]:
    """A model trained on these cells, and the seconds it took; goes on where a stopped one ended."""
    pl.seed_everything(config.seed, verbose=False)
    data = ShapeDataModule(config.data, config.seed, cells={"train": train})
    module = build_for_training(config)
    trainer = build_trainer(config.trainer, folder, [], MONITOR, False)
    begun = time.perf_counter()
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint_path(folder), weights_only=True)
    assert isinstance(module, ShapeBase)
    return module.eval(), time.perf_counter() - begun


def predict(module: ShapeBase, cells: Sequence[ShapeCell], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean shapes (N, Z, Y, X) and samples (N, S, Z, Y, X), bool."""
    means, samples = [], []
    for number, cell in enumerate(cells):
        sample = shape_sample(cell, number)
        found = module.shapes(sample["image"], sample["mask"], number, count)
        means.append(found.mean_ZYX.numpy())
        samples.append(found.samples_NZYX.numpy())
    return np.stack(means), np.stack(samples)


def main() -> None:
    """One run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("run")
    parser.add_argument("steps", type=int)
    parser.add_argument("more", nargs="*", help="further key=value of the config")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train, held = fold_cells(read_cells(arguments.data), arguments.run)
    folder = arguments.work / "runs" / arguments.model / arguments.run
    folder.mkdir(parents=True, exist_ok=True)
    config = config_of(arguments.model, arguments.data, arguments.steps, arguments.more)
    module, seconds = trained(config, train, RunFolder(folder))
    # one answer of a deterministic model is its mean over the eight views
    deterministic = MODELS[arguments.model][2] == 1
    means_NZYX, samples_NSZYX = predict(module, held, 8 if deterministic else MODELS[arguments.model][2])
    if deterministic:
        samples_NSZYX = means_NZYX[:, None]
    names, seen = tuple(cell.name for cell in held), frozenset(cell.name for cell in train)
    Predicted(arguments.model, arguments.run, names, seen, means_NZYX, samples_NSZYX, arguments.steps, seconds).write(
        arguments.work
    )


if __name__ == "__main__":
    main()
