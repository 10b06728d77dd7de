"""Precision plugins of Lightning for a device."""

from __future__ import annotations

import torch
from pytorch_lightning.plugins.precision import MixedPrecision

from cytovox.inference.device import uses_cuda


def cpu_mixed_precision(precision: str, accelerator: str) -> MixedPrecision | None:
    """Return the plugin that computes 16-mixed on a CPU, or None where Lightning's own reading of `precision` is right.

    Lightning replaces 16-mixed on a CPU by bf16-mixed with a warning. Torch computes it there, slowly, and scales the
    gradients as on a GPU: a run that a V100 began can be continued or tested without one.

    Parameters
    ----------
    precision : str
        As `choose_precision` returns it.
    accelerator : str
        As in `trainer.accelerator`.
    """
    other = uses_cuda(accelerator) or (accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available())
    if precision != "16-mixed" or other or accelerator not in ("auto", "cpu"):
        return None
    return MixedPrecision("16-mixed", "cpu")
