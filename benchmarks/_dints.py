"""MONAI's DiNTS as a network of ours, for comparison: one instance of its space, in the form of a U.

A searched instance for these data does not exist, and its search is not repeated here: what is compared is its cells
and its topology, with a 3x3x3 convolution on every path of the U.

References
----------
He et al., DiNTS, CVPR 2021, arXiv 2103.15954.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import numpy as np
import torch
from monai.networks.nets.dints import DiNTS, TopologyInstance
from torch import nn

from cytovox.networks.sizes import size_errors

BLOCKS, DEPTHS = 6, 3
#: Paths of each block, by MONAI's numbers for three depths: 0 and 3 stay, 2 and 5 go down, 4 and 1 come up, 6 is the
#: bottom.
PATHS = ((0, 2), (0, 3, 5), (0, 3, 6), (0, 3, 6), (0, 4), (0, 1))
#: Resolutions that are alive before the first block and after each.
NODES = ((1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 0), (1, 0, 0))


@dataclass
class DiNTSConfig:
    """Options of `DiNTS`."""

    width: float = 0.25
    """Channels over MONAI's 32 at full resolution."""

    divisor = minimum = (16, 16, 16)

    def errors(self, patch_ZYX: tuple[int, int, int] | None = None) -> list[str]:
        """What is wrong with a patch of this size."""
        return [] if patch_ZYX is None else [f"patch: {f}" for f in size_errors(patch_ZYX, self.divisor, self.minimum)]

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        """The network, freshly initialised."""
        active = np.zeros((BLOCKS, 3 * DEPTHS - 2))
        for block, paths in enumerate(PATHS):
            active[block, list(paths)] = 1
        convolution = np.ones_like(active)  # the second of its operations: 3x3x3
        with contextlib.redirect_stdout(io.StringIO()):
            space = TopologyInstance([active, convolution], self.width, num_blocks=BLOCKS, num_depths=DEPTHS)
        return DiNTS(space, in_channels, out_channels, node_a=torch.tensor(NODES))
