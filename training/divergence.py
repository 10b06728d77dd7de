"""A training that diverges ends with an error, and its last finite weights are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from cytovox.errors import InputError
from cytovox.models.finite import first_nonfinite

#: The loss scale of 16-mixed below which gradients are lost: fairseq's `min_loss_scale` (Ott et al. 2019). From the
#: initial 65,536 it takes 30 steps in a row that overflow.
LEAST_SCALE = 1e-4

#: More than any step.
_NEVER = 2**62


class DivergenceError(InputError):
    """The loss or the weights of a training became NaN or infinite; the run failed, so the exit code is 1."""

    exit_code = 1


class DivergenceCheck(pl.Callback):
    """Ends a fit whose loss or weights are no longer finite, before that is written to a checkpoint.

    The step of the first loss that is not finite is kept on the device, without a read in any step. It is read where
    metrics are logged, before a validation, before a checkpoint and at the end. The ranks agree at each of these, so
    that all of them end. In 16-mixed the loss is not looked at: where float16 overflows in the forward pass it is NaN
    or infinite, the gradient scaler skips that step and lowers its scale, and the weights stay finite. A scale below
    `LEAST_SCALE` is a divergence, since no step is taken any more.

    Parameters
    ----------
    checkpoint : Path
        The last checkpoint of the run, named in the error where it exists.

    Raises
    ------
    DivergenceError
        From the hooks, on every rank.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self._first: torch.Tensor | None = None
        self._checked = -1

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Mapping[str, Any]
    ) -> None:
        """Refuse to continue from weights that are not finite."""
        name = _nonfinite_weight(pl_module, checkpoint)
        if name is not None:
            raise DivergenceError(
                f"{self.checkpoint}: weights are NaN or infinite (first: {name}); start again from other weights"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with no bad step."""
        self._first, self._checked = None, -1

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor) -> None:
        """Note on the device whether this loss is finite, where no gradient scaler skips the step if it is not."""
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        if self._first is None:
            self._first = torch.full((), _NEVER, dtype=torch.int64, device=loss.device)
        bad = ~torch.isfinite(loss.detach()).all() & (self._first == _NEVER)
        self._first = self._first.masked_fill(bad, trainer.global_step)  # numbers travel as arguments of the kernels

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any) -> None:
        """Read where metrics are logged."""
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step % every == 0 and step != self._checked:
            self._checked = step
            self._check(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """No validation of weights that are not finite."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._check(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The steps after the last read."""
        self._check(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Mapping[str, Any]
    ) -> None:
        """Write no weights that are not finite, averaged ones included; every rank comes here, and none has written."""
        self._check(trainer)
        name = _nonfinite_weight(pl_module, checkpoint)
        if trainer.strategy.reduce_boolean_decision(name is not None, all=False):
            raise self._error(trainer, f"weights are NaN or infinite after step {trainer.global_step} ({name})")

    def _check(self, trainer: pl.Trainer) -> None:
        if self._first is not None:
            first = int(trainer.strategy.reduce(self._first.clone(), reduce_op="min"))
            if first < _NEVER:
                raise self._error(trainer, f"the loss of step {first} is NaN or infinite")
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and scaler.get_scale() < LEAST_SCALE:
            reason = f"the loss scale of 16-mixed fell below {LEAST_SCALE:g}: every step overflows"
            raise self._error(trainer, f"{reason}, up to step {trainer.global_step}")

    def _error(self, trainer: pl.Trainer, reason: str) -> DivergenceError:
        kept = "no checkpoint was written yet"
        again = "start again"
        if self.checkpoint.is_file():
            kept = f"the checkpoint before it is kept: {self.checkpoint}"
            again = "start again, with init_from= if those weights are of use"
        return DivergenceError(
            f"training diverged: {reason} (epoch {trainer.current_epoch}); {kept}; {again}; try a lower optimizer.lr, "
            "optimizer.warmup_steps or trainer.gradient_clip_val=1.0"
        )


def _nonfinite_weight(module: pl.LightningModule, checkpoint: Mapping[str, Any]) -> str | None:
    """The first parameter or buffer of the networks that is not finite, averaged ones included.

    Buffers of the module itself may be NaN on purpose: a table of costs that were not measured.
    """
    learned = {name for name, _ in module.named_parameters()}
    learned |= {name for name, _ in module.named_buffers() if "." in name}
    for key in ("state_dict", "current_model_state"):
        state = checkpoint.get(key) or {}
        name = first_nonfinite({name: value for name, value in state.items() if name in learned})
        if name is not None:
            return name
    return None
