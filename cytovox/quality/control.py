"""Flag every cell in every frame: merges, splits, jumps, cut cells, nuclei, contrast."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from cytovox.quality.events import Event, Overlap, find_events
from cytovox.quality.rules import QualityRules
from cytovox.tracking.tracking import Detection, Tracked, TrackingRules, could_divide

#: Least number of cells in a field whose median change is subtracted before jumps are searched: in a hypotonic medium
#: all cells swell.
MIN_COMMON = 3


@dataclass(frozen=True)
class CellState:
    """Measurements of one cell in one frame that quality control uses."""

    detection: Detection
    dry_mass_pg: float
    border: str = ""
    """Faces of the field that the cell reaches."""
    nuclei: int | None = None
    contrast_ri: float = math.nan
    """Mean index of the cell minus that of its surroundings; nan if unknown."""
    interval_um3: tuple[float, float] | None = None
    """Interval of the volume, if known."""

    @property
    def key(self) -> tuple[int, int]:
        """Return frame and label."""
        return self.detection.frame, self.detection.label


def detection_of(row: Mapping[str, Any]) -> Detection:
    """Return the detection of a whole cell, from its row of the compartment table and the row's `frame`."""
    return Detection(row["frame"], row["cell"], (row["z_um"], row["y_um"], row["x_um"]), row["volume_um3"])


def cell_state(row: Mapping[str, Any]) -> CellState:
    """Return the state of a whole cell, from its row of the compartment table and the row's `frame`."""
    low, high = row.get("volume_low_um3"), row.get("volume_high_um3")
    contrast = row.get("contrast_ri")
    return CellState(
        detection_of(row), row["dry_mass_pg"], row["border"] or "", row["nuclei"],
        math.nan if contrast is None else contrast, None if low is None or high is None else (low, high),
    )  # fmt: skip


Flags = dict[tuple[int, int], set[str]]


def flag_cells(
    states: Sequence[CellState],
    tracked: Tracked,
    rules: QualityRules,
    overlaps: Mapping[int, Overlap] | None = None,
    max_distance_um: float = 15.0,
) -> Flags:
    """Flag every cell of a time-lapse in every frame.

    Parameters
    ----------
    states : sequence of CellState
        All cells of all frames.
    tracked : Tracked
        Their tracks.
    rules : QualityRules
        Thresholds.
    overlaps : dict of frame -> overlap, optional
        Overlap of each frame's labels with those of the previous frame (`cytovox.quality.events.overlap_of`).
    max_distance_um : float
        Largest distance between a cell and the joined mask that contains it.

    Returns
    -------
    dict of (frame, label) -> set of str
        Names in `cytovox.quality.rules.FLAGS`; every cell has an entry.
    """
    flags: Flags = {state.key: frame_flags(state, rules) for state in states}
    if rules.merges:
        events = find_events([state.detection for state in states], tracked, overlaps or {}, max_distance_um)
        _flag_joined(states, tracked, events, flags)
    unsized = {"merge", "split", "possible_division", "border"}  # their volumes are not those of one whole cell
    chains = _by_track([state for state in states if not flags[state.key] & unsized], tracked)
    for name, limit, values in (
        ("volume_jump", rules.volume_jump, {state.key: state.detection.volume_um3 for state in states}),
        ("mass_jump", rules.mass_jump, {state.key: state.dry_mass_pg for state in states}),
    ):
        if limit is not None:
            for key in _jumps([[state.key for state in chain] for chain in chains.values()], values, limit):
                flags[key].add(name)
    return flags


def _by_track(states: Sequence[CellState], tracked: Tracked) -> dict[int, list[CellState]]:
    """Return the states of each track by increasing frame."""
    chains: dict[int, list[CellState]] = {}
    for state in sorted(states, key=lambda one: one.key):
        chains.setdefault(tracked.track_of[state.key], []).append(state)
    return chains


def frame_flags(state: CellState, rules: QualityRules) -> set[str]:
    """Return the flags of a cell that need no other frame."""
    low, high = state.interval_um3 or (math.nan, math.nan)
    found = {
        "border": bool(state.border),
        "no_nucleus": state.nuclei == 0,
        "rim": bool(state.border) and state.nuclei == 0,
        "several_nuclei": (state.nuclei or 0) > 1,
        "low_contrast": rules.min_contrast_ri is not None and state.contrast_ri < rules.min_contrast_ri,
        "wide_interval": rules.max_interval is not None
        and high - low > rules.max_interval * state.detection.volume_um3,
    }
    return {name for name, holds in found.items() if holds}


