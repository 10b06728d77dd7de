"""Networks rebuilt from the metadata of their weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from cytovox.errors import InputError
from cytovox.models.metadata import Weights, load_network
from cytovox.networks import network_config

#: Input and output channels of the networks that tell cells apart, by method.
CELL_CHANNELS = {"network": (4, 1), "offsets": (3, 3)}


def config_of(kind: type, options: Mapping[str, Any]) -> Any:
    """Return a config of this class; options that it does not have (of another version) are left out."""
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in options.items() if name in known})


def organelle_network(weights: Weights, window: tuple[int, int, int], key: str) -> nn.Module:
    """Return the network of organelle weights.

    Parameters
    ----------
    weights : Weights
    window : (z, y, x)
        Size of the windows that it will be given, in voxels.
    key : str
        Config key or argument that named the weights, for messages.

    Raises
    ------
    InputError
        The network cannot be built here, or does not take windows of this size.
    """
    config = config_of(network_config(str(weights.metadata.model["network"])), weights.metadata.model)
    if errors := config.errors(window):
        raise InputError(f"predict.window: the network of {weights.path}: {'; '.join(errors)}")
    network: nn.Module = config.build(1, len(weights.metadata.organelles))
    load_network(network, weights, key)
    return network


def cell_network(weights: Weights, key: str) -> nn.Module:
    """Return the network of weights of the cells task; parameters and errors as of `organelle_network`."""
    config = config_of(network_config(str(weights.metadata.model["network"])), weights.metadata.model)
    network: nn.Module = config.build(*CELL_CHANNELS[weights.metadata.method])
    load_network(network, weights, key)
    return network
