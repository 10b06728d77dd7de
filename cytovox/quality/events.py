"""Cells whose masks join and part: two cells taken for one in some frames, or one for two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cytovox.quality.rules import MIN_PIECE
from cytovox.tracking.tracking import Detection, Tracked

#: Share of a cell's volume that lies inside the joined mask, where it is taken as a part of it.
MIN_INSIDE = 0.5
#: By how much, of the smaller volume, a volume that is gained and one that is gone may differ.
BALANCE = 0.5
#: Voxel counts of labels that lie on each other in two frames: (before, after) to µm³.
Overlap = Mapping[tuple[int, int], float]


@dataclass(frozen=True)
class Event:
    """Cells that become one mask in a frame, or one mask that becomes several."""

    frame: int
    """The first frame of the new state."""
    track: int
    """The track that has the joined mask."""
    pieces: tuple[tuple[int, int], ...]
    """(frame, label) of the cells that are apart: before a join, or after a parting."""
    joins: bool


def overlap_of(before_ZYX: np.ndarray, after_ZYX: np.ndarray, voxel_um3: float) -> dict[tuple[int, int], float]:
    """Compute how much of each cell lies on each cell of the next frame.

    Parameters
    ----------
    before_ZYX, after_ZYX : integer arrays, (Z, Y, X)
        Labels of two frames, 0 is the background.
    voxel_um3 : float
        Volume of a voxel.

    Returns
    -------
    dict of (label before, label after) -> float
        Common volume in µm³, of those that have any.
    """
    both = (before_ZYX > 0) & (after_ZYX > 0)
    one, other = before_ZYX[both].astype(np.int64), after_ZYX[both].astype(np.int64)
    if one.size == 0:
        return {}
    base = int(other.max()) + 1
    codes, counts = np.unique(one * base + other, return_counts=True)
    return {
        (int(code // base), int(code % base)): float(count) * voxel_um3
        for code, count in zip(codes, counts, strict=True)
    }


def find_events(
    detections: Sequence[Detection], tracked: Tracked, overlaps: Mapping[int, Overlap], max_distance_um: float
) -> list[Event]:
    """Find where masks join and part.

    Two cells join where both lie mostly inside one mask of the next frame, or where one is gone and its neighbour has
    gained its volume; partings are the same with time reversed. A cell that is in both frames, with at least half of
    its size, has not joined. Pieces below `MIN_PIECE` of the joined volume do not count; divisions are no partings.

    Parameters
    ----------
    detections : sequence of Detection
        All cells of a time-lapse.
    tracked : Tracked
        Their tracks.
    overlaps : dict of frame -> overlap
        Of each frame with the one before it (`overlap_of`); frames without one are judged by place and volume alone.
    max_distance_um : float
        How far a cell may lie from the mask that holds it.

    Returns
    -------
    list of Event
        By rising frame.
    """
    frames: dict[int, list[Detection]] = {}
    for one in detections:
        frames.setdefault(one.frame, []).append(one)
    parents = {track.track: track.parent for track in tracked.tracks}
    found = []
    for t in sorted(frames):
        if t - 1 not in frames:
            continue
        overlap = overlaps.get(t, {})
        turned = {(after, before): shared for (before, after), shared in overlap.items()}
        for joins, (first, second, shared) in (
            (True, (frames[t - 1], frames[t], overlap)),
            (False, (frames[t], frames[t - 1], turned)),
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
    """Cells of `second` that hold two or more of `first`."""
    tracks = {tracked.track_of[(one.frame, one.label)]: one for one in second}
    inside: dict[int, list[Detection]] = {whole.label: [] for whole in second}
    gone = []
    for piece in first:
        own = tracks.get(tracked.track_of[(piece.frame, piece.label)])
        gone += [piece] if own is None else []
        elsewhere = own is not None and own.volume_um3 > MIN_INSIDE * piece.volume_um3
        for whole in second:
            same = own is not None and own.label == whole.label
            lies_in = overlap.get((piece.label, whole.label), 0.0) >= MIN_INSIDE * piece.volume_um3
            if (same or (lies_in and not elsewhere)) and piece.volume_um3 >= MIN_PIECE * whole.volume_um3:
                inside[whole.label].append(piece)
    found = []
    for whole in second:
        pieces = inside[whole.label]
        if len(pieces) < 2:
            pieces = _balanced(whole, pieces, gone, max_distance_um)
        sizes = sorted((piece.volume_um3 for piece in pieces), reverse=True)
        # a neighbour that only came to lie where another was has not gained its volume
        if len(pieces) > 1 and whole.volume_um3 >= sizes[0] + BALANCE * sizes[1]:
            found.append((whole, pieces))
    return found


def _balanced(
    whole: Detection, inside: list[Detection], gone: Sequence[Detection], max_distance_um: float
) -> list[Detection]:
    """The cell that became `whole`, and the one that is gone and whose volume it gained."""
    near = [
        piece
        for piece in gone
        if piece.volume_um3 >= MIN_PIECE * whole.volume_um3
        and np.linalg.norm(np.subtract(piece.position_um, whole.position_um)) <= max_distance_um
    ]
    # without one that became it, two that are gone: the joined mask began a track of its own
    best, miss = inside, BALANCE
    for one in inside or near:
        for other in near:
            if one is other:
                continue
            gap = abs(whole.volume_um3 - one.volume_um3 - other.volume_um3) / min(one.volume_um3, other.volume_um3)
            if gap < miss:
                best, miss = [one, other], gap
    return best