def _flag_joined(states: Sequence[CellState], tracked: Tracked, events: Sequence[Event], flags: Flags) -> None:
    """Flag the wrong one of two states of a mask: joined, or apart."""
    by_key = {state.key: state for state in states}
    chains = _by_track(states, tracked)
    for track in sorted({event.track for event in events}):
        own = [event for event in events if event.track == track]
        joined = [state for state in chains[track] if _is_joined(state.detection.frame, own)]
        apart = [state for state in chains[track] if not _is_joined(state.detection.frame, own)]
        name = _what_joined(joined, apart, own, by_key)
        wrong = joined
        if name != "merge":
            frames = {state.detection.frame for state in apart}
            others = {tracked.track_of[key] for event in own for key in event.pieces} - {track}
            wrong = apart + [one for other in others for one in chains[other] if one.detection.frame in frames]
        for state in wrong:
            flags[state.key].add(name)


def _is_joined(frame: int, events: Sequence[Event]) -> bool:
    """Return whether the mask of a track is joined in a frame."""
    before = [event for event in events if event.frame <= frame]
    after = [event for event in events if event.frame > frame]
    return (bool(before) and before[-1].joins) or (bool(after) and not after[0].joins)


def _what_joined(
    joined: Sequence[CellState], apart: Sequence[CellState], events: Sequence[Event],
    by_key: Mapping[tuple[int, int], CellState],
) -> str:  # fmt: skip
    """Return `merge` (two cells, one mask), `split` (one cell, two masks) or `possible_division` (one became two).

    The nuclei decide. Where they are unknown or ambiguous, the state that lasts longer is taken as right.
    """
    pieces = [[by_key[key] for key in event.pieces] for event in events]
    if not any(one.nuclei is None for own in pieces for one in own):
        with_nucleus = [sum(bool(one.nuclei) for one in own) for own in pieces]
        if max(with_nucleus) <= 1:
            return "split"
        several = max((state.nuclei or 0 for state in joined), default=0) > 1
        if min(with_nucleus) > 1 and several:
            return "merge"
        if not several and not any(event.joins for event in events) and _divides(joined[-1], pieces[-1]):
            return "possible_division"
    # cells that join and never part again were two cells; of equally long states, the first one is right
    merge = all(event.joins for event in events) or len(joined) < len(apart) + events[0].joins
    return "merge" if merge else "split"


def _divides(mother: CellState, daughters: Sequence[CellState]) -> bool:
    return len(daughters) == 2 and could_divide(
        mother.detection, daughters[0].detection, daughters[1].detection, TrackingRules(max_distance_um=math.inf)
    )


def _jumps(
    chains: Sequence[Sequence[tuple[int, int]]], values: Mapping[tuple[int, int], float], limit: float
) -> set[tuple[int, int]]:
    """Return frames of tracks in which a value differs by a factor of `limit` or more from the last good one.

    Good frames are those of the longest run without a jump, and, going from there to both ends of the track, each frame
    whose value is within the factor of the last good one. The median change of the field's cells is subtracted first.
    """
    logs = {key: math.log(value) for key, value in values.items() if value > 0}
    chains = [[key for key in chain if key in logs] for chain in chains]
    common = _common_change(chains, logs)
    found: set[tuple[int, int]] = set()
    for chain in chains:
        if len(chain) > 1:
            good = _good(np.array([logs[key] - common[key[0]] for key in chain]), math.log(limit))
            found |= {key for key, is_good in zip(chain, good, strict=True) if not is_good}
    return found


def _common_change(
    chains: Sequence[Sequence[tuple[int, int]]], logs: Mapping[tuple[int, int], float]
) -> dict[int, float]:
    """Return the sum of the median changes of all cells up to each frame."""
    steps: dict[int, list[float]] = {key[0]: [] for chain in chains for key in chain}
    for before, now in (pair for chain in chains for pair in pairwise(chain)):
        if now[0] == before[0] + 1:
            steps[now[0]].append(logs[now] - logs[before])
    total, common = 0.0, {}
    for frame in sorted(steps):
        if len(steps[frame]) >= MIN_COMMON:
            total += float(np.median(steps[frame]))
        common[frame] = total
    return common


def _good(level: np.ndarray, limit: float) -> np.ndarray:
    """Return which values of a track continue its longest run without a step of `limit` or more."""
    starts = np.concatenate([[0], np.flatnonzero(np.abs(np.diff(level)) >= limit) + 1, [len(level)]])
    longest = int(np.argmax(np.diff(starts)))  # the first of equally long ones
    first, end = starts[longest], starts[longest + 1]
    good = np.zeros(len(level), bool)
    good[first:end] = True
    for last, rest in ((level[end - 1], range(end, len(level))), (level[first], range(first - 1, -1, -1))):
        for k in rest:
            if abs(level[k] - last) < limit:
                good[k], last = True, level[k]
    return good
