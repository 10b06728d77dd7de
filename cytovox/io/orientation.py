"""How stored axes were turned to lie as ITK's x, y, z do: which one runs along which, and whether backwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
from nibabel.orientations import apply_orientation

#: nibabel's orientation: for each stored axis x, y, z the one of ITK's, and -1 where it is flipped.
AxisOrientation = tuple[tuple[float, float], ...]

#: Axes that lie as they are stored.
PLAIN: AxisOrientation = ((0.0, 1.0), (1.0, 1.0), (2.0, 1.0))

#: What decides how a mask lies where either its file or its tomogram's states directions, and the other none.
MaskAxes = Literal["auto", "header", "stored"]

Length = TypeVar("Length")


def reorders(orientation: AxisOrientation | None) -> bool:
    """Whether voxels lie in another order than in the file; None, no directions, reorders nothing."""
    return orientation is not None and orientation != PLAIN


def orientation_text(orientation: AxisOrientation) -> str:
    """What a turn does, for messages: `mirrors x, y`, `swaps x and z and mirrors y`."""
    mirrored = ", ".join("xyz"[int(axis)] for axis, flip in sorted(orientation) if flip < 0)
    moved = ["xyz"[k] for k, (axis, _) in enumerate(orientation) if axis != k]
    swapped = " and ".join(moved) if len(moved) == 2 else ", ".join(moved)
    done = (f"swaps {swapped}" if swapped else "", f"mirrors {mirrored}" if mirrored else "")
    return " and ".join(word for word in done if word)


def between(now: AxisOrientation, wanted: AxisOrientation) -> AxisOrientation:
    """Return the reorientation that converts an array reoriented by `now` to the orientation `wanted`."""
    steps = [(0.0, 1.0)] * 3
    for (axis, flip), (target, back) in zip(now, wanted, strict=True):
        steps[int(axis)] = (target, flip * back)
    return tuple(steps)


def oriented(values_ZYX: np.ndarray, orientation: AxisOrientation) -> np.ndarray:
    """An array (Z, Y, X) with its axes turned."""
    return apply_orientation(values_ZYX.T, np.array(orientation)).T


def oriented_lengths(lengths_zyx: Sequence[Length], orientation: AxisOrientation) -> tuple[Length, Length, Length]:
    """Lengths or counts z, y, x along the axes after a turn."""
    by_axis = {int(axis): length for (axis, _), length in zip(orientation, lengths_zyx[::-1], strict=True)}
    return by_axis[2], by_axis[1], by_axis[0]
