"""Find events where masks join or part: frames in which two cells become one mask, or one mask becomes two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from cytovox.quality.rules import MIN_PIECE
from cytovox.tracking.tracking import Detection, Tracked

#: Least share of a cell's volume inside a joined mask for the cell to be part of it.
MIN_INSIDE = 0.5
#: Largest difference between the volume of a lost cell and the gain of its neighbour, relative to the smaller volume.
BALANCE = 0.5
#: Common volume of the labels of two frames: (label before, label after) to µm³.
Overlap = Mapping[tuple[int, int], float]


@dataclass(frozen=True)
class Event:
    """Cells that become one mask in a frame, or one mask that becomes several."""

    frame: int
    """The first frame of the new state."""
    track: int
    """Track of the joined mask."""
    pieces: tuple[tuple[int, int], ...]
    """(frame, label) of the separate cells: before they join, or after they part."""
    joins: bool


def overlap_of(before_ZYX: np.ndarray, after_ZYX: np.ndarray, voxel_um3: float) -> dict[tuple[int, int], float]:
    """Compute the common volume of each cell and each cell of the next frame.

    Parameters
    ----------
    before_ZYX, after_ZYX : integer arrays, (Z, Y, X)
        Labels of two frames, 0 is the background.
    voxel_um3 : float
        Volume of a voxel.

    Returns
    -------
    dict of (label before, label after) -> float
        Common volume in µm³ where it is positive.
    """
    both = (before_ZYX > 0) & (after_ZYX > 0)
    one, other = before_ZYX[both].astype(np.int64), after_ZYX[both].astype(np.int64)
    base = int(other.max(initial=0)) + 1
    codes, counts = np.unique(one * base + other, return_counts=True)
    return {divmod(code, base): count * voxel_um3 for code, count in zip(codes.tolist(), counts.tolist(), strict=True)}


def find_events(
    detections: Sequence[Detection], tracked: Tracked, overlaps: Mapping[int, Overlap], max_distance_um: float
) -> list[Event]:
    """Find the frames in which masks join or part.

    Two cells join if both lie mostly inside one mask of the next frame, or if one is lost and its neighbour has gained
    its volume. A parting is the same with time reversed. A cell that is in both frames, with at least half of its size,
    has not joined. Pieces below `MIN_PIECE` of the joined volume are ignored. A division is not a parting.

    Parameters
    ----------
    detections : sequence of Detection
        All cells of a time-lapse.
    tracked : Tracked
        Their tracks.
    overlaps : dict of frame -> overlap
        Overlap of each frame with the previous one (`overlap_of`). Without it, position and volume alone are used.
    max_distance_um : float
        Largest distance between a cell and the joined mask that contains it.

    Returns
    -------
    list of Event
        By increasing frame.
    """
    frames: dict[int, list[Detection]] = {}
    for one in detections:
        frames.setdefault(one.frame, []).append(one)
    parents = {track.track: track.parent for track in tracked.tracks}
    found = []
    for t in sorted(t for t in frames if t - 1 in frames):
        overlap = overlaps.get(t, {})
        reversed_overlap = {(after, before): shared for (before, after), shared in overlap.items()}
        for joins, first, second, shared in (
            (True, frames[t - 1], frames[t], overlap),
            (False, frames[t], frames[t - 1], reversed_overlap),
        ):
            for whole, pieces in _joined(first, second, tracked, shared, max_distance_um):
                track = tracked.track_of[(whole.frame, whole.label)]
                keys = tuple((one.frame, one.label) for one in pieces)
                if not any(parents[tracked.track_of[key]] == track for key in keys):
                    found.append(Event(t, track, keys, joins))
    return found


def _joined(
    first: Sequence[Detection], second: Sequence[Detection], tracked: Tracked, overlap: Overlap, max_distance_um: float
) -> list[tuple[Detection, list[Detection]]]:
    """Return the cells of `second` that contain two or more cells of `first`, with these."""
    same_track = {tracked.track_of[(one.frame, one.label)]: one for one in second}
    own = {piece.label: same_track.get(tracked.track_of[(piece.frame, piece.label)]) for piece in first}
    lost = [piece for piece in first if own[piece.label] is None]

    def is_inside(piece: Detection, whole: Detection) -> bool:
        later, least_um3 = own[piece.label], MIN_INSIDE * piece.volume_um3
        if piece.volume_um3 < MIN_PIECE * whole.volume_um3:
            return False
        if later is not None and (later is whole or later.volume_um3 > least_um3):
            return later is whole
        return overlap.get((piece.label, whole.label), 0.0) >= least_um3

    found = []
    for whole in second:
        pieces = [piece for piece in first if is_inside(piece, whole)]
        if len(pieces) < 2:
            pieces = _balanced(whole, pieces, lost, max_distance_um)
        sizes = sorted((piece.volume_um3 for piece in pieces), reverse=True)
        # a neighbour that moved to the place of another cell has not gained its volume
        if len(pieces) > 1 and whole.volume_um3 >= sizes[0] + BALANCE * sizes[1]:
            found.append((whole, pieces))
    return found


def _balanced(
    whole: Detection, inside: list[Detection], lost: Sequence[Detection], max_distance_um: float
) -> list[Detection]:
    """Return the cell that became `whole` and the lost cell whose volume it gained; `inside` if there is none."""
    near = [
        piece
        for piece in lost
        if piece.volume_um3 >= MIN_PIECE * whole.volume_um3
        and np.linalg.norm(np.subtract(piece.position_um, whole.position_um)) <= max_distance_um
    ]
    # if no cell became `whole`, the joined mask started a new track, and both cells are lost
    best, least = inside, BALANCE
    for one, other in product(inside or near, near):
        if one is not other:
            gap = abs(whole.volume_um3 - one.volume_um3 - other.volume_um3) / min(one.volume_um3, other.volume_um3)
            if gap < least:
                best, least = [one, other], gap
    return best
