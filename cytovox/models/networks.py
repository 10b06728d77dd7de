"""Networks built from the metadata of their weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from cytovox.errors import InputError
from cytovox.models.metadata import Weights, load_network
from cytovox.networks import network_config

#: Input and output channels of the networks that separate cells, by method.
CELL_CHANNELS = {"network": (4, 1), "offsets": (3, 3)}


def config_of(kind: type, options: Mapping[str, Any]) -> Any:
    """Return a config of this class; options that it does not have (of another version) are ignored."""
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in options.items() if name in known})


def organelle_network(weights: Weights, window: tuple[int, int, int], key: str) -> nn.Module:
    """Return the network of organelle weights.

    Parameters
    ----------
    weights : Weights
    window : (z, y, x)
        Size of its windows in voxels.
    key : str
        Config key or argument that named the weights, for messages.

    Raises
    ------
    InputError
        The network cannot be built here, or cannot process windows of this size.
    """
    config = _config(weights)
    if errors := config.errors(window):
        raise InputError(f"predict.window: the network of {weights.path}: {'; '.join(errors)}")
    return load_network(config.build(1, len(weights.metadata.organelles)), weights, key)


def cell_network(weights: Weights, key: str) -> nn.Module:
    """Return the network of weights of the cells task; parameters and errors as of `organelle_network`."""
    return load_network(_config(weights).build(*CELL_CHANNELS[weights.metadata.method]), weights, key)


def _config(weights: Weights) -> Any:
    return config_of(network_config(str(weights.metadata.model["network"])), weights.metadata.model)
