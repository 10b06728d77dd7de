"""Match the outputs of an organelle network to those of its initial weights by name, not by position."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import nn

from cytovox.errors import InputError
from cytovox.models.metadata import Weights


def match_outputs(
    weights: Weights, network: nn.Module, build: Callable[[int, int], nn.Module], organelles: Sequence[str]
) -> tuple[Weights, list[str]]:
    """Return the weights with their outputs in the order of these organelles, and notes for the user.

    An organelle that the weights do not have keeps the untrained output of the new network. Other outputs of the
    weights are left out. The tensors of the outputs are those whose size differs in a network with one more output.

    Parameters
    ----------
    weights : Weights
        Weights of an organelle network.
    network : Module
        New network with its initial parameters.
    build : callable
        Function that builds such a network from the numbers of input channels and outputs.
    organelles : sequence of str
        Names of the outputs of the new network.

    Raises
    ------
    InputError
        The outputs cannot be distinguished because they are not rows of tensors.
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
        # the shapes of another network differ, which is reported when the weights are loaded
        if theirs is not None and theirs.shape == some[name].shape and own[name].shape[1:] == theirs.shape[1:]:
            state[name] = rows = own[name].clone()
            for at, organelle in enumerate(wanted):
                if organelle in given:
                    rows[at] = theirs[given.index(organelle)].to(rows.dtype)
    kinds = {
        "taken by name": [name for name in wanted if name in given],
        "new and untrained": [name for name in wanted if name not in given],
        "left out": [name for name in given if name not in wanted],
    }
    outputs_text = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names)
    note = f"init_from: {weights.path}: outputs {outputs_text}"
    return dataclasses.replace(weights, network_state=state), [note]
