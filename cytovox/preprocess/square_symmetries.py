"""The eight turns and mirror images of a square, there and back: a shape predicted from each is the same shape."""

from __future__ import annotations

import torch

#: Quarter turns and a mirror image in x make eight views.
VIEWS = 8


def view(values: torch.Tensor, number: int) -> torch.Tensor:
    """One of the eight views.

    Parameters
    ----------
    values : tensor, (..., Y, X)
        Y and X of one length.
    number : int
        Counted on beyond 7 from 0 again; 0 changes nothing.
    """
    turned = torch.rot90(values, number % 4, (-2, -1))
    return turned.flip(-1) if number % VIEWS >= 4 else turned


def unview(values: torch.Tensor, number: int) -> torch.Tensor:
    """What `view` of that number was made from."""
    turned = values.flip(-1) if number % VIEWS >= 4 else values
    return torch.rot90(turned, -(number % 4), (-2, -1))
