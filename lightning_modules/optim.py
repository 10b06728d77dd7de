"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from cytovox.errors import InputError


@dataclass
class Schedule:
    """How the learning rate changes."""

    schedule: Literal["plateau", "cosine", "poly", "constant"] = "plateau"
    """`plateau` waits for the validation metric (Choi et al. 2021); `cosine`, `poly` need max_epochs or max_steps."""
    warmup_steps: int = 0
    """Steps of linear warm-up (not with `plateau`)."""
    factor: float = 0.2
    """`plateau`: what the rate is multiplied by (the paper divides by 5)."""
    patience: int = 30
    """`plateau`: validation epochs without improvement before that."""
    power: float = 0.9
    """`poly`: exponent."""
    lr_min_ratio: float = 0.01
    """`cosine` and `poly`: last rate over the first."""
    lr_scale: Literal["none", "linear", "sqrt"] = "none"
    """How `lr` follows the samples of a step over all ranks, divided by `reference_batch`: not at all; `linear`, for
    SGD (Goyal et al. 2017, arXiv 1706.02677); `sqrt`, for Adam (Malladi et al. 2022, arXiv 2205.10287)."""
    reference_batch: int | None = None
    """Samples a step that `lr` is meant for; null for `data.batch_size`, those of one device."""


@dataclass
class Adam(Schedule):
    """Kingma & Ba 2015."""

    lr: float = 1e-3
    """Learning rate."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """Decay of the two running moments."""
    weight_decay: float = 0.0
    """L2 penalty."""

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> Optimizer:
        """The optimiser over these parameters."""
        return torch.optim.Adam(
            parameters, lr=self.lr, betas=(self.betas[0], self.betas[1]), weight_decay=self.weight_decay
        )


@dataclass
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    weight_decay: float = 1e-2
    """Decoupled decay."""

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> Optimizer:
        """The optimiser over these parameters."""
        return torch.optim.AdamW(
            parameters, lr=self.lr, betas=(self.betas[0], self.betas[1]), weight_decay=self.weight_decay
        )


@dataclass
class SGD(Schedule):
    """Stochastic gradient descent with Nesterov momentum (nnU-Net's choice)."""

    lr: float = 1e-2
    """Learning rate."""
    momentum: float = 0.99
    """Nesterov momentum."""
    weight_decay: float = 3e-5
    """L2 penalty."""

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> Optimizer:
        """The optimiser over these parameters."""
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.momentum > 0
        )


OptimizerConfig = Adam | AdamW | SGD

#: Optimisers by the name a config uses.
OPTIMIZERS: dict[str, type[OptimizerConfig]] = {"adam": Adam, "adamw": AdamW, "sgd": SGD}


def require_validation(schedule: str | None, early_stopping: bool) -> None:
    """Refuse to train without a validation volume where something follows the validation.

    Parameters
    ----------
    schedule : str, optional
        Of the learning rate.
    early_stopping : bool
        Whether the validation metric may end the training.

    Raises
    ------
    InputError
        Names the key.
    """
    if schedule == "plateau":
        raise InputError(
            "optimizer.schedule: plateau follows the validation, but there is no validation volume; "
            "give data some, or choose cosine, poly or constant"
        )
    if early_stopping:
        raise InputError(
            "trainer.early_stopping: follows the validation, but there is no validation volume; "
            "give data some, or set it to null"
        )


def optimizer_errors(config: OptimizerConfig) -> list[str]:
    """What cannot work in these numbers, one line each, beginning with the key."""
    errors = []
    if not 0 < config.lr < math.inf:
        errors.append(f"lr: expected a positive number, got {config.lr}")
    if config.reference_batch is not None and config.reference_batch < 1:
        errors.append(f"reference_batch: expected 1 or more, or null, got {config.reference_batch}")
    if config.reference_batch is not None and config.lr_scale == "none":
        errors.append("reference_batch: only with lr_scale: linear or sqrt; choose one of them, or leave it out")
    if config.warmup_steps < 0:
        errors.append(f"warmup_steps: expected 0 or more, got {config.warmup_steps}")
    if config.schedule == "plateau" and config.warmup_steps:
        errors.append("warmup_steps: not with schedule: plateau; choose cosine, poly or constant, or set it to 0")
    for key in ("patience", "weight_decay", "power"):
        if not getattr(config, key) >= 0:
            errors.append(f"{key}: expected 0 or more, got {getattr(config, key)}")
    if not 0 <= config.lr_min_ratio <= 1:
        errors.append(f"lr_min_ratio: expected a number from 0 to 1, got {config.lr_min_ratio}")
    if isinstance(config, SGD) and not 0 <= config.momentum < 1:
        errors.append(f"momentum: expected a number from 0 to below 1, got {config.momentum}")
    if not 0 < config.factor < 1:
        errors.append(f"factor: expected a number between 0 and 1, got {config.factor}")
    if isinstance(config, Adam) and (len(config.betas) != 2 or not all(0 <= b < 1 for b in config.betas)):
        errors.append(f"betas: expected two numbers from 0 to below 1, got {config.betas}")
    return errors


def scaled_rate(config: OptimizerConfig, samples: int, batch_size: int) -> float:
    """Return the learning rate of a step of so many samples, by `lr_scale`.

    Parameters
    ----------
    config : OptimizerConfig
        Valid options.
    samples : int
        Of a step over all ranks, accumulated batches included.
    batch_size : int
        Of one device: what `lr` is meant for where `reference_batch` is not given.
    """
    times = samples / (config.reference_batch or batch_size)
    return config.lr * {"none": 1.0, "linear": times, "sqrt": math.sqrt(times)}[config.lr_scale]


def learning_rate_scale(config: Schedule, total_steps: float) -> Callable[[int], float]:
    """Multiplier of the learning rate at a step: linear warm-up, then the schedule."""

    def scale(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / (config.warmup_steps + 1)
        if config.schedule == "constant" or not math.isfinite(total_steps):
            return 1.0
        done = min(1.0, (step - config.warmup_steps) / max(1.0, total_steps - config.warmup_steps))
        shape = 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else (1 - done) ** config.power
        return config.lr_min_ratio + (1 - config.lr_min_ratio) * shape

    return scale


def configure(
    config: OptimizerConfig,
    parameters: Iterable[torch.nn.Parameter],
    total_steps: float,
    monitor: str,
) -> dict[str, Any]:
    """What `LightningModule.configure_optimizers` returns.

    Parameters
    ----------
    config : OptimizerConfig
        Optimiser and schedule.
    parameters : iterable of Parameter
        What is optimised.
    total_steps : float
        Optimiser steps of the whole run (inf where only a time limits it).
    monitor : str
        Validation metric, larger is better. The plateau counts validations, so the module steps it after each.
    """
    optimizer = config.build(parameters)
    if config.schedule == "plateau":
        plateau = ReduceLROnPlateau(optimizer, mode="max", factor=config.factor, patience=config.patience)
        # Lightning keeps its state but never steps it: with a validation every n-th epoch it would do so an epoch
        # before, and always after the checkpoint of that epoch is written
        schedule = {"scheduler": plateau, "monitor": monitor, "interval": "epoch", "frequency": sys.maxsize}
    else:
        schedule = {"scheduler": LambdaLR(optimizer, learning_rate_scale(config, total_steps)), "interval": "step"}
    return {"optimizer": optimizer, "lr_scheduler": schedule}
