"""Instance normalisation that keeps the layout of its input, and fills a GPU.

torch's own copies a ``channels_last_3d`` tensor into its default layout first, and what comes out of it stays there:
the next convolution then copies it back. On CPUs that took as long as the convolutions between.

On a GPU torch's own computes one channel of one sample per block of threads: 36 channels of a 64x128x128 patch occupy
36 of a V100's 80 multiprocessors, and normalisation took half of a training step of ScNAS (benchmarks/gpu.py,
`profile`). Here the voxels of a channel are split among many blocks, whose means and variances are merged in float32.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd import Function
from torch.nn.functional import group_norm

#: With fewer voxels than this, torch's kernel for groups walks a channels-last tensor voxel by voxel (2.13: slower).
LEAST_VOXELS = 1024
#: Blocks of threads that fill a large GPU several times over.
_BLOCKS = 2048
#: Fewest voxels that are worth a block of their own.
_BLOCK_VOXELS = 2048

_LAST = torch.channels_last_3d


class InstanceNorm3d(nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` that gives ``channels_last_3d`` back as such; parameters and results are the same.

    Where nothing learns, 16-bit tensors on CPUs are normalised in that layout, too: as one group a channel. (With
    gradients this would be slower: torch's kernel for groups has a backward pass that is not made for the layout. And
    it takes the variance as a difference of sums in float32, far finer than 16 bits but not than 32.)
    """

    def forward(self, x_BCZYX: torch.Tensor) -> torch.Tensor:
        """Each channel of each sample with mean 0 and variance 1, then scaled and shifted."""
        last = not x_BCZYX.is_contiguous() and x_BCZYX.is_contiguous(memory_format=_LAST)
        if x_BCZYX.is_cuda and (last or x_BCZYX.is_contiguous()) and not torch.compiler.is_compiling():
            normalised: torch.Tensor = FastInstanceNorm.apply(x_BCZYX, self.weight, self.bias, self.eps)
            return normalised
        if not last:
            return super().forward(x_BCZYX)
        short = x_BCZYX.device.type == "cpu" and x_BCZYX.dtype in (torch.bfloat16, torch.float16)
        learns = torch.is_grad_enabled() and (x_BCZYX.requires_grad or self.affine)
        if short and not learns and x_BCZYX[0, 0].numel() >= LEAST_VOXELS:
            return group_norm(x_BCZYX, self.num_features, self.weight, self.bias, self.eps)
        return super().forward(x_BCZYX).contiguous(memory_format=_LAST)


