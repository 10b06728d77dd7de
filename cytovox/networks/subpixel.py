"""Upsampling followed by a convolution, computed as one convolution on the coarse grid.

A transposed convolution whose kernel size is its stride, concatenation with an image on the fine grid and a 3x3x3
convolution form a linear map. Its value at a fine voxel depends on the coarse voxel that contains it, on the nearest
neighbours of that coarse voxel, and on the fine voxels around it. Each position of a fine voxel within its coarse voxel
(a phase) is therefore an output channel of a 2x2x2 convolution on the coarse grid. The features on the fine grid are
never computed. This is the sub-pixel convolution of Shi et al., with weights computed from those of both convolutions.
Results differ by rounding only.

References
----------
Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
Network, CVPR 2016, arXiv 1609.05158.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import product
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.functional import conv3d, pad

Shape = tuple[int, int, int]


def fits(up: nn.ConvTranspose3d, conv: nn.Conv3d) -> bool:
    """Return whether `upsample_and_convolve` works for these two modules, with fewer operations."""
    return (
        max(up.stride) == 2
        and up.kernel_size == up.stride
        and up.groups == conv.groups == 1
        and not any((*up.padding, *up.output_padding))
        and conv.kernel_size == (3, 3, 3)
        and (conv.stride, conv.dilation, conv.padding) == ((1, 1, 1),) * 3
    )


def upsample_and_convolve(
    coarse_BCZYX: torch.Tensor, image_BCZYX: torch.Tensor, up: nn.ConvTranspose3d, conv: nn.Conv3d
) -> torch.Tensor:
    """Return ``conv(torch.cat([up(coarse), image], dim=1))``.

    Parameters
    ----------
    coarse_BCZYX : tensor, (B, C, Z, Y, X)
        Features.
    image_BCZYX : tensor, (B, I, s Z, s Y, s X)
        Image on the fine grid; s are the strides of `up`.
    up, conv : modules
        Modules for which `fits` is true.

    Returns
    -------
    tensor, (B, K, s Z, s Y, s X)
        In torch's default memory layout.
    """
    strides = (up.stride[0], up.stride[1], up.stride[2])
    kind = coarse_BCZYX.device.type
    # in float32, so that weights are rounded only once
    with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):
        weight, bias = _coarse_weight(up, conv, strides)
    ones = coarse_BCZYX.new_ones(()).expand(len(coarse_BCZYX), 1, *coarse_BCZYX.shape[2:])
    image = _phases_to_channels(image_BCZYX, strides).to(coarse_BCZYX.dtype)
    if not coarse_BCZYX.is_contiguous():  # tensors of different layouts would be copied once more
        image, ones = (part.contiguous(memory_format=torch.channels_last_3d) for part in (image, ones))
    joined = torch.cat([coarse_BCZYX, image, ones], dim=1)
    return _Interleave.apply(conv3d(joined, weight, bias, padding=1), strides)


def _coarse_weight(up: nn.ConvTranspose3d, conv: nn.Conv3d, strides: Shape) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the weight (phases x K, C + phases x I + 1, k, k, k) and the bias.

    k is 2 along axes of stride 2 and 3 along axes of stride 1. The weights are the responses to impulses, one in each
    input channel, in the middle of 3x3x3 coarse voxels. The last input channel is 1 everywhere. Its impulse is the bias
    of `up`, which is 0 outside of the volume.
    """
    wide = up.out_channels
    images = (conv.in_channels - wide) * prod(strides)
    shift = conv.weight.new_zeros((1, wide, *strides)) if up.bias is None else up.bias.view(1, wide, 1, 1, 1)
    features = torch.cat([up.weight, conv.weight.new_zeros((images, wide, *strides)), shift.expand(1, wide, *strides)])
    eye = torch.eye(images, dtype=conv.weight.dtype, device=conv.weight.device)
    impulses = pad(eye.view(images, conv.in_channels - wide, *strides), (0, 0) * 4 + (up.in_channels, 1))
    fine = torch.cat([features, impulses], dim=1)
    sides = [side for stride in reversed(strides) for side in (stride, stride)]
    response = conv3d(pad(fine, sides), conv.weight, padding=1)
    response = response.unflatten(4, (3, -1)).unflatten(3, (3, -1)).unflatten(2, (3, -1))  # (3, s) for each axis
    size = tuple(2 if stride == 2 else 3 for stride in strides)
    parts = []
    for z, y, x in product(*map(range, strides)):
        taps = response[:, :, :, z, :, y, :, x].flip(2, 3, 4)  # a convolution kernel is the mirrored response
        parts.append(taps[:, :, z : z + size[0], y : y + size[1], x : x + size[2]].transpose(0, 1))
    weight = torch.cat(parts)
    return weight, conv.bias if conv.bias is None else conv.bias.repeat(len(parts))


def _phases_to_channels(fine: torch.Tensor, strides: Shape) -> torch.Tensor:
    """Return (B, I x phases, Z, Y, X) of (B, I, s Z, s Y, s X)."""
    z, y, x = strides
    split = fine.unflatten(4, (-1, x)).unflatten(3, (-1, y)).unflatten(2, (-1, z))
    return split.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


class _Interleave(torch.autograd.Function):
    """Copies phases (B, phases x K, Z + 1, Y + 1, X + 1) to their positions in (B, K, s Z, s Y, s X).

    Along an axis of stride 2, the lower phase starts at index 0 and the upper phase at index 1, because their kernels
    are shifted by half a coarse voxel to either side. An axis of stride 1 has one phase, of length Z.
    """

    @staticmethod
    def forward(ctx: Any, phases: torch.Tensor, strides: Shape) -> torch.Tensor:
        ctx.shape, ctx.strides = phases.shape, strides
        grid = [s * (n - s + 1) for n, s in zip(phases.shape[2:], strides, strict=True)]
        fine = phases.new_empty((len(phases), phases.shape[1] // prod(strides), *grid))
        for source, target in _phase_views(phases, fine, strides):
            target.copy_(source)
        return fine

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        back = grads[0].new_zeros(ctx.shape)
        for source, target in _phase_views(back, grads[0], ctx.strides):
            source.copy_(target)
        return back, None


def _phase_views(
    phases: torch.Tensor, fine: torch.Tensor, strides: Shape
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield views of each phase in both tensors."""
    channels = fine.shape[1]
    sizes = [n // s for n, s in zip(fine.shape[2:], strides, strict=True)]
    for index, (z, y, x) in enumerate(product(*map(range, strides))):
        source = phases[:, index * channels : (index + 1) * channels]
        source = source[:, :, z : z + sizes[0], y : y + sizes[1], x : x + sizes[2]]
        yield source, fine[:, :, z :: strides[0], y :: strides[1], x :: strides[2]]
