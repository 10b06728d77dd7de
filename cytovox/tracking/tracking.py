"""Tracking of cells by linear assignment, with gaps and divisions.

A *track* is one cell from its first to its last frame, or to its division. A *lineage* is a track without a parent,
together with its daughters and their descendants. Without divisions every track is its own lineage.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize

#: Distance that a cell moves in half an hour at 0.5 µm per minute, about the diameter of a cell.
MAX_DISTANCE_UM = 15.0
#: Bounds of a division. Volumes of daughters of cultured cells differ by about 10 %, and their sum is the mother's
#: volume. The bounds allow for segmentation errors, but exclude debris.
MIN_SHARE, MAX_SHARE = 0.25, 0.75
"""Volume of each daughter over the mother's."""
MIN_SUM, MAX_SUM = 0.7, 1.4
"""Volume of both daughters over the mother's."""
MAX_RATIO = 2.0
"""Volume of the larger daughter over the smaller's."""
MAX_RETURN = 0.9
"""Volume of each daughter in its second frame over the mother's. A larger cell is the mother; its mask was split."""


@dataclass(frozen=True)
class Detection:
    """One cell in one frame."""

    frame: int
    """Index of the frame in the time-lapse."""
    label: int
    """Label of the cell in that frame."""
    position_um: tuple[float, float, float]
    """Centroid z, y, x."""
    volume_um3: float


@dataclass(frozen=True)
class TrackingRules:
    """Limits on the detections that may be linked."""

    max_distance_um: float = MAX_DISTANCE_UM
    """Largest distance between the positions of a cell in successive frames."""
    max_gap: int = 1
    """Largest number of successive frames in which a cell may be missing."""
    divisions: bool = False
    """Whether tracks may divide; see `could_divide`."""
    volume_weight: float = 1.0
    """Weight of the difference of the cells' diameters in µm, which is a fourth coordinate of the distance."""


@dataclass(frozen=True)
class Track:
    """One track of a time-lapse."""

    track: int
    """Number of the track: 1, 2, 3, ... in the order of first frame, then of label."""
    parent: int | None
    """Number of the track that divided into this one and another; None if there is none."""
    lineage: int
    """Number of the earliest ancestor's track; the track's own number if it has no parent."""
    first_frame: int
    last_frame: int
    detections: int
    """Number of frames with a detection; gaps are not counted."""
    divided: bool
    """Whether the track ends in a division."""


@dataclass(frozen=True)
class Tracked:
    """Tracks of one time-lapse."""

    track_of: dict[tuple[int, int], int]
    """Track number of each (frame, label)."""
    tracks: list[Track]


def track_cells(detections: Sequence[Detection], rules: TrackingRules | None = None) -> Tracked:
    """Link the cells of a time-lapse from frame to frame, and return their tracks.

    Cells of successive frames are linked so that the sum of squared distances is smallest. Ends and starts of tracks
    are then linked over gaps. With `rules.divisions`, a track that starts later becomes a daughter if sizes and
    positions of the mother and both daughters permit (`could_divide`). The mother's track then ends.

    Parameters
    ----------
    detections : sequence of Detection
        All cells of all frames, in any order. A frame without detections is a gap.
    rules : TrackingRules, optional

    Returns
    -------
    Tracked
        Every detection is in one track. Each daughter of a division is a new track.

    References
    ----------
    Jaqaman et al. 2008, Nature Methods 5, 695; laptrack (Fukai and Kawaguchi 2023, Bioinformatics 39).
    """
    rules = rules or TrackingRules()
    if not detections:
        return Tracked({}, [])
    ordered = sorted(detections, key=lambda one: (one.frame, one.label))
    chains: dict[int, list[Detection]] = {}
    for one, part in zip(ordered, _linked(ordered, rules), strict=True):
        chains.setdefault(part, []).append(one)
    parts = list(chains.values())
    mothers = _divide(parts, rules) if rules.divisions else {}
    order = sorted(range(len(parts)), key=lambda k: (parts[k][0].frame, parts[k][0].label))
    number = {k: n for n, k in enumerate(order, start=1)}
    tracks = []
    for k in order:
        root = k
        while root in mothers:
            root = mothers[root]
        tracks.append(
            Track(
                track=number[k],
                parent=number[mothers[k]] if k in mothers else None,
                lineage=number[root],
                first_frame=parts[k][0].frame,
                last_frame=parts[k][-1].frame,
                detections=len(parts[k]),
                divided=k in mothers.values(),
            )
        )
    return Tracked({(one.frame, one.label): number[k] for k in order for one in parts[k]}, tracks)


