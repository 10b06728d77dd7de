"""Limit a dry run to one evaluation of the network per input size: every stage is tried in little time."""

from typing import Any

import torch
from torch import nn

#: Largest number of sampler steps and of samples in a dry run.
STEPS, SAMPLES = 2, 2


def limit_evaluations(network: nn.Module) -> None:
    """Make a network in evaluation mode return zeros from the second input of each size on.

    A volume has hundreds of windows and a cell thousands of sampler steps, each of which takes seconds on a CPU. One of
    each size shows whether it runs. Training mode is unchanged.

    Parameters
    ----------
    network : Module
        Network whose output has the batch size of its input. Its `forward` is replaced.
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
