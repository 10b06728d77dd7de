"""Cells of ScNAS and the operations on their edges.

Every convolution is a LeakyReLU, a convolution without bias and an InstanceNorm without parameters, in this order. A
reduction cell halves the resolution by stride 2 of the edges from its inputs, where an identity becomes a factorised
reduction. An expansion cell upsamples its inputs (trilinear) before the 1x1x1 convolutions that set their width. All of
its edges are therefore on the finer grid.

References
----------
Kim et al., Scalable Neural Architecture Search for 3D Medical Image Segmentation, MICCAI 2019, arXiv 1906.05956.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce

import torch
from monai.networks.blocks.dints_block import FactorizedReduceBlock
from monai.networks.blocks.squeeze_and_excitation import ChannelSELayer
from torch import nn

from cytovox.networks.genotype import INPUTS, NODES, CellGenotype, live_states

#: Factor by which squeeze-and-excitation reduces the channels.
SQUEEZE = 6


def activated_conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Module:
    """Return LeakyReLU, convolution (padded to keep the size at stride 1) and InstanceNorm."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv3d(in_channels, out_channels, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(nn.LeakyReLU(), conv, nn.InstanceNorm3d(out_channels))


def pointwise_conv(in_channels: int, out_channels: int) -> nn.Module:
    """Return the 1x1x1 convolution that sets the width of an input."""
    return activated_conv(in_channels, out_channels, 1)


def factorised_reduction(in_channels: int, out_channels: int) -> nn.Module:
    """Return MONAI's block that halves every axis by two shifted 1x1x1 convolutions of stride 2."""
    return FactorizedReduceBlock(in_channels, out_channels, 3, ("leakyrelu", {}), "INSTANCE")


def upsampled_conv(in_channels: int, out_channels: int) -> nn.Module:
    """Return a module that doubles every axis (trilinear) and sets the width by a 1x1x1 convolution."""
    up = nn.Upsample(scale_factor=2, mode="trilinear", align_corners=False)
    return nn.Sequential(up, pointwise_conv(in_channels, out_channels))


#: Operations of an edge, from (channels, stride 1 or 2). ``none`` has no module.
OPERATIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "identity": lambda channels, stride: nn.Identity() if stride == 1 else factorised_reduction(channels, channels),
    "conv_3": lambda channels, stride: activated_conv(channels, channels, 3, stride, dilation=1),
    "dilated_conv_2": lambda channels, stride: activated_conv(channels, channels, 3, stride, dilation=2),
    "dilated_conv_3": lambda channels, stride: activated_conv(channels, channels, 3, stride, dilation=3),
    "average_pool_3": lambda channels, stride: nn.AvgPool3d(3, stride, padding=1, count_include_pad=False),
    "max_pool_3": lambda channels, stride: nn.MaxPool3d(3, stride, padding=1),
}


@dataclass(frozen=True)
class CellPlan:
    """Type and sizes of a cell of the network."""

    kind: str
    """Cell type, one of `cytovox.networks.genotype.CELL_TYPES`."""
    widths_in: tuple[int, int]
    """Channels of the two inputs, the older one first."""
    width: int
    """Channels of a node."""
    resize: str
    """Change of the resolution: ``none``, ``reduce`` or ``expand``."""
    older: str
    """Resizing of the older input that makes it match the younger one."""
    level: int
    """Number of times that the nodes' grid is halved relative to the image."""

    def entries(self) -> dict[str, Callable[[], nn.Module]]:
        """Return builders of the modules that set each input's width (and, in an expansion cell, its resolution)."""
        kinds = {"none": pointwise_conv, "reduce": factorised_reduction, "expand": upsampled_conv}
        expands = self.resize == "expand"  # both inputs are on the coarser grid here: a normal cell came before
        resizes = ("expand", "expand") if expands else (self.older, "none")
        return {
            name: partial(kinds[how], channels, self.width)
            for name, how, channels in zip(INPUTS, resizes, self.widths_in, strict=True)
        }

    def stride(self, source: str) -> int:
        """Return the stride of an operation on an edge from this state."""
        return 2 if self.resize == "reduce" and source in INPUTS else 1


def plan_cells(width: int, layers: int, multiplier: int) -> tuple[list[CellPlan], list[CellPlan]]:
    """Return the cells of encoder and decoder, in the order of computation.

    Parameters
    ----------
    width : int
        Channels of a node at full resolution.
    layers : int
        Cells in the encoder, and also in the decoder; even.
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
    """Cell of four nodes and two inputs; its output concatenates the last nodes, with squeeze-and-excitation.

    Parameters
    ----------
    genotype : CellGenotype
        Edges. Those that do not reach the output are not built, so that every parameter gets a gradient.
    plan : CellPlan
        Type and sizes of the cell.
    multiplier : int
        Number of nodes in the output, which has ``plan.width * multiplier`` channels.
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
        """Return the cell's output from the outputs of the two previous cells."""
        given = dict(zip(INPUTS, (older_BCZYX, younger_BCZYX), strict=True))
        states = {name: entry(given[name]) for name, entry in self.inputs.items()}
        for node, edges in zip(NODES, self.genotype, strict=True):
            if node in self.live:
                kept = [edge for edge in edges if edge.operation != "none"]
                operations = zip(self.nodes[node], kept, strict=True)  # type: ignore[call-overload]
                states[node] = reduce(torch.add, (operation(states[edge.source]) for operation, edge in operations))
        return self.excite(torch.cat([states[node] for node in self.outputs], dim=1))
