"""A dry run evaluates a network once for each size of input: every step is tried, and none is waited for."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

#: Sampler steps and samples of a dry run at most.
STEPS, SAMPLES = 2, 2


def limit_evaluations(network: nn.Module) -> None:
    """Answer with zeros, in evaluation mode, from the second input of each size on; training is not touched.

    A volume has hundreds of windows, a cell thousands of sampler steps, each seconds long on a CPU: one of each size
    shows whether it runs.

    Parameters
    ----------
    network : Module
        Takes a batch, and answers with one of the same length. It is changed.
    """
    forward, known = network.forward, dict[Any, tuple[torch.Size, torch.dtype]]()

    def limited(*inputs: Any, **more: Any) -> Any:
        if network.training or not inputs or not isinstance(inputs[0], torch.Tensor):
            return forward(*inputs, **more)
        size = tuple(value.shape[1:] for value in inputs if isinstance(value, torch.Tensor))
        if size in known:
            shape, dtype = known[size]
            return torch.zeros((len(inputs[0]), *shape), dtype=dtype, device=inputs[0].device)
        answer = forward(*inputs, **more)
        if isinstance(answer, torch.Tensor) and len(answer) == len(inputs[0]):
            known[size] = answer.shape[1:], answer.dtype
        return answer

    network.forward = limited
