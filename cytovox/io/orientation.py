"""Reorientation of stored axes to ITK's x, y, z: the order of the axes, and which are mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
from nibabel.orientations import apply_orientation

#: nibabel's orientation: for each stored axis x, y, z the number of ITK's axis, and -1 if it is mirrored, else 1.
AxisOrientation = tuple[tuple[float, float], ...]

#: Orientation of axes that are not reoriented.
PLAIN: AxisOrientation = ((0.0, 1.0), (1.0, 1.0), (2.0, 1.0))

#: Rule for the orientation of a mask if only one of its file and the tomogram's states directions.
MaskAxes = Literal["auto", "header", "stored"]

Length = TypeVar("Length")


def reorders(orientation: AxisOrientation | None) -> bool:
    """Return whether voxels are in another order than in the file; False for None, a file without directions."""
    return orientation is not None and orientation != PLAIN


def orientation_text(orientation: AxisOrientation) -> str:
    """Return a reorientation in words: `mirrors x, y`, `swaps x and z and mirrors y`."""
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
    """Return an array (Z, Y, X) with its axes reoriented."""
    return apply_orientation(values_ZYX.T, np.array(orientation)).T


def oriented_lengths(lengths_zyx: Sequence[Length], orientation: AxisOrientation) -> tuple[Length, Length, Length]:
    """Return lengths or counts z, y, x along the axes after a reorientation."""
    by_axis = {int(axis): length for (axis, _), length in zip(orientation, lengths_zyx[::-1], strict=True)}
    return by_axis[2], by_axis[1], by_axis[0]
