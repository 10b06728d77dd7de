"""How sure a cell's volume is: what mirror images of the same frame say of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: An interval is as wide as this many deviations of the members, so that it holds 90 % of true volumes: measured on
#: simulated cells that no network was trained on (benchmarks/measurements.py, part uncertainty).
DEVIATIONS_90 = 3.5
#: Members that agree to the voxel may all be wrong: a part of the volume is added to their deviation.
FLOOR = 0.02


@dataclass(frozen=True)
class VolumeInterval:
    """An interval on a volume, µm³."""

    volume_um3: float
    low_um3: float
    high_um3: float
    deviation_um3: float
    """Of the members' volumes about the cell's own, floor included: half the width over `DEVIATIONS_90`."""


def member_labels(cells_ZYX: np.ndarray, member_ZYX: np.ndarray) -> dict[int, int]:
    """The cell of a member that overlaps each cell most; 0 where none does."""
    pairs, counts = np.unique(
        np.stack([cells_ZYX[cells_ZYX > 0], member_ZYX[cells_ZYX > 0]]), axis=1, return_counts=True
    )
    found = {int(label): 0 for label in np.unique(cells_ZYX) if label > 0}
    best = dict.fromkeys(found, 0)
    for (label, other), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        if other > 0 and count > best[label]:
            found[label], best[label] = other, count
    return found


def volume_intervals(
    cells_ZYX: np.ndarray, members: Sequence[np.ndarray], voxel_um3: float, deviations: float = DEVIATIONS_90
) -> dict[int, VolumeInterval]:
    """An interval for every cell, from its volumes in several predictions of the same frame.

    Parameters
    ----------
    cells_ZYX : integer array, (Z, Y, X)
        Labels that are measured.
    members : sequence of integer arrays, (Z, Y, X)
        Other predictions; a cell is looked for where it overlaps most, and has no volume where nothing overlaps.
    voxel_um3 : float
        Volume of a voxel.
    deviations : float
        Half the interval's width, in deviations.

    Returns
    -------
    dict of label -> VolumeInterval
        Of the root mean square difference of the members' volumes from the cell's own, plus `FLOOR` of the volume.
    """
    sizes = np.bincount(cells_ZYX.ravel().astype(np.int64)) * voxel_um3
    volumes: dict[int, list[float]] = {int(label): [] for label in np.flatnonzero(sizes) if label > 0}
    for member in members:
        own = np.bincount(member.ravel().astype(np.int64)) * voxel_um3
        for label, other in member_labels(cells_ZYX, member).items():
            volumes[label].append(float(own[other]) if other else 0.0)
    result = {}
    for label, found in volumes.items():
        volume = float(sizes[label])
        spread = float(np.sqrt(np.mean((np.array(found) - volume) ** 2))) if found else 0.0
        deviation = spread + FLOOR * volume
        low, high = max(0.0, volume - deviations * deviation), volume + deviations * deviation
        result[label] = VolumeInterval(volume, low, high, deviation)
    return result


def agreement(cells_ZYX: np.ndarray, members: Sequence[np.ndarray]) -> np.ndarray:
    """Share of all predictions, the first included, that put a voxel into the cell it is in: float32, 0 outside."""
    share = (cells_ZYX > 0).astype(np.float32)
    for member in members:
        partner = np.zeros(int(cells_ZYX.max(initial=0)) + 1, np.int64)
        for label, other in member_labels(cells_ZYX, member).items():
            partner[label] = other if other else -1
        share += (cells_ZYX > 0) & (member == partner[cells_ZYX])
    return share / np.float32(1 + len(members))
