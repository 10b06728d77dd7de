"""Networks of the shape task, by name.

They predict a volume from a slice through it. The networks of `cytovox.networks.registry` label every voxel of a
tomogram.
"""

from typing import Protocol

from torch import nn

from cytovox.networks.dispr_unet import DISPRUNetConfig
from cytovox.networks.slab_unet import SlabUNetConfig
from cytovox.options import entry_of


class ShapeNetworkConfig(Protocol):
    """Interface of a shape network's config: a dataclass of plain fields with defaults, and these two methods."""

    def errors(self, size: int = 64) -> list[str]:
        """Return what is wrong with the options, also for fields of this side length, one line per error."""

    def build(self, size: int = 64, outputs: int = 1, extra_channels: int = 0) -> nn.Module:
        """Return the network, from (x_BCZYX, t_B, condition_BCYX) to (B, outputs, Z, Y, X) with sides of `size` voxels.

        The condition is the mask, the masked image and `extra_channels` more channels.
        """


#: The networks of the shape task, by name.
SHAPE_NETWORKS: dict[str, type[ShapeNetworkConfig]] = {
    "slab_unet": SlabUNetConfig,
    "dispr_unet": DISPRUNetConfig,
}


def shape_network_config(name: str) -> type[ShapeNetworkConfig]:
    """Return the config class of a shape network; raise `InputError` with the most similar name if there is none."""
    return entry_of(SHAPE_NETWORKS, name, "shape network")
