"""Detection of a training that diverges; its last finite weights are kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from cytovox.errors import InputError
from cytovox.models.weights_file import first_nonfinite

#: The loss scale of 16-mixed below which gradients are lost: fairseq's `min_loss_scale` (Ott et al. 2019). From the
#: initial 65,536 it takes 30 steps in a row that overflow.
LEAST_SCALE = 1e-4

#: A number larger than any step.
_NEVER = 2**62


class DivergenceError(InputError):
    """The loss or the weights of a training became NaN or infinite; exit code 1."""

    exit_code = 1


class DivergenceCheck(pl.Callback):
    """Stop a training whose loss or weights are no longer finite, before these weights are written to a checkpoint.

    The step of the first loss that is not finite is stored on the device, so that no step waits for it. It is read when
    metrics are logged, before a validation, before a checkpoint and at the end. The ranks exchange it each time, so
    that all of them stop. In 16-mixed the loss is not checked: if float16 overflows in the forward pass, the loss is
    NaN or infinite, the gradient scaler skips the step and lowers its scale, and the weights stay finite. A scale below
    `LEAST_SCALE` is a divergence, since every further step would be skipped.

    Parameters
    ----------
    checkpoint : Path
        The last checkpoint of the run; the error names it if it exists.

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
        if (name := _nonfinite_weight(pl_module, checkpoint)) is not None:
            raise DivergenceError(
                f"{self.checkpoint}: weights are NaN or infinite (first: {name}); start again from other weights"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the step of the first loss that is not finite."""
        self._first, self._checked = None, -1

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor) -> None:
        """Record on the device whether this loss is finite, unless a gradient scaler skips steps that are not."""
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        if self._first is None:
            self._first = torch.full((), _NEVER, dtype=torch.int64, device=loss.device)
        bad = ~torch.isfinite(loss.detach()).all() & (self._first == _NEVER)
        self._first = self._first.masked_fill(bad, trainer.global_step)  # without a copy to the device

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any) -> None:
        """Check in the steps in which metrics are logged."""
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step % every == 0 and step != self._checked:
            self._checked = step
            self._check(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check before a validation."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._check(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the steps since the last check."""
        self._check(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Mapping[str, Any]
    ) -> None:
        """Check loss and weights, averaged ones included; runs on every rank before any rank writes."""
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
            raise self._error(
                trainer,
                f"the loss scale of 16-mixed fell below {LEAST_SCALE:g}: every step overflows, up to step "
                f"{trainer.global_step}",
            )

    def _error(self, trainer: pl.Trainer, reason: str) -> DivergenceError:
        advice = "no checkpoint was written yet; start again"
        if self.checkpoint.is_file():
            advice = (
                f"the checkpoint before it is kept: {self.checkpoint}; start again, with init_from= if those weights "
                "are of use"
            )
        return DivergenceError(
            f"training diverged: {reason} (epoch {trainer.current_epoch}); {advice}; try a lower optimizer.lr, "
            "optimizer.warmup_steps or trainer.gradient_clip_val=1.0"
        )


def _nonfinite_weight(module: pl.LightningModule, checkpoint: Mapping[str, Any]) -> str | None:
    """Return the name of the first parameter or buffer of the networks that is not finite, averaged ones included.

    Buffers of the module itself are not checked: a table of costs is NaN where a cost was not measured.
    """
    learned = {name for name, _ in module.named_parameters()}
    learned |= {name for name, _ in module.named_buffers() if "." in name}
    states = (checkpoint.get(key) or {} for key in ("state_dict", "current_model_state"))
    names = (first_nonfinite({name: state[name] for name in state if name in learned}) for state in states)
    return next((name for name in names if name is not None), None)
