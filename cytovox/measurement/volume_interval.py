"""Uncertainty of a cell's volume, from predictions of mirror images of the same frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Half the width of an interval, in deviations of the ensemble members, so that it contains 90 % of true volumes:
#: measured on simulated cells that no network was trained on (benchmarks/measurements.py, part uncertainty).
DEVIATIONS_90 = 3.5
#: Share of the volume that is added to the deviation: members that agree exactly may all be wrong.
FLOOR = 0.02


@dataclass(frozen=True)
class VolumeInterval:
    """An interval of a volume, µm³."""

    volume_um3: float
    low_um3: float
    high_um3: float
    deviation_um3: float
    """Deviation of the members' volumes from that of the cell, plus `FLOOR` of the volume."""


def member_labels(cells_ZYX: np.ndarray, member_ZYX: np.ndarray) -> dict[int, int]:
    """Return, for each cell, the cell of an ensemble member that overlaps it most; 0 if there is none."""
    inside = cells_ZYX > 0
    pairs, counts = np.unique(np.stack([cells_ZYX[inside], member_ZYX[inside]]), axis=1, return_counts=True)
    # the largest overlap comes last; of equal overlaps, the smallest label
    ascending = np.argsort(-counts, kind="stable")[::-1]
    unmatched = dict.fromkeys(np.unique(cells_ZYX[inside]).tolist(), 0)
    return unmatched | {label: other for label, other in pairs[:, ascending].T.tolist() if other > 0}


def volume_intervals(
    cells_ZYX: np.ndarray, members: Sequence[np.ndarray], voxel_um3: float, deviations: float = DEVIATIONS_90
) -> dict[int, VolumeInterval]:
    """Compute an interval of each cell's volume from several predictions of the same frame.

    Parameters
    ----------
    cells_ZYX : integer array, (Z, Y, X)
        Labels that are measured.
    members : sequence of integer arrays, (Z, Y, X)
        Other predictions. Each cell is matched to the label that overlaps it most; without one, its volume is 0 there.
    voxel_um3 : float
        Volume of a voxel.
    deviations : float
        Half the interval's width, in deviations.

    Returns
    -------
    dict of label -> VolumeInterval
        The deviation is the root mean square difference between the members' volumes and the cell's, plus `FLOOR` of
        the volume.
    """
    volumes = np.bincount(cells_ZYX.ravel().astype(np.int64)) * voxel_um3
    matched = [
        (np.bincount(member.ravel().astype(np.int64)) * voxel_um3, member_labels(cells_ZYX, member))
        for member in members
    ]
    result = {}
    for label in (np.flatnonzero(volumes[1:]) + 1).tolist():
        volume = float(volumes[label])
        found = np.array([own[partner[label]] if partner[label] else 0.0 for own, partner in matched])
        spread = float(np.sqrt(np.mean((found - volume) ** 2))) if matched else 0.0
        deviation = spread + FLOOR * volume
        low, high = max(0.0, volume - deviations * deviation), volume + deviations * deviation
        result[label] = VolumeInterval(volume, low, high, deviation)
    return result


def agreement(cells_ZYX: np.ndarray, members: Sequence[np.ndarray]) -> np.ndarray:
    """Return the share of predictions, `cells_ZYX` included, that assign a voxel to its cell: float32, 0 outside."""
    share = (cells_ZYX > 0).astype(np.float32)
    for member in members:
        partner = np.zeros(int(cells_ZYX.max(initial=0)) + 1, np.int64)
        for label, other in member_labels(cells_ZYX, member).items():
            partner[label] = other or -1
        share += (cells_ZYX > 0) & (member == partner[cells_ZYX])
    return share / np.float32(1 + len(members))
