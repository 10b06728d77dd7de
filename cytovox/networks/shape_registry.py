"""Which networks of the shape task there are, by name.

They are not in `cytovox.networks.registry`: those label every voxel of a tomogram, these make a volume from a slice
through it.
"""

import difflib
from typing import Protocol

from torch import nn

from cytovox.errors import InputError
from cytovox.networks.dispr_unet import DISPRUNetConfig
from cytovox.networks.slab_unet import SlabUNetConfig


class ShapeNetworkConfig(Protocol):
    """What a shape network's config offers: a dataclass of plain fields, all with defaults, and these two."""

    def errors(self, size: int = 64) -> list[str]:
        """What is wrong with the options, and with fields of this many voxels a side; empty where all is well."""

    def build(self, size: int = 64, outputs: int = 1, extra_channels: int = 0) -> nn.Module:
        """The network: (x_BCZYX, t_B, condition_BCYX) to (B, outputs, Z, Y, X), fields of that many voxels a side.

        The condition is the mask, the masked image and `extra_channels` more.
        """


#: The networks of the shape task, by name.
SHAPE_NETWORKS: dict[str, type[ShapeNetworkConfig]] = {
    "slab_unet": SlabUNetConfig,
    "dispr_unet": DISPRUNetConfig,
}


def shape_network_config(name: str) -> type[ShapeNetworkConfig]:
    """The config class of a shape network; `InputError` that names the nearest and all known ones if there is none."""
    if name not in SHAPE_NETWORKS:
        near = difflib.get_close_matches(str(name), SHAPE_NETWORKS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"shape network {name!r}: no such network; {hint}known: {', '.join(SHAPE_NETWORKS)}")
    return SHAPE_NETWORKS[name]
