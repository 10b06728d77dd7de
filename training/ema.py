"""Exponential moving average of weights, with a warm-up for short runs and without waiting for the device."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch.optim.swa_utils import AveragedModel

#: Returns the weight of the past at the next update, by the number of updates so far.
Decay = Callable[[int], float]


class ExponentialAverage(AveragedModel):
    """torch's averaged model with the number of updates on the host.

    `AveragedModel` reads `n_averaged` from the device at every update. Here the host keeps its own count, and reads
    `n_averaged` only when a state is loaded. The names in the state are those of `AveragedModel`.

    Parameters
    ----------
    model : Module
        Model whose parameters and buffers are averaged. Integer buffers are copied.
    device : torch.device
        Device of the average.
    decay : callable
        Returns the weight of the past, 0 to 1, by the number of updates so far, 1 or more. The first update is a copy.
    """

    def __init__(self, model: torch.nn.Module, device: torch.device, decay: Decay) -> None:
        super().__init__(model, device=device, use_buffers=True)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update_parameters(self, model: torch.nn.Module) -> None:
        """Update the average with the weights of a model of the same structure, on the same device."""
        past, new = list[torch.Tensor](), list[torch.Tensor]()
        for own, other in zip(_tensors(self.module), _tensors(model), strict=True):
            if self.updates and own.is_floating_point():
                past.append(own)
                new.append(other)
            else:
                own.copy_(other)
        if past:
            torch._foreach_lerp_(past, new, 1 - self.decay(self.updates))
        self.n_averaged += 1
        self.updates += 1

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state and its number of updates."""
        result = super().load_state_dict(state_dict, strict, assign)
        self.updates = int(self.n_averaged)
        return result


def _tensors(model: torch.nn.Module) -> itertools.chain[torch.Tensor]:
    return itertools.chain((p.detach() for p in model.parameters()), (b.detach() for b in model.buffers()))


class EMAWeightAveraging(WeightAveraging):
    """Exponential average of weights and buffers, used in validation, test and export instead of the last weights.

    The class has the name of Lightning's own, so that it can load the checkpoints of that.

    Parameters
    ----------
    decay : float
        Weight of the past at each update.
    update_every_n_steps, update_starting_at_step : int
        Steps between updates, and first step with an update.
    """

    def __init__(self, decay: float, update_every_n_steps: int = 1, update_starting_at_step: int = 0) -> None:
        super().__init__()
        self.decay, self.every, self.start = decay, update_every_n_steps, update_starting_at_step

    def weight_of_the_past(self, updates: int) -> float:
        """Return the weight of the past at the next update, by the number of updates so far."""
        return self.decay

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether to update after this step."""
        return step_idx is not None and step_idx >= self.start and step_idx % self.every == 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Create the average of a training, on the device of the module."""
        if stage == "fit":
            self._average_model = ExponentialAverage(pl_module, pl_module.device, self.weight_of_the_past)


class WarmEMAWeightAveraging(EMAWeightAveraging):
    """Exponential average whose weight of the past grows as (1 + n) / (10 + n) with n updates, up to the decay.

    With a constant decay of 0.999, the untrained weights would dominate the average for thousands of steps. The rule is
    that of TensorFlow's ExponentialMovingAverage with `num_updates`.
    """

    def weight_of_the_past(self, updates: int) -> float:
        """Return the weight of the past at the next update, by the number of updates so far."""
        return min(self.decay, (1 + updates) / (10 + updates))


def take_average(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Copy the average into a module, for a run resumed after its last epoch: there Lightning does not copy it."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging) and callback._average_model is not None:
            callback._copy_average_to_current(module)


def ema_callback(config: Any) -> WeightAveraging:
    """Return the callback for `trainer.ema` of a config."""
    kind = WarmEMAWeightAveraging if config.warmup else EMAWeightAveraging
    return kind(config.decay, config.update_every_n_steps, config.update_starting_at_step)