class FastInstanceNorm(Function):
    """Instance normalisation on a GPU by the kernels of synchronised batch normalisation.

    Those compute statistics, apply them, and sum the gradients in separate calls, so the same statistics can be merged
    over parts of a channel. A contiguous tensor (B, C, Z, Y, X) is seen as one sample of B x C x S channels with 1 / S
    of the voxels each; a ``channels_last_3d`` tensor is computed sample by sample, for which torch has kernels that
    already share a channel among blocks.
    """

    @staticmethod
    def forward(
        ctx: Any, x_BCZYX: torch.Tensor, weight_C: torch.Tensor | None, bias_C: torch.Tensor | None, eps: float
    ) -> torch.Tensor:
        """Return the normalised tensor, in the layout and dtype of the input.

        Parameters
        ----------
        x_BCZYX : float tensor, (B, C, Z, Y, X)
            Contiguous, or contiguous in ``channels_last_3d``.
        weight_C, bias_C : float tensor, (C,), optional
            Scale and shift.
        eps : float
            Added to the variance.
        """
        parts, split = _parts(x_BCZYX)
        mean_BC, variance_BC = _merged(*_moments(parts, x_BCZYX.shape[:2], split))
        inverse_BC = torch.rsqrt(variance_BC + eps)
        outputs = [
            torch.batch_norm_elemt(part, weight, bias, mean, inverse, eps)
            for part, mean, inverse, weight, bias in zip(
                parts,
                _per_part(mean_BC, parts, split),
                _per_part(inverse_BC, parts, split),
                _weights(weight_C, parts, split, x_BCZYX.shape[:2]),
                _weights(bias_C, parts, split, x_BCZYX.shape[:2]),
                strict=True,
            )
        ]
        ctx.save_for_backward(x_BCZYX, weight_C, mean_BC, inverse_BC)
        return _whole(outputs, x_BCZYX)

    @staticmethod
    def backward(ctx: Any, grad_BCZYX: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of the input, the scale and the shift."""
        x_BCZYX, weight_C, mean_BC, inverse_BC = ctx.saved_tensors
        parts, split = _parts(x_BCZYX)
        layout = torch.contiguous_format if x_BCZYX.is_contiguous() else _LAST
        grads, _ = _parts(grad_BCZYX.contiguous(memory_format=layout))
        shape = x_BCZYX.shape[:2]
        means, inverses = _per_part(mean_BC, parts, split), _per_part(inverse_BC, parts, split)
        weights = _weights(weight_C, parts, split, shape)
        sums = [
            torch.batch_norm_backward_reduce(grad, part, mean, inverse, weight, True, False, False)[:2]
            for grad, part, mean, inverse, weight in zip(grads, parts, means, inverses, weights, strict=True)
        ]
        # float32 sums of the gradient, and of the gradient times the distance from the mean
        plain_BC, moment_BC = (torch.stack(kind).view(*shape, split).sum(2) for kind in zip(*sums, strict=True))
        grad_x = None
        if ctx.needs_input_grad[0]:
            count = torch.full((1,), x_BCZYX[0, 0].numel(), dtype=torch.int32, device=x_BCZYX.device)
            made = [
                torch.batch_norm_backward_elemt(grad, part, mean, inverse, weight, plain, moment, count)
                for grad, part, mean, inverse, weight, plain, moment in zip(
                    grads,
                    parts,
                    means,
                    inverses,
                    weights,
                    _per_part(plain_BC, parts, split),
                    _per_part(moment_BC, parts, split),
                    strict=True,
                )
            ]
            grad_x = _whole(made, x_BCZYX)
        grad_weight = (moment_BC * inverse_BC).sum(0) if ctx.needs_input_grad[1] else None
        grad_bias = plain_BC.sum(0) if ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias, None


def _parts(x_BCZYX: torch.Tensor) -> tuple[list[torch.Tensor], int]:
    """Return the tensor as samples (1, channels, ...) that the kernels are called with, and the parts of a channel."""
    if not x_BCZYX.is_contiguous():
        return list(x_BCZYX.split(1)), 1
    planes, voxels = x_BCZYX.shape[0] * x_BCZYX.shape[1], x_BCZYX[0, 0].numel()
    split = 1
    while planes * split < _BLOCKS and voxels % (2 * split) == 0 and voxels // (2 * split) >= _BLOCK_VOXELS:
        split *= 2
    return [x_BCZYX.view(1, planes * split, voxels // split)], split


def _moments(parts: list[torch.Tensor], shape: torch.Size, split: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return float32 mean and variance (B, C, split) of each part of each channel."""
    # an eps of 0 keeps the variance exact; the inverse deviation of a constant part is then given as 0
    found = [torch.batch_norm_stats(part, 0.0) for part in parts]
    mean, inverse = (torch.stack(kind).view(*shape, split) for kind in zip(*found, strict=True))
    variance = torch.where((inverse > 0) & inverse.isfinite(), inverse, torch.inf).square().reciprocal()
    return mean, variance


def _merged(mean_BCS: torch.Tensor, variance_BCS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance (B, C) of the union of parts of one size (Chan et al. 1983)."""
    mean_BC = mean_BCS.mean(2)
    return mean_BC, variance_BCS.mean(2) + (mean_BCS - mean_BC[:, :, None]).square().mean(2)


def _per_part(values_BC: torch.Tensor, parts: list[torch.Tensor], split: int) -> list[torch.Tensor]:
    """Return the values (B, C) in the channels of each part."""
    return list(values_BC.repeat_interleave(split, dim=1).reshape(len(parts), -1).unbind(0))


def _weights(
    values_C: torch.Tensor | None, parts: list[torch.Tensor], split: int, shape: torch.Size
) -> list[torch.Tensor] | list[None]:
    """Return the scale or shift (C,) in the channels of each part; None of a norm that has none."""
    return [None] * len(parts) if values_C is None else _per_part(values_C.expand(shape), parts, split)


def _whole(parts: list[torch.Tensor], like_BCZYX: torch.Tensor) -> torch.Tensor:
    """Return the parts as one tensor of the shape and layout of the input."""
    if like_BCZYX.is_contiguous():
        return parts[0].view(like_BCZYX.shape)
    return parts[0] if len(parts) == 1 else torch.cat(parts).contiguous(memory_format=_LAST)


def keep_layout(network: nn.Module) -> nn.Module:
    """Put `InstanceNorm3d` in the place of torch's, in place; names and values of parameters stay.

    One that keeps running statistics is left alone.
    """
    for name, child in network.named_children():
        if type(child) is nn.InstanceNorm3d and not child.track_running_stats:
            norm = InstanceNorm3d(child.num_features, child.eps, affine=child.affine)
            norm.load_state_dict(child.state_dict())
            setattr(network, name, norm)
        else:
            keep_layout(child)
    return network
