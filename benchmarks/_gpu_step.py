"""One training step of a shipped config without Lightning's loop: forward, loss, backward, clipping, optimiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks._gpu_batches import random_batch
from benchmarks._gpu_common import LAST, LIGHTNING, Settings, autocast_of
from benchmarks._gpu_modes import compiled
from experiments.build import build_for_training
from experiments.config import load_config

#: Shipped configs that train, and words that make them tiny in a quick run.
QUICK: dict[str, tuple[str, ...]] = {
    "organelle": ("data.patch_size=[24,32,32]", "model.channels=[16,16,32]"),
    "organelle_choi": (
        "data.patch_size=[24,32,32]", "model.width=2", "model.layers=4", "predict.stride=[24,32,32]",
    ),
    "cells_network": ("data.resample_grid=[24,32,32]",),
    "cells": ("data.patch_size=[24,32,32]",),
    "cells_choi": ("data.resample_grid=[24,32,32]", "model.width=2", "model.layers=4"),
    "shape_rbc": ("model.channels=[16,16]",),
    "shape_dispr": ("model.multipliers=[1,1,1,1]", "model.attention_levels=[]"),
    "shapr": ("data.batch_size=2",),
}  # fmt: skip


@dataclass
class Step:
    """Everything of a training step on the device; a call does one."""

    config: Any
    module: Any
    batch: dict[str, Any]
    settings: Settings
    precision: str
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = self.module.configure_optimizers()["optimizer"]
        self.scaler = torch.amp.GradScaler(self.settings.device, enabled=self.precision == "float16")

    def loss(self) -> torch.Tensor:
        """The loss of the batch, in the precision's autocast."""
        with autocast_of(self.settings.device, self.precision):
            total: torch.Tensor = self.module.training_step(self.batch, 0)
        return total

    def __call__(self) -> None:
        """Forward, backward, clipping and update."""
        self.optimizer.zero_grad(set_to_none=True)
        self.backward(self.loss)
        self.update()

    def backward(self, loss: Callable[[], torch.Tensor], share: float = 1.0) -> None:
        """Add the gradients of a part of the step."""
        self.scaler.scale(share * loss()).backward()

    def update(self) -> None:
        """Clip gradients as in the config, and step the optimiser."""
        limit = self.config.trainer.gradient_clip_val
        if limit is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), limit)
        self.scaler.step(self.optimizer)
        self.scaler.update()


def config_of(name: str, settings: Settings) -> Any:
    """A shipped config, tiny in a quick run."""
    return load_config(name, QUICK[name] if settings.quick else ())


def build_step(
    name: str,
    settings: Settings,
    precision: str,
    channels_last: bool,
    batch: int | None = None,
    mode: str = "eager",
    second_stage: bool = False,
) -> Step:
    """A step of a shipped config on a random batch.

    Parameters
    ----------
    name : str
        One of `QUICK`.
    settings : Settings
        Device, and whether the sizes are tiny.
    precision : str
        One of `_gpu_common.PRECISIONS`.
    channels_last : bool
        Layout of the weights of the network; torch's convolutions follow it.
    batch : int, optional
        Samples; the config's own number if not given.
    mode : str
        `eager`, or `compile` for the network under torch.compile.
    second_stage : bool
        SHAPR: with the discriminator.
    """
    config = config_of(name, settings)
    torch.manual_seed(0)
    module: Any = build_for_training(config, start=False).to(settings.device).train()
    network = module.network
    if channels_last:
        for weight in (p for p in network.parameters() if p.dim() == 5):
            weight.data = weight.data.contiguous(memory_format=LAST)
    if mode != "eager":
        module.network = compiled(network, mode, settings)
    module.log = _ignore  # outside a trainer there is nowhere to log
    # the little that a module asks its trainer for within a training step
    module._trainer = SimpleNamespace(
        precision=LIGHTNING[precision],
        global_step=1000 if second_stage else 0,
        estimated_stepping_batches=1000,
        current_epoch=0,
        accumulate_grad_batches=1,
    )
    size = batch or config.data.batch_size
    return Step(config, module, random_batch(config, size, settings.device), settings, precision)


def _ignore(*_: Any, **__: Any) -> None:
    return None