def could_divide(mother: Detection, one: Detection, other: Detection, rules: TrackingRules) -> bool:
    """Return whether two cells can be the daughters of a third, by position and volume.

    Parameters
    ----------
    mother : Detection
        Last detection of the mother.
    one, other : Detection
        First detections of the daughters.
    rules : TrackingRules

    Returns
    -------
    bool
        True if both daughters start after the mother's last frame with a gap of at most `rules.max_gap` frames, each is
        within `rules.max_distance_um` of the mother and has `MIN_SHARE` to `MAX_SHARE` of the mother's volume, both
        together have `MIN_SUM` to `MAX_SUM` of it, and the larger has at most `MAX_RATIO` times the smaller's volume.
    """
    small, large = sorted((one.volume_um3, other.volume_um3))
    return (
        mother.frame < min(one.frame, other.frame)
        and max(one.frame, other.frame) - mother.frame <= rules.max_gap + 1
        and max(_distance_um(mother, one), _distance_um(mother, other)) <= rules.max_distance_um
        and mother.volume_um3 * MIN_SHARE <= small
        and large <= mother.volume_um3 * MAX_SHARE
        and mother.volume_um3 * MIN_SUM <= small + large <= mother.volume_um3 * MAX_SUM
        and large <= small * MAX_RATIO
    )


def _distance_um(one: Detection, other: Detection) -> float:
    return float(np.linalg.norm(np.subtract(one.position_um, other.position_um)))


def _linked(ordered: Sequence[Detection], rules: TrackingRules) -> list[int]:
    """Return laptrack's track number of every detection."""
    if ordered[0].frame == ordered[-1].frame:
        return list(range(len(ordered)))
    import pandas as pd  # imported here, because both take a second and every config imports this module
    from laptrack import LapTrack

    squared = rules.max_distance_um**2
    tracker = LapTrack(  # type: ignore[call-arg]  # pydantic's defaults
        cutoff=squared,
        gap_closing_cutoff=squared if rules.max_gap else False,
        gap_closing_max_frame_count=rules.max_gap + 1,  # laptrack's count includes the frame after the gap
        splitting_cutoff=False,
    )
    diameters = np.cbrt(6 / np.pi * np.array([one.volume_um3 for one in ordered]))
    table = pd.DataFrame(
        {
            "frame": [one.frame for one in ordered],
            **{axis: [one.position_um[k] for one in ordered] for k, axis in enumerate("zyx")},
            "size": rules.volume_weight * diameters,
        }
    )
    found, _, _ = tracker.predict_dataframe(table, coordinate_cols=["z", "y", "x", "size"], only_coordinate_cols=False)
    # laptrack sorts by frame, and keeps the order within a frame: the order of `ordered`
    return [int(value) for value in found["track_id"]]


def _divide(parts: list[list[Detection]], rules: TrackingRules) -> dict[int, int]:
    """Split the tracks `parts` in place where they divide, and return the mother of every daughter.

    In each frame, the number of divisions is the largest possible, and then the sum of squared distances the smallest.
    """
    mothers: dict[int, int] = {}
    for frame in sorted({one.frame for chain in parts for one in chain}):
        for mother, place, one, other in _best(_candidates(parts, mothers, frame, rules)):
            if place < len(parts[mother]):  # the rest of the mother's track is the first daughter
                parts.append(parts[mother][place:])
                del parts[mother][place:]
                one = len(parts) - 1
            mothers[one] = mothers[other] = mother
    return mothers


#: A possible division: mother's track, number of its detections before the division, tracks of both daughters (the
#: first is the mother's track if it continues), and sum of the daughters' squared distances.
_Candidate = tuple[int, int, int, int, float]


def _candidates(
    parts: Sequence[Sequence[Detection]], mothers: Mapping[int, int], frame: int, rules: TrackingRules
) -> list[_Candidate]:
    """Return all possible divisions after a frame."""
    begun = [
        k for k, chain in enumerate(parts) if k not in mothers and frame < chain[0].frame <= frame + rules.max_gap + 1
    ]
    found: list[_Candidate] = []
    for k, chain in enumerate(parts if begun else []):
        place = next((n for n, one in enumerate(chain, start=1) if one.frame == frame), None)
        if place is None:
            continue
        mother = chain[place - 1]
        for a, b in itertools.product([k], begun) if place < len(chain) else itertools.combinations(begun, 2):
            one, other = daughters = chain[place:] or parts[a], parts[b]
            if could_divide(mother, one[0], other[0], rules) and not any(
                len(own) > 1 and own[1].volume_um3 > MAX_RETURN * mother.volume_um3 for own in daughters
            ):
                found.append((k, place, a, b, sum(_distance_um(mother, own[0]) ** 2 for own in daughters)))
    return found


def _best(found: Sequence[_Candidate]) -> list[tuple[int, int, int, int]]:
    """Return the largest set of candidates with each track in at most one, and of such sets the one of lowest cost."""
    if not found:
        return []
    tracks = sorted({track for mother, _, one, other, _ in found for track in (mother, one, other)})
    uses = np.array([[float(track in (m, one, other)) for m, _, one, other, _ in found] for track in tracks])
    costs = np.array([cost for *_, cost in found])
    answer = scipy.optimize.milp(
        costs - (1.0 + costs.sum()),
        constraints=scipy.optimize.LinearConstraint(uses, ub=1),
        integrality=np.ones(len(found)),
        bounds=scipy.optimize.Bounds(0, 1),
    )
    return [
        (m, place, one, other) for (m, place, one, other, _), taken in zip(found, answer.x, strict=True) if taken > 0.5
    ]
