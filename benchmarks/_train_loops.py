"""Training for a few steps, timed: ours through Lightning, and a plain loop over a MONAI ``CacheDataset``."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, EnsureTyped, RandAffined, RandCropByPosNegLabeld, RandFlipd, Transform
from pytorch_lightning.profilers import Profiler

from cytovox.inference.device import choose_precision
from datamodules.loading import loader_workers
from datamodules.organelle import OrganelleDataModule
from experiments.build import build_for_training
from experiments.config import Config
from lightning_modules.organelle import MONITOR
from training.rundir import RunFolder
from training.trainer import build_trainer

NEXT = "[_TrainingEpochLoop].train_dataloader_next"
KEYS = ("image", "mask")


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


def step_times(ends: list[float], waits: list[float], skip: int, batch: int) -> dict[str, float]:
    """Of all steps but the first ones: how long they were, and what part of that was waiting."""
    steps = [end - begin for begin, end in zip(ends[skip - 1 :], ends[skip:], strict=False)]
    waited = waits[skip : len(ends)]
    assert len(waited) == len(steps) > 0
    return {
        "mean_step_ms": 1e3 * statistics.mean(steps),
        "mean_wait_ms": 1e3 * statistics.mean(waited),
        "longest_wait_ms": 1e3 * max(waited),
        "waited_share": sum(waited) / sum(steps),
        "samples_per_second": batch * len(steps) / sum(steps),
    }


def train(config: Config, data: OrganelleDataModule, workers: int | str, skip: int) -> dict[str, float]:
    """Train as a run does, for the config's steps."""
    pl.seed_everything(config.seed, verbose=False)
    data.config.num_workers = workers
    ends, waits = StepEnds(), Waits()
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config.trainer, RunFolder(Path(folder)), [], MONITOR, dry_run=False, extra=[ends])
        trainer.profiler = waits  # type: ignore[attr-defined]
        trainer.fit(build_for_training(config, start=False), datamodule=data)
    assert len(ends.times) == config.trainer.max_steps
    return step_times(ends.times, waits.seconds, skip, config.data.batch_size)


class OpenPrepared(Transform):
    """Reads what our datamodule has prepared: normalised, on the common grid."""

    def __call__(self, case: Any) -> dict[str, Any]:
        """Image (1, Z, Y, X) and masks (K, Z, Y, X)."""
        arrays: Mapping[Hashable, Any] = case.arrays()
        return {key: np.array(arrays[key]) for key in KEYS}


def cache_dataset(config: Config, data: OrganelleDataModule) -> CacheDataset:
    """The same volumes in memory, with random crops, turns, zooms and flips in MONAI's own transforms."""
    settings = config.data
    crop = RandCropByPosNegLabeld(
        KEYS, "mask", settings.patch_size, pos=settings.foreground, neg=1 - settings.foreground, num_samples=1
    )
    turn = RandAffined(
        KEYS,
        prob=max(settings.rotate_probability, settings.scale_probability),
        rotate_range=[math.pi, 0.0, 0.0],
        scale_range=[(s - 1, b - 1) for s, b in [settings.scale] * 3],
        mode=["bilinear", "nearest"],
        padding_mode="border",
    )
    flips = [RandFlipd(KEYS, 0.5, axis) for axis in range(3)]
    steps = Compose([OpenPrepared(), EnsureTyped(KEYS), crop, turn, *flips])
    return CacheDataset(list(data.prepared["train"]), steps, num_workers=1, progress=False)


def _batches(loader: DataLoader) -> Iterator[dict[str, torch.Tensor]]:
    while True:
        yield from loader


def train_plainly(config: Config, dataset: CacheDataset, workers: int | str, skip: int) -> dict[str, float]:
    """The same network, loss, optimiser and precision, in the loop that one writes by hand."""
    pl.seed_everything(config.seed, verbose=False)
    count = loader_workers(workers)
    more: dict[str, Any] = {"persistent_workers": True} if count else {}
    loader = DataLoader(dataset, batch_size=config.data.batch_size, shuffle=True, num_workers=count, **more)
    module = build_for_training(config, start=False)
    network, loss = module.network.train(), module.loss
    assert loss is not None
    mixed = "bf16" in choose_precision(config.trainer.precision, config.trainer.accelerator)
    layout = torch.channels_last_3d if mixed and getattr(network, "channels_last", True) else torch.contiguous_format
    network.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    labelled = torch.ones(config.data.batch_size, len(config.data.organelles), dtype=torch.bool)
    batches, ends, waits = _batches(loader), [], []
    for _ in range(config.trainer.max_steps):
        begun = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - begun)
        image, mask = (torch.as_tensor(batch[key]) for key in KEYS)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            total = loss(network(image.contiguous(memory_format=layout)), mask, labelled[: len(image)]).sum()
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        ends.append(time.perf_counter())
    return step_times(ends, waits, skip, config.data.batch_size)
