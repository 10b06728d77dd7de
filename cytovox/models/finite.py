"""Whether weights are numbers: a NaN or an infinity in them spoils everything that is computed with them."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def first_nonfinite(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Return the name of the first tensor that holds NaN or infinity, or None.

    Parameters
    ----------
    tensors : mapping of str to tensor
        Such as a `state_dict`, all on one device. Integers are always finite.

    Returns
    -------
    str or None
        In the mapping's order. The device is read once where all are finite.
    """
    floats = {name: value for name, value in tensors.items() if value.is_floating_point() and value.numel()}
    if not floats:
        return None
    finite = torch.stack([torch.isfinite(value.detach()).all() for value in floats.values()])
    if bool(finite.all()):
        return None
    return next(name for name, good in zip(floats, finite.tolist(), strict=True) if not good)
