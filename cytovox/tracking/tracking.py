"""The same cell from frame to frame: tracks, divisions and gaps, by linear assignment.

A *track* is one cell from its first frame to its last, or to its division. A *lineage* is a cell with all that came of
it: the track that nothing divided into, its daughters, and theirs. Without divisions every track is its own lineage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize

#: A cell of 15 µm that moves at 0.5 µm per minute stays nearer than its neighbours for half an hour.
MAX_DISTANCE_UM = 15.0
#: Bounds of a division. Daughters of cultured cells differ by some 10 % and share the mother's volume between them; the
#: bounds leave room for errors of segmentation, and none for specks.
MIN_SHARE, MAX_SHARE = 0.25, 0.75
"""Volume of each daughter over the mother's."""
MIN_SUM, MAX_SUM = 0.7, 1.4
"""Volume of both daughters over the mother's."""
MAX_RATIO = 2.0
"""Volume of the larger daughter over the smaller's."""
MAX_RETURN = 0.9
"""A daughter that has more than this of the mother's volume in its next frame is no daughter: the mask was in two."""


@dataclass(frozen=True)
class Detection:
    """One cell in one frame."""

    frame: int
    """Number of the frame in its time-lapse."""
    label: int
    """Of the cell in that frame."""
    position_um: tuple[float, float, float]
    """Centre of gravity z, y, x."""
    volume_um3: float


@dataclass(frozen=True)
class TrackingRules:
    """What may be the same cell."""

    max_distance_um: float = MAX_DISTANCE_UM
    """A cell is not looked for farther away than this in the next frame."""
    max_gap: int = 1
    """Frames that a cell may be missing in; 0 ends its track at once."""
    divisions: bool = False
    """Whether a track may go on as two, of plausible sizes; see `could_divide`."""
    volume_weight: float = 1.0
    """How much a difference in size counts: the difference of the cells' diameters, in µm, is one more distance."""


@dataclass(frozen=True)
class Track:
    """One line of the lineage."""

    track: int
    """1, 2, 3 ... in the order of first detection, then of label."""
    parent: int | None
    """The track that divided into this one and another."""
    lineage: int
    """Its first mother's track, which stands for the cell and all that came of it; without one, its own."""
    first_frame: int
    last_frame: int
    detections: int
    """Frames it was seen in: fewer than it spans where there are gaps."""
    divided: bool
    """Whether it ended by dividing."""


@dataclass(frozen=True)
class Tracked:
    """Tracks of one time-lapse."""

    track_of: dict[tuple[int, int], int]
    """(frame, label) to track."""
    tracks: list[Track]


def track_cells(detections: Sequence[Detection], rules: TrackingRules | None = None) -> Tracked:
    """Link cells over the frames of a time-lapse.

    Frame to frame, cells are linked so that the sum of their squared distances is smallest; then ends of tracks are
    joined to begins over gaps. With `rules.divisions`, a track that begins is then a daughter where sizes and places
    of mother and both daughters allow it (`could_divide`): the mother's track ends, and each daughter has one.

    Parameters
    ----------
    detections : sequence of Detection
        All cells of all frames, in any order. A frame that is missing counts as a gap.
    rules : TrackingRules, optional

    Returns
    -------
    Tracked
        Every detection is in one track. Daughters of a division are tracks of their own.

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
        parent = number[mothers[k]] if k in mothers else None
        seen = [one.frame for one in parts[k]]
        divided = k in mothers.values()
        tracks.append(Track(number[k], parent, number[root], seen[0], seen[-1], len(seen), divided))
    return Tracked({(one.frame, one.label): number[k] for k in order for one in parts[k]}, tracks)


def could_divide(mother: Detection, one: Detection, other: Detection, rules: TrackingRules) -> bool:
    """Whether two cells can be the daughters of one, by place and size.

    Parameters
    ----------
    mother : Detection
        Last seen.
    one, other : Detection
        First seen, each in a later frame than the mother, both within `rules.max_gap`.
    rules : TrackingRules

    Returns
    -------
    bool
        True where each daughter lies within `rules.max_distance_um` of the mother and has `MIN_SHARE` to `MAX_SHARE` of
        her volume, both together have `MIN_SUM` to `MAX_SUM` of it, and one has at most `MAX_RATIO` times the other's.
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
    """A track number for every detection, in laptrack's own numbers."""
    frames = sorted({one.frame for one in ordered})
    if len(frames) == 1:
        return list(range(len(ordered)))
    import pandas as pd  # late: they take a second, and every config knows these rules
    from laptrack import LapTrack

    squared = rules.max_distance_um**2
    tracker = LapTrack(  # type: ignore[call-arg]  # pydantic's defaults
        cutoff=squared,
        gap_closing_cutoff=squared if rules.max_gap else False,
        gap_closing_max_frame_count=rules.max_gap + 1,  # it counts steps
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
    # laptrack sorts by frame and keeps the order within one, which is ours
    return [int(value) for value in found["track_id"]]


def _divide(parts: list[list[Detection]], rules: TrackingRules) -> dict[int, int]:
    """Cut tracks where they divide: `parts` is changed in place. Returns the mother of every daughter.

    Frame by frame, by the choice that makes most divisions with the shortest ways.
    """
    mothers: dict[int, int] = {}
    for frame in sorted({one.frame for chain in parts for one in chain}):
        for mother, place, one, other in _best(_candidates(parts, mothers, frame, rules)):
            if place < len(parts[mother]):  # the first daughter is what was linked to the mother
                parts.append(parts[mother][place:])
                del parts[mother][place:]
                one = len(parts) - 1
            mothers[one] = mothers[other] = mother
    return mothers


#: Mother's track, how many of its detections are hers, tracks of both daughters (the first is the mother's own where it
#: goes on), and the sum of their squared distances.
_Candidate = tuple[int, int, int, int, float]


def _candidates(
    parts: Sequence[Sequence[Detection]], mothers: Mapping[int, int], frame: int, rules: TrackingRules
) -> list[_Candidate]:
    """All that could divide after a frame."""
    begun = [
        k for k, chain in enumerate(parts) if k not in mothers and frame < chain[0].frame <= frame + rules.max_gap + 1
    ]
    found: list[_Candidate] = []
    if not begun:
        return found
    for k, chain in enumerate(parts):
        place = next((n for n, one in enumerate(chain, start=1) if one.frame == frame), None)
        if place is None:
            continue
        goes_on = place < len(chain)
        firsts = [(k, chain[place:])] if goes_on else [(n, parts[n]) for n in begun]
        for a, first in firsts:
            for b in begun:
                if a == b or (not goes_on and b < a):
                    continue
                mother, daughters = chain[place - 1], (first, parts[b])
                if could_divide(mother, first[0], parts[b][0], rules) and not any(
                    len(own) > 1 and own[1].volume_um3 > MAX_RETURN * mother.volume_um3 for own in daughters
                ):
                    cost = sum(_distance_um(mother, own[0]) ** 2 for own in daughters)
                    found.append((k, place, a, b, cost))
    return found


def _best(found: Sequence[_Candidate]) -> list[tuple[int, int, int, int]]:
    """Of all candidates those that use no track twice, the most of them, and of these the shortest ways."""
    if not found:
        return []
    tracks = sorted({track for mother, _, one, other, _ in found for track in (mother, one, other)})
    row = {track: n for n, track in enumerate(tracks)}
    uses = np.zeros((len(tracks), len(found)))
    for n, (mother, _, one, other, _) in enumerate(found):
        uses[[row[mother], row[one], row[other]], n] = 1
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
