"""Weights to give away: the network alone, in a safetensors file that says what it is.

A tenth of a checkpoint's size, and nothing in it can run code. The metadata lie in the header as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cytovox.errors import InputError
from cytovox.io.atomic import atomic_path
from cytovox.models.finite import first_nonfinite

#: Key of the metadata in a checkpoint and in a weights file.
KEY = "cytovox"
SUFFIX = ".safetensors"


def write_weights(path: Path, network_state: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write a network's weights; whole or not at all.

    Parameters
    ----------
    path : Path
        Ends in .safetensors.
    network_state : mapping
        The network's `state_dict`.
    metadata : mapping
        `dataclasses.asdict` of `cytovox.models.metadata.CheckpointMetadata`.

    Raises
    ------
    InputError
        Another ending, weights that are NaN or infinite, or no space left.
    """
    if (name := first_nonfinite(network_state)) is not None:
        raise InputError(f"{path}: not written: the weights are NaN or infinite (first: {name})")
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: expected a name that ends in {SUFFIX}")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network_state.items()}
    with atomic_path(path) as part:
        save_file(tensors, part, metadata={KEY: json.dumps(dict(metadata))})
    return path


def read_content(path: Path) -> dict[str, Any]:
    """The file's content in a checkpoint's layout: `state_dict` with the prefix `network.`, and the metadata.

    Raises
    ------
    ValueError
        Damaged, or no safetensors file.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "null"))
            state = {f"network.{name}": file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return {"state_dict": state, **({KEY: about} if isinstance(about, Mapping) else {})}
