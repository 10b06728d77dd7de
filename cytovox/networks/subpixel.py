"""Upsampling and the convolution behind it, as one convolution on the coarse grid.

A transposed convolution whose kernel is its stride, joined with an image of the fine grid and convolved by 3x3x3, is
linear from end to end: what a fine voxel becomes depends on its coarse voxel, on that one's neighbours on its own side,
and on the fine voxels around it. So each of the fine voxels within a coarse one (a phase) is an output channel of a
2x2x2 convolution on the coarse grid, which never makes the wide fine grid between (Shi et al.'s sub-pixel convolution,
run backwards from the weights of the usual one). The same function to rounding.

References
----------
Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
Network, CVPR 2016, arXiv 1609.05158.
"""

from contextlib import nullcontext
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.nn.functional import conv3d, pad

Shape = tuple[int, int, int]


def fits(up: nn.ConvTranspose3d, conv: nn.Conv3d) -> bool:
    """Whether `upsample_and_convolve` can do these two, and with fewer operations."""
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
    """``conv(torch.cat([up(coarse), image], dim=1))``.

    Parameters
    ----------
    coarse_BCZYX : tensor, (B, C, Z, Y, X)
        Features.
    image_BCZYX : tensor, (B, I, s Z, s Y, s X)
        What is joined on the fine grid; s are the strides of `up`.
    up, conv : modules
        Two that `fits` allows.

    Returns
    -------
    tensor, (B, K, s Z, s Y, s X)
        In torch's own layout.
    """
    strides = (up.stride[0], up.stride[1], up.stride[2])
    kind = coarse_BCZYX.device.type
    with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):  # summed in float32, rounded once
        weight, bias = _coarse_weight(up, conv, strides)
    ones = coarse_BCZYX.new_ones(()).expand(len(coarse_BCZYX), 1, *coarse_BCZYX.shape[2:])
    image = _phases_to_channels(image_BCZYX, strides).to(coarse_BCZYX.dtype)
    if not coarse_BCZYX.is_contiguous():  # else what is joined would be in neither layout, and copied once more
        image, ones = (part.contiguous(memory_format=torch.channels_last_3d) for part in (image, ones))
    joined = torch.cat([coarse_BCZYX, image, ones], dim=1)
    phases = conv3d(joined, weight, bias, padding=1)
    return _Interleave.apply(phases, strides)


def _coarse_weight(up: nn.ConvTranspose3d, conv: nn.Conv3d, strides: Shape) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight (phases x K, C + phases x I + 1, k, k, k) and bias; k is 2 where the stride is 2, and 3 where it is 1.

    A linear map is known by what it makes of impulses: one in each input channel of the middle of 3x3x3 coarse voxels.
    The last channel is of ones: its impulse is the bias of `up`, which ends where the volume ends.
    """
    wide = up.out_channels
    images = (conv.in_channels - wide) * strides[0] * strides[1] * strides[2]
    shift = conv.weight.new_zeros((1, wide, *strides)) if up.bias is None else up.bias.view(1, wide, 1, 1, 1)
    features = torch.cat([up.weight, conv.weight.new_zeros((images, wide, *strides)), shift.expand(1, wide, *strides)])
    eye = torch.eye(images, dtype=conv.weight.dtype, device=conv.weight.device)
    impulses = pad(eye.view(images, conv.in_channels - wide, *strides), (0, 0) * 4 + (up.in_channels, 1))
    fine = torch.cat([features, impulses], dim=1)
    sides = [side for stride in reversed(strides) for side in (stride, stride)]
    seen = conv3d(pad(fine, sides), conv.weight, padding=1)
    seen = seen.unflatten(4, (3, -1)).unflatten(3, (3, -1)).unflatten(2, (3, -1))  # channels, K, then (3, s) an axis
    size = tuple(2 if stride == 2 else 3 for stride in strides)
    parts = []
    for z, y, x in product(*map(range, strides)):
        taps = seen[:, :, :, z, :, y, :, x].flip(2, 3, 4)  # what an impulse sends forward is what a voxel reads behind
        parts.append(taps[:, :, z : z + size[0], y : y + size[1], x : x + size[2]].transpose(0, 1))
    weight = torch.cat(parts)
    return weight, conv.bias if conv.bias is None else conv.bias.repeat(len(parts))


def _phases_to_channels(fine: torch.Tensor, strides: Shape) -> torch.Tensor:
    """(B, I, s Z, s Y, s X) to (B, I x phases, Z, Y, X)."""
    z, y, x = strides
    split = fine.unflatten(4, (-1, x)).unflatten(3, (-1, y)).unflatten(2, (-1, z))
    return split.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


class _Interleave(torch.autograd.Function):
    """Phases (B, phases x K, Z + 1, Y + 1, X + 1) to their places in (B, K, s Z, s Y, s X).

    A phase on the lower side of its coarse voxel is read one place before one on the upper side, as each looks half a
    voxel to its own side. With stride 1 there is one phase and nothing more than Z places.
    """

    @staticmethod
    def forward(ctx: Any, phases: torch.Tensor, strides: Shape) -> torch.Tensor:
        ctx.shape, ctx.strides = phases.shape, strides
        grid = [s * (n - s + 1) for n, s in zip(phases.shape[2:], strides, strict=True)]
        channels = phases.shape[1] // (strides[0] * strides[1] * strides[2])
        fine = phases.new_empty((len(phases), channels, *grid))
        for source, target in _places(phases, fine, strides):
            target.copy_(source)
        return fine

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        back = grads[0].new_zeros(ctx.shape)
        for source, target in _places(back, grads[0], ctx.strides):
            source.copy_(target)
        return back, None


def _places(phases: torch.Tensor, fine: torch.Tensor, strides: Shape) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Views of both sides of each phase."""
    channels, places = fine.shape[1], []
    sizes = [n // s for n, s in zip(fine.shape[2:], strides, strict=True)]
    for index, (z, y, x) in enumerate(product(*map(range, strides))):
        source = phases[:, index * channels : (index + 1) * channels]
        source = source[:, :, z : z + sizes[0], y : y + sizes[1], x : x + sizes[2]]
        places.append((source, fine[:, :, z :: strides[0], y :: strides[1], x :: strides[2]]))
    return places
