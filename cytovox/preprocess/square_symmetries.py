"""The eight symmetries of a square, to average predictions from rotated and mirrored images."""

from __future__ import annotations

import torch

#: Number of views: four rotations, with or without reflection in x.
VIEWS = 8


def view(values: torch.Tensor, number: int) -> torch.Tensor:
    """Return one of the eight views.

    Parameters
    ----------
    values : tensor, (..., Y, X)
        Y and X of one length.
    number : int
        Index of the view, modulo 8; 0 is the identity.
    """
    rotated = torch.rot90(values, number % 4, (-2, -1))
    return rotated.flip(-1) if number % VIEWS >= 4 else rotated


def unview(values: torch.Tensor, number: int) -> torch.Tensor:
    """Return the input of `view` from its output."""
    rotated = values.flip(-1) if number % VIEWS >= 4 else values
    return torch.rot90(rotated, -(number % 4), (-2, -1))
