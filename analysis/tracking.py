"""The same cell from frame to frame: tracks, divisions and gaps, by linear assignment."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: A cell of 15 µm that moves at 0.5 µm a minute is told from its neighbours for half an hour.
MAX_DISTANCE_UM = 15.0


@dataclass(frozen=True)
class Sighting:
    """One cell in one frame."""

    frame: int
    """Number of the frame in its film."""
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
    divisions: bool = True
    """Whether a track may go on as two."""
    volume_weight: float = 1.0
    """How much a difference in size counts: the difference of the cells' diameters, in µm, is one more distance."""


@dataclass(frozen=True)
class Track:
    """One line of the lineage."""

    track: int
    """1, 2, 3 ... in the order of first sighting, then of label."""
    parent: int | None
    """The track that divided into this one and others."""
    first_frame: int
    last_frame: int
    sightings: int
    """Frames it was seen in: fewer than it spans where there are gaps."""
    divided: bool
    """Whether it ended by dividing."""


@dataclass(frozen=True)
class Tracked:
    """Tracks of one film."""

    track_of: dict[tuple[int, int], int]
    """(frame, label) to track."""
    tracks: list[Track]


def track_cells(sightings: Sequence[Sighting], rules: TrackingRules | None = None) -> Tracked:
    """Link cells over the frames of a film.

    Frame to frame, cells are linked so that the sum of their squared distances is smallest; then ends of tracks are
    joined over gaps, and begins of tracks to the middles of others where a cell divided.

    Parameters
    ----------
    sightings : sequence of Sighting
        All cells of all frames, in any order. A frame that is missing counts as a gap.
    rules : TrackingRules, optional

    Returns
    -------
    Tracked
        Every sighting is in one track. Daughters of a division are tracks of their own.

    References
    ----------
    Jaqaman et al. 2008, Nature Methods 5, 695; laptrack (Fukai and Kawaguchi 2023, Bioinformatics 39).
    """
    rules = rules or TrackingRules()
    if not sightings:
        return Tracked({}, [])
    ordered = sorted(sightings, key=lambda one: (one.frame, one.label))
    parts, splits = _linked(ordered, rules)
    first = {part: min(index for index, own in enumerate(parts) if own == part) for part in set(parts)}
    number = {part: n for n, part in enumerate(sorted(first, key=lambda part: first[part]), start=1)}
    parents = {number[child]: number[parent] for parent, child in splits}
    track_of = {(one.frame, one.label): number[part] for one, part in zip(ordered, parts, strict=True)}
    frames: dict[int, list[int]] = {}
    for (frame, _), track in track_of.items():
        frames.setdefault(track, []).append(frame)
    dividing = set(parents.values())
    tracks = [
        Track(track, parents.get(track), min(seen), max(seen), len(seen), track in dividing)
        for track, seen in sorted(frames.items())
    ]
    return Tracked(track_of, tracks)


def _linked(ordered: Sequence[Sighting], rules: TrackingRules) -> tuple[list[int], list[tuple[int, int]]]:
    """A track number for every sighting, and (parent, child) of every division, in laptrack's own numbers."""
    frames = sorted({one.frame for one in ordered})
    if len(frames) == 1:
        return list(range(len(ordered))), []
    import pandas as pd  # late: they take a second, and every config knows these rules
    from laptrack import LapTrack

    squared = rules.max_distance_um**2
    tracker = LapTrack(  # type: ignore[call-arg]  # pydantic's defaults
        cutoff=squared,
        gap_closing_cutoff=squared if rules.max_gap else False,
        gap_closing_max_frame_count=rules.max_gap + 1,  # it counts steps
        splitting_cutoff=squared if rules.divisions else False,
        splitting_metric=_divided,
    )
    diameters = np.cbrt(6 / np.pi * np.array([one.volume_um3 for one in ordered]))
    table = pd.DataFrame(
        {
            "frame": [one.frame for one in ordered],
            **{axis: [one.position_um[k] for one in ordered] for k, axis in enumerate("zyx")},
            "size": rules.volume_weight * diameters,
        }
    )
    found, splits, _ = tracker.predict_dataframe(
        table, coordinate_cols=["z", "y", "x", "size"], only_coordinate_cols=False
    )
    # laptrack sorts by frame and keeps the order within one, which is ours
    parts = [int(value) for value in found["track_id"]]
    pairs = [] if splits.empty else [(int(a), int(b)) for a, b in splits[["parent_track_id", "child_track_id"]].values]
    return parts, pairs


def _divided(one: np.ndarray, other: np.ndarray) -> float:
    """Squared distance without the size: daughters are half of their mother."""
    return float(np.sum((np.asarray(one)[:3] - np.asarray(other)[:3]) ** 2))
