"""The CUDA kernels of synchronised batch normalisation, as plain functions on the CPU."""

from __future__ import annotations

import pytest
import torch


def _wide(values: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor | float:
    return 1.0 if values is None else values.view(1, -1, *[1] * (like.ndim - 2))


def stats(x, eps):
    dims = [0, *range(2, x.ndim)]
    variance, mean = torch.var_mean(x.float(), dims, correction=0)
    return mean, torch.where((variance == 0) & (eps == 0), 0.0, (variance + eps).rsqrt())


def elemt(x, weight, bias, mean, invstd, eps):
    y = (x.float() - _wide(mean, x)) * _wide(invstd, x) * _wide(weight, x)
    return (y + (0.0 if bias is None else _wide(bias, x))).to(x.dtype)


def backward_reduce(grad, x, mean, invstd, weight, input_g, weight_g, bias_g):
    dims = [0, *range(2, x.ndim)]
    return grad.float().sum(dims), (grad.float() * (x.float() - _wide(mean, x))).sum(dims), None, None


def backward_elemt(grad, x, mean, invstd, weight, sum_dy, sum_dy_xmu, count):
    n = count.sum()
    centred = grad.float() - _wide(sum_dy, x) / n
    centred = centred - (x.float() - _wide(mean, x)) * _wide(invstd, x) ** 2 * _wide(sum_dy_xmu, x) / n
    return (centred * _wide(invstd, x) * _wide(weight, x)).to(x.dtype)


def install(patch: pytest.MonkeyPatch) -> None:
    """Put them in the place of torch's."""
    patch.setattr(torch, "batch_norm_stats", stats)
    patch.setattr(torch, "batch_norm_elemt", elemt)
    patch.setattr(torch, "batch_norm_backward_reduce", backward_reduce)
    patch.setattr(torch, "batch_norm_backward_elemt", backward_elemt)
