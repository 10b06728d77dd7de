"""Outputs of an organelle network taken from weights of other organelles: by name, not by position."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import nn

from cytovox.errors import InputError
from cytovox.models.metadata import Weights


def match_outputs(
    weights: Weights, network: nn.Module, build: Callable[[int, int], nn.Module], organelles: Sequence[str]
) -> tuple[Weights, list[str]]:
    """Return the weights with their outputs in the order of these organelles, and what should be said of it.

    An organelle that the weights do not have keeps the new network's own output, untrained; an output that is not
    asked for is left out. Which tensors belong to the outputs is found by building the network once more with one
    output more: only theirs change their size.

    Parameters
    ----------
    weights : Weights
        Of an organelle network.
    network : Module
        The new one, as it is before any weights.
    build : callable
        (input channels, outputs) to a network like it.
    organelles : sequence of str
        Names of the new network's outputs.

    Raises
    ------
    InputError
        The network's outputs are not rows of tensors, so that they cannot be distinguished.
    """
    given, wanted = list(weights.metadata.organelles), list(organelles)
    if given == wanted:
        return weights, []
    with torch.device("meta"):
        some, more = build(1, len(given)).state_dict(), build(1, len(given) + 1).state_dict()
    own, state = network.state_dict(), dict(weights.network_state)
    for name in [name for name in some if some[name].shape != more[name].shape]:
        if some[name].shape[1:] != more[name].shape[1:] or some[name].shape[0] != len(given):
            raise InputError(
                f"init_from: {weights.path}: predicts {', '.join(given)}, but the outputs of this network cannot be "
                f"matched by name at {name}: make data.organelles the same"
            )
        theirs = state.get(name)
        if theirs is None or theirs.shape != some[name].shape or own[name].shape[1:] != theirs.shape[1:]:
            continue  # another network: said where the weights are loaded
        rows = own[name].clone()
        for at, organelle in enumerate(wanted):
            if organelle in given:
                rows[at] = theirs[given.index(organelle)].to(rows.dtype)
        state[name] = rows
    kinds = {
        "taken by name": [name for name in wanted if name in given],
        "new and untrained": [name for name in wanted if name not in given],
        "left out": [name for name in given if name not in wanted],
    }
    outputs_text = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names)
    note = f"init_from: {weights.path}: outputs {outputs_text}"
    return dataclasses.replace(weights, network_state=state), [note]
