"""Nuclei that do not lie in cells: a sign of masks that are swapped, mirrored, inverted or of another field."""

from __future__ import annotations

import numpy as np

#: Part of the nuclei outside the cells from which it is said: drawn and predicted outlines differ by less.
_MOST_OUTSIDE = 0.25


def outside_note(nucleus_ZYX: np.ndarray, membrane_ZYX: np.ndarray) -> str:
    """What is to be said where much of the nuclei lies outside the cells; "" else.

    Parameters
    ----------
    nucleus_ZYX, membrane_ZYX : bool array, (Z, Y, X)
        Masks of nuclei and of filled cells.
    """
    whole = int(np.count_nonzero(nucleus_ZYX))
    outside = int(np.count_nonzero(nucleus_ZYX & ~membrane_ZYX))
    if not whole or outside <= _MOST_OUTSIDE * whole:
        return ""
    return (
        f"{100 * outside / whole:.0f} % of the nuclei lie outside the cells (membrane): are the masks swapped, "
        "inverted, mirrored or of another field?"
    )
