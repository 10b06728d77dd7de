"""The exponential average of weights, with a warm-up for short runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, WeightAveraging

#: An average, a new value and how many were averaged, to the new average.
Average = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | int], torch.Tensor]


class WarmEMAWeightAveraging(WeightAveraging):
    """Lightning's average, but the past weighs (1 + n) / (10 + n) of n updates until that reaches the decay.

    A decay of 0.999 remembers the untrained weights for thousands of steps; a short run would end with them. The rule
    is that of TensorFlow's ExponentialMovingAverage with `num_updates`.

    Parameters
    ----------
    decay : float
        Weight of the past at each update, in the end.
    update_every_n_steps, update_starting_at_step : int
        As for Lightning's `EMAWeightAveraging`.
    """

    def __init__(self, decay: float, update_every_n_steps: int = 1, update_starting_at_step: int = 0) -> None:
        super().__init__(avg_fn=warm_average(decay))
        self.every, self.start = update_every_n_steps, update_starting_at_step

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After every n-th step from the first that counts."""
        return step_idx is not None and step_idx >= self.start and step_idx % self.every == 0


def warm_average(decay: float) -> Average:
    """How an average takes up a new value."""

    def average(past: torch.Tensor, new: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        n = int(count)
        share = min(decay, (1 + n) / (10 + n))
        return share * past + (1 - share) * new  # no lerp: buffers may count in whole numbers

    return average


def take_average(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Give a module the average, as a training's end does: one that is resumed after its last epoch has none."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging) and callback._average_model is not None:
            callback._copy_average_to_current(module)


def ema_callback(config: Any) -> WeightAveraging:
    """The callback that a config's `trainer.ema` asks for."""
    options = {
        "decay": config.decay,
        "update_every_n_steps": config.update_every_n_steps,
        "update_starting_at_step": config.update_starting_at_step,
    }
    return WarmEMAWeightAveraging(**options) if config.warmup else EMAWeightAveraging(**options)
