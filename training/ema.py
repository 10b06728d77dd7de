"""The exponential average of weights, with a warm-up for short runs; no update waits for the device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch.optim.swa_utils import AveragedModel

#: From the number of updates so far to the weight of the past at the next one.
Decay = Callable[[int], float]


class ExponentialAverage(AveragedModel):
    """torch's averaged model, with the number of updates known to the host.

    torch's own reads `n_averaged` back from the device at every update to know whether it is the first. Here the host
    counts along; it reads the number once, when a state is loaded. The state has torch's own names.

    Parameters
    ----------
    model : Module
        What is averaged; parameters and buffers. Integer buffers, which count, are copied.
    device : torch.device
        Of the average.
    decay : callable
        Number of updates so far, 1 or more, to the weight of the past, 0 to 1. The first update is a copy.
    """

    def __init__(self, model: torch.nn.Module, device: torch.device, decay: Decay) -> None:
        super().__init__(model, device=device, use_buffers=True)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update_parameters(self, model: torch.nn.Module) -> None:
        """Take up the weights of a model of the same structure, on the same device."""
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        averaged = [pair for pair in pairs if self.updates and pair[0].is_floating_point()]
        copied = [pair for pair in pairs if not (self.updates and pair[0].is_floating_point())]
        if averaged:
            past, new = (list(side) for side in zip(*averaged, strict=True))
            torch._foreach_lerp_(past, new, 1 - self.decay(self.updates))
        for own, other in copied:
            own.copy_(other)
        self.n_averaged += 1
        self.updates += 1

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As of a module; and know how many updates the state has seen."""
        result = super().load_state_dict(state_dict, strict, assign)
        self.updates = int(self.n_averaged)
        return result


def _tensors(model: torch.nn.Module) -> itertools.chain[torch.Tensor]:
    return itertools.chain((p.detach() for p in model.parameters()), (b.detach() for b in model.buffers()))


class EMAWeightAveraging(WeightAveraging):
    """Exponential average of weights and buffers: validated, tested and shipped instead of the last ones.

    Named as Lightning's, whose checkpoints it continues.

    Parameters
    ----------
    decay : float
        Weight of the past at each update.
    update_every_n_steps, update_starting_at_step : int
        Which optimiser steps count.
    """

    def __init__(self, decay: float, update_every_n_steps: int = 1, update_starting_at_step: int = 0) -> None:
        super().__init__()
        self.decay, self.every, self.start = decay, update_every_n_steps, update_starting_at_step

    def weight_of_the_past(self, updates: int) -> float:
        """At the update after so many."""
        return self.decay

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After every n-th step from the first that counts."""
        return step_idx is not None and step_idx >= self.start and step_idx % self.every == 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin the average of a fit, on the module's device."""
        if stage == "fit":
            self._average_model = ExponentialAverage(pl_module, pl_module.device, self.weight_of_the_past)


class WarmEMAWeightAveraging(EMAWeightAveraging):
    """The same, but the past weighs (1 + n) / (10 + n) after n updates until that reaches the decay.

    A decay of 0.999 remembers the untrained weights for thousands of steps; a short run would end with them. The rule
    is that of TensorFlow's ExponentialMovingAverage with `num_updates`.
    """

    def weight_of_the_past(self, updates: int) -> float:
        """At the update after so many."""
        return min(self.decay, (1 + updates) / (10 + updates))


def take_average(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Give a module the average, as a training's end does: one that is resumed after its last epoch has none."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging) and callback._average_model is not None:
            callback._copy_average_to_current(module)


def ema_callback(config: Any) -> WeightAveraging:
    """The callback that a config's `trainer.ema` asks for."""
    kind = WarmEMAWeightAveraging if config.warmup else EMAWeightAveraging
    return kind(config.decay, config.update_every_n_steps, config.update_starting_at_step)
