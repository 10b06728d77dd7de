"""Check the masks that cells are segmented from."""

from __future__ import annotations

import numpy as np

#: Share of the nuclei outside the cells above which a warning is given; differences of outlines cause less.
_MAX_OUTSIDE = 0.25


def nuclei_outside_note(nucleus_ZYX: np.ndarray, membrane_ZYX: np.ndarray) -> str:
    """Return a warning if a large part of the nuclei lies outside the cells; else an empty string.

    Such masks are usually swapped, mirrored, inverted or from different fields.

    Parameters
    ----------
    nucleus_ZYX, membrane_ZYX : bool array, (Z, Y, X)
        Masks of nuclei and of filled cells.
    """
    whole = int(np.count_nonzero(nucleus_ZYX))
    outside = int(np.count_nonzero(nucleus_ZYX & ~membrane_ZYX))
    if outside <= _MAX_OUTSIDE * whole:
        return ""
    return (
        f"{100 * outside / whole:.0f} % of the nuclei lie outside the cells (membrane): are the masks swapped, "
        "inverted, mirrored or of another field?"
    )
