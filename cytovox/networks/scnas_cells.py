"""The cells of ScNAS and the operations on their edges.

Every convolution is pre-activated: LeakyReLU, convolution without bias, InstanceNorm without parameters. Resizing
happens on a cell's way in: a reduction cell's edges from its inputs have stride 2 (an identity then is a factorised
reduction), an expansion cell brings its inputs up (trilinear) before the 1x1 that sets their width, so that its edges
all work on the finer grid.

References
----------
Kim et al., Scalable Neural Architecture Search for 3D Medical Image Segmentation, MICCAI 2019, arXiv 1906.05956.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from monai.networks.blocks.dints_block import FactorizedReduceBlock
from monai.networks.blocks.squeeze_and_excitation import ChannelSELayer
from torch import nn

from cytovox.networks.genotype import INPUTS, NODES, CellGenotype, live_states

#: Squeeze-and-excitation narrows to a sixth of the channels.
SQUEEZE = 6


def activated_conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Module:
    """LeakyReLU, convolution (padded to keep the size at stride 1), InstanceNorm."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv3d(in_channels, out_channels, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(nn.LeakyReLU(), conv, nn.InstanceNorm3d(out_channels))


def pointwise_conv(in_channels: int, out_channels: int) -> nn.Module:
    """The pre-activation 1x1x1 that brings an input to a cell's width."""
    return activated_conv(in_channels, out_channels, 1)


def factorised_reduction(in_channels: int, out_channels: int) -> nn.Module:
    """Halve every axis with two shifted 1x1x1 convolutions of stride 2; MONAI's block."""
    return FactorizedReduceBlock(in_channels, out_channels, 3, ("leakyrelu", {}), "INSTANCE")


def upsampled_conv(in_channels: int, out_channels: int) -> nn.Module:
    """Double every axis (trilinear), then set the width with a 1x1x1."""
    up = nn.Upsample(scale_factor=2, mode="trilinear", align_corners=False)
    return nn.Sequential(up, pointwise_conv(in_channels, out_channels))


def _conv(dilation: int) -> Callable[[int, int], nn.Module]:
    return lambda channels, stride: activated_conv(channels, channels, 3, stride, dilation)


#: What an edge can be, built from (channels, stride 1 or 2). ``none`` is missing: nothing is built for it.
OPERATIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "identity": lambda channels, stride: nn.Identity() if stride == 1 else factorised_reduction(channels, channels),
    "conv_3": _conv(1),
    "dilated_conv_2": _conv(2),
    "dilated_conv_3": _conv(3),
    "average_pool_3": lambda channels, stride: nn.AvgPool3d(3, stride, padding=1, count_include_pad=False),
    "max_pool_3": lambda channels, stride: nn.MaxPool3d(3, stride, padding=1),
}


@dataclass(frozen=True)
class CellPlan:
    """Where a cell sits in the network."""

    kind: str
    """One of `cytovox.networks.genotype.CELL_TYPES`."""
    widths_in: tuple[int, int]
    """Channels of its two inputs, the older one first."""
    width: int
    """Channels of a node."""
    resize: str
    """What it does to the resolution: ``none``, ``reduce`` or ``expand``."""
    older: str
    """How its older input must be resized to match the younger one."""
    level: int
    """How often its nodes' grid is halved against the image."""

    def entries(self) -> dict[str, Callable[[], nn.Module]]:
        """What brings each input to the cell's width (and, in an expansion cell, to its grid)."""
        kinds = {"none": pointwise_conv, "reduce": factorised_reduction, "expand": upsampled_conv}
        expands = self.resize == "expand"  # both inputs are on the coarser grid here: a normal cell came before
        resizes = ("expand", "expand") if expands else (self.older, "none")
        return {
            name: lambda build=kinds[how], channels=channels: build(channels, self.width)  # type: ignore[misc]
            for name, how, channels in zip(INPUTS, resizes, self.widths_in, strict=True)
        }

    def stride(self, source: str) -> int:
        """Of an operation on an edge from this state."""
        return 2 if self.resize == "reduce" and source in INPUTS else 1


def plan_cells(width: int, layers: int, multiplier: int) -> tuple[list[CellPlan], list[CellPlan]]:
    """The cells of encoder and decoder, in the order in which they run.

    Parameters
    ----------
    width : int
        Channels of a node at full resolution.
    layers : int
        Cells in the encoder, and as many in the decoder; even.
    multiplier : int
        Nodes in a cell's output.
    """
    encoder: list[CellPlan] = []
    decoder: list[CellPlan] = []
    before, level = (width * multiplier, width * multiplier), 0
    for index in range(layers):
        reduces = index % 2 == 0
        width, level = (2 * width, level + 1) if reduces else (width, level)
        how = ("reduction", "reduce", "none") if reduces else ("encoder_normal", "none", "reduce")
        encoder.append(CellPlan(how[0], before, width, how[1], how[2], level))
        before = (before[1], width * multiplier)
    for index in range(layers):
        expands = index % 2 == 1
        width, level = (width // 2, level - 1) if expands else (width, level)
        older = "none" if index == 0 else "expand"
        how = ("expansion", "expand", "none") if expands else ("decoder_normal", "none", older)
        decoder.append(CellPlan(how[0], before, width, how[1], how[2], level))
        before = (before[1], width * multiplier)
    return encoder, decoder


class Cell(nn.Module):
    """Four nodes over two inputs; the output is the last ``multiplier`` nodes side by side, squeezed and excited.

    Parameters
    ----------
    genotype : CellGenotype
        The edges. What does not reach the output is not built, so that every parameter gets a gradient.
    plan : CellPlan
        Where it sits.
    multiplier : int
        Nodes in the output, which has ``plan.width * multiplier`` channels.
    """

    def __init__(self, genotype: CellGenotype, plan: CellPlan, multiplier: int) -> None:
        super().__init__()
        self.genotype = genotype
        self.outputs = NODES[-multiplier:]
        self.live = live_states(genotype, multiplier)
        self.inputs = nn.ModuleDict({name: build() for name, build in plan.entries().items() if name in self.live})
        self.nodes = nn.ModuleDict()
        for node, edges in zip(NODES, genotype, strict=True):
            if node in self.live:
                self.nodes[node] = nn.ModuleList(
                    OPERATIONS[edge.operation](plan.width, plan.stride(edge.source))
                    for edge in edges
                    if edge.operation != "none"
                )
        self.excite = ChannelSELayer(3, plan.width * multiplier, r=SQUEEZE)

    def forward(self, older_BCZYX: torch.Tensor, younger_BCZYX: torch.Tensor) -> torch.Tensor:
        """The cell's output from the outputs of the two cells before it."""
        given = dict(zip(INPUTS, (older_BCZYX, younger_BCZYX), strict=True))
        states = {name: entry(given[name]) for name, entry in self.inputs.items()}
        for node, edges in zip(NODES, self.genotype, strict=True):
            if node in self.live:
                sources = [states[edge.source] for edge in edges if edge.operation != "none"]
                operations = list(self.nodes[node])  # type: ignore[call-overload]
                total = operations[0](sources[0])
                for operation, source in zip(operations[1:], sources[1:], strict=True):
                    total = total + operation(source)
                states[node] = total
        return self.excite(torch.cat([states[node] for node in self.outputs], dim=1))
