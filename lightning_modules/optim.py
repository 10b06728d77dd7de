"""Optimisers and learning-rate schedules."""

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
from datamodules.errors import failed


@dataclass
class Schedule:
    """Schedule of the learning rate."""

    schedule: Literal["plateau", "cosine", "poly", "constant"] = "plateau"
    """Schedule. `plateau` follows the validation metric (Choi et al. 2021); `cosine`, `poly` need max_epochs or
    max_steps."""
    warmup_steps: int = 0
    """Steps of linear warm-up (not with `plateau`)."""
    factor: float = 0.2
    """`plateau`: factor of each reduction (the paper divides by 5)."""
    patience: int = 30
    """`plateau`: validation epochs without improvement before a reduction."""
    power: float = 0.9
    """`poly`: exponent."""
    lr_min_ratio: float = 0.01
    """`cosine` and `poly`: last learning rate divided by the first."""
    lr_scale: Literal["none", "linear", "sqrt"] = "none"
    """Scaling of `lr` with the samples of a step over all ranks, divided by `reference_batch`: `none`; `linear`, for
    SGD (Goyal et al. 2017, arXiv 1706.02677); `sqrt`, for Adam (Malladi et al. 2022, arXiv 2205.10287)."""
    reference_batch: int | None = None
    """Samples per step that `lr` was chosen for; null for `data.batch_size`, those of one device."""


@dataclass
class Adam(Schedule):
    """Adam (Kingma & Ba 2015)."""

    lr: float = 1e-3
    """Learning rate."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """Decay of the two running moments."""
    weight_decay: float = 0.0
    """L2 penalty."""

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> Optimizer:
        """Return the optimiser of these parameters."""
        kind = torch.optim.AdamW if isinstance(self, AdamW) else torch.optim.Adam
        return kind(parameters, lr=self.lr, betas=(self.betas[0], self.betas[1]), weight_decay=self.weight_decay)


@dataclass
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    weight_decay: float = 1e-2
    """Decoupled weight decay."""


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
        """Return the optimiser of these parameters."""
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.momentum > 0
        )


OptimizerConfig = Adam | AdamW | SGD

#: Optimisers by their name in a config.
OPTIMIZERS: dict[str, type[OptimizerConfig]] = {"adam": Adam, "adamw": AdamW, "sgd": SGD}


def require_validation(schedule: str | None, early_stopping: bool) -> None:
    """Raise an error for a training without validation volumes whose schedule or early stopping needs the metric.

    Parameters
    ----------
    schedule : str, optional
        Schedule of the learning rate.
    early_stopping : bool
        Whether the validation metric may end the training.

    Raises
    ------
    InputError
        The message names the key.
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
    """Return the errors of a config's values, one line each, beginning with the key."""
    reference, warmup = config.reference_batch, config.warmup_steps
    checks = [
        (0 < config.lr < math.inf, f"lr: expected a positive number, got {config.lr}"),
        (reference is None or reference >= 1, f"reference_batch: expected 1 or more, or null, got {reference}"),
        (
            reference is None or config.lr_scale != "none",
            "reference_batch: only with lr_scale: linear or sqrt; choose one of them, or leave it out",
        ),
        (warmup >= 0, f"warmup_steps: expected 0 or more, got {warmup}"),
        (
            config.schedule != "plateau" or not warmup,
            "warmup_steps: not with schedule: plateau; choose cosine, poly or constant, or set it to 0",
        ),
        *(
            (getattr(config, key) >= 0, f"{key}: expected 0 or more, got {getattr(config, key)}")
            for key in ("patience", "weight_decay", "power")
        ),
        (0 <= config.lr_min_ratio <= 1, f"lr_min_ratio: expected a number from 0 to 1, got {config.lr_min_ratio}"),
        (0 < config.factor < 1, f"factor: expected a number between 0 and 1, got {config.factor}"),
    ]
    if isinstance(config, SGD):
        checks.append(
            (0 <= config.momentum < 1, f"momentum: expected a number from 0 to below 1, got {config.momentum}")
        )
    else:
        valid = len(config.betas) == 2 and all(0 <= b < 1 for b in config.betas)
        checks.append((valid, f"betas: expected two numbers from 0 to below 1, got {config.betas}"))
    return failed(checks)


def scaled_rate(config: OptimizerConfig, samples: int, batch_size: int) -> float:
    """Return the learning rate for a number of samples per step, by `lr_scale`.

    Parameters
    ----------
    config : OptimizerConfig
        Valid optimiser options.
    samples : int
        Samples per step over all ranks, accumulated batches included.
    batch_size : int
        Samples per step on one device, which replace a missing `reference_batch`.
    """
    times = samples / (config.reference_batch or batch_size)
    return config.lr * {"none": 1.0, "linear": times, "sqrt": math.sqrt(times)}[config.lr_scale]


def learning_rate_scale(config: Schedule, total_steps: float) -> Callable[[int], float]:
    """Return a function from step to multiplier of the learning rate: linear warm-up, then the schedule."""

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
    """Return the optimiser and the schedule as `LightningModule.configure_optimizers` must.

    Parameters
    ----------
    config : OptimizerConfig
        Optimiser and schedule options.
    parameters : iterable of Parameter
        Parameters, or groups of them, to optimise.
    total_steps : float
        Optimiser steps of the whole run (inf if only a time limits it).
    monitor : str
        Validation metric, larger is better. The module itself steps the plateau schedule after each validation.
    """
    optimizer = config.build(parameters)
    if config.schedule == "plateau":
        plateau = ReduceLROnPlateau(optimizer, mode="max", factor=config.factor, patience=config.patience)
        # Lightning saves its state but never steps it: with a validation every n-th epoch it would step one epoch too
        # early, and always after the checkpoint of that epoch is written
        schedule = {"scheduler": plateau, "monitor": monitor, "interval": "epoch", "frequency": sys.maxsize}
    else:
        schedule = {"scheduler": LambdaLR(optimizer, learning_rate_scale(config, total_steps)), "interval": "step"}
    return {"optimizer": optimizer, "lr_scheduler": schedule}
