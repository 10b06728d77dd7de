"""Weights to share: the network alone, in a safetensors file with its metadata.

Such a file has a tenth of a checkpoint's size and cannot run code. The metadata are stored in the header as JSON.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cytovox.errors import InputError
from cytovox.io.atomic import atomic_path

#: Key of the metadata in a checkpoint and in a weights file.
KEY = "cytovox"
SUFFIX = ".safetensors"


def first_nonfinite(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Return the name of the first tensor that holds NaN or infinity, or None.

    Parameters
    ----------
    tensors : mapping of str to tensor
        Such as a `state_dict`, all on one device. Integers are always finite.

    Returns
    -------
    str or None
        In the mapping's order. The device is read only once if all are finite.
    """
    floats = {name: value for name, value in tensors.items() if value.is_floating_point() and value.numel()}
    if not floats:
        return None
    finite = torch.stack([torch.isfinite(value.detach()).all() for value in floats.values()])
    if bool(finite.all()):
        return None
    return next(name for name, good in zip(floats, finite.tolist(), strict=True) if not good)


def write_weights(path: Path, network_state: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write a network's weights; an error leaves no file.

    Parameters
    ----------
    path : Path
        A name that ends in .safetensors.
    network_state : mapping
        The network's `state_dict`.
    metadata : mapping
        `dataclasses.asdict` of `cytovox.models.metadata.CheckpointMetadata`.

    Raises
    ------
    InputError
        Another suffix, weights that are NaN or infinite, or no space left.
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
    """Return a file's content in a checkpoint's layout: `state_dict` with the prefix `network.`, and the metadata.

    Raises
    ------
    ValueError
        The file is damaged, or not a safetensors file.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "null"))
            state = {f"network.{name}": file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return {"state_dict": state, **({KEY: about} if isinstance(about, Mapping) else {})}
