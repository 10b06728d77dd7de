"""Quality control of every cell in every frame: merges, splits, jumps, cut cells, nuclei, contrast."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cytovox.quality.events import Event, Overlap, find_events
from cytovox.quality.rules import QualityRules
from cytovox.tracking.tracking import Detection, Tracked, TrackingRules, could_divide

#: Number of cells in a field from which their median change is subtracted before jumps are judged: in a hypotonic
#: medium all of them swell.
MIN_COMMON = 3


@dataclass(frozen=True)
class CellState:
    """What quality control reads of one cell in one frame."""

    detection: Detection
    dry_mass_pg: float
    border: str = ""
    """Faces of the field that the cell reaches."""
    nuclei: int | None = None
    contrast_ri: float = math.nan
    """Mean index of the cell less its surroundings'; nan where it is not known."""
    interval_um3: tuple[float, float] | None = None
    """Of the volume, where there is one."""

    @property
    def key(self) -> tuple[int, int]:
        """Frame and label."""
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
        Of each frame's labels with those of the frame before (`cytovox.quality.events.overlap_of`).
    max_distance_um : float
        How far cells may lie from the mask that holds them.

    Returns
    -------
    dict of (frame, label) -> set of str
        Names in `cytovox.quality.rules.FLAGS`; every cell has an entry.
    """
    flags: Flags = {state.key: frame_flags(state, rules) for state in states}
    if rules.merges:
        events = find_events([state.detection for state in states], tracked, overlaps or {}, max_distance_um)
        _flag_joined(states, tracked, events, flags)
    chains: dict[int, list[CellState]] = {}
    for state in sorted(states, key=lambda one: one.key):
        if not flags[state.key] & {"merge", "split", "possible_division", "border"}:
            chains.setdefault(tracked.track_of[state.key], []).append(state)
    for name, limit, values in (
        ("volume_jump", rules.volume_jump, {state.key: state.detection.volume_um3 for state in states}),
        ("mass_jump", rules.mass_jump, {state.key: state.dry_mass_pg for state in states}),
    ):
        if limit is not None:
            for key in _jumps([[state.key for state in chain] for chain in chains.values()], values, limit):
                flags[key].add(name)
    return flags


def frame_flags(state: CellState, rules: QualityRules) -> set[str]:
    """Return the flags that one frame alone gives."""
    flags = set()
    if state.border:
        flags.add("border")
    if state.nuclei == 0:
        flags |= {"no_nucleus", "rim"} if state.border else {"no_nucleus"}
    elif state.nuclei is not None and state.nuclei > 1:
        flags.add("several_nuclei")
    if rules.min_contrast_ri is not None and state.contrast_ri < rules.min_contrast_ri:
        flags.add("low_contrast")
    if rules.max_interval is not None and state.interval_um3 is not None:
        low, high = state.interval_um3
        if high - low > rules.max_interval * state.detection.volume_um3:
            flags.add("wide_interval")
    return flags


def _flag_joined(states: Sequence[CellState], tracked: Tracked, events: Sequence[Event], flags: Flags) -> None:
    """Between joining and parting, one of the two states is wrong: flag it."""
    by_key = {state.key: state for state in states}
    chains: dict[int, list[CellState]] = {}
    for state in sorted(states, key=lambda one: one.key):
        chains.setdefault(tracked.track_of[state.key], []).append(state)
    for track in sorted({event.track for event in events}):
        own = [event for event in events if event.track == track]
        joined, apart = _phases(chains[track], own)
        others = {tracked.track_of[key] for event in own for key in event.pieces} - {track}
        name = _what_joined(joined, apart, own, by_key)
        if name == "merge":
            for state in joined:
                flags[state.key].add(name)
            continue
        spans = {state.detection.frame for state in apart}
        for state in apart + [state for other in sorted(others) for state in chains[other]]:
            if state.detection.frame in spans:
                flags[state.key].add(name)


def _phases(chain: Sequence[CellState], events: Sequence[Event]) -> tuple[list[CellState], list[CellState]]:
    """Frames of a track in which its mask is joined, and those in which it is apart."""
    joined: list[CellState] = []
    apart: list[CellState] = []
    for state in chain:
        t = state.detection.frame
        before = [event for event in events if event.frame <= t]
        after = [event for event in events if event.frame > t]
        is_joined = (bool(before) and before[-1].joins) or (bool(after) and not after[0].joins)
        (joined if is_joined else apart).append(state)
    return joined, apart


def _what_joined(
    joined: Sequence[CellState], apart: Sequence[CellState], events: Sequence[Event],
    by_key: Mapping[tuple[int, int], CellState],
) -> str:  # fmt: skip
    """Whether two cells were one mask (`merge`), one was two (`split`), or one became two (`possible_division`).

    Nuclei tell; where they are not known, or say nothing, the state that lasts longer is right.
    """
    pieces = [[by_key[key] for key in event.pieces] for event in events]
    with_nucleus = [sum(bool(one.nuclei) for one in own) for own in pieces]
    if not any(one.nuclei is None for own in pieces for one in own):
        if max(with_nucleus) <= 1:
            return "split"
        several = max((state.nuclei or 0 for state in joined), default=0) > 1
        if min(with_nucleus) > 1 and several:
            return "merge"
        if not several and not any(event.joins for event in events) and _divides(joined[-1], pieces[-1]):
            return "possible_division"
    if all(event.joins for event in events):
        return "merge"  # cells that were apart from the first frame on, and never part again
    if len(joined) == len(apart):
        return "merge" if events[0].joins else "split"
    return "merge" if len(joined) < len(apart) else "split"


def _divides(mother: CellState, daughters: Sequence[CellState]) -> bool:
    return len(daughters) == 2 and could_divide(
        mother.detection, daughters[0].detection, daughters[1].detection, TrackingRules(max_distance_um=math.inf)
    )


def _jumps(
    chains: Sequence[Sequence[tuple[int, int]]], values: Mapping[tuple[int, int], float], limit: float
) -> set[tuple[int, int]]:
    """Return frames of tracks in which a value differs by a factor of `limit` or more from the last good one.

    Good are the frames of the longest stretch without a jump, and from there to both ends of the track each that lies
    within the factor of the last good one. The median change of the field's cells is subtracted first.
    """
    frames = sorted({key[0] for chain in chains for key in chain})
    logs = {key: math.log(value) for key, value in values.items() if value > 0}
    common = _common_change(chains, logs, frames)
    found: set[tuple[int, int]] = set()
    for chain in chains:
        keys = [key for key in chain if key in logs]
        level = np.array([logs[key] - common[key[0]] for key in keys])
        if len(keys) > 1:
            found |= {key for key, good in zip(keys, _good(level, math.log(limit)), strict=True) if not good}
    return found


def _common_change(
    chains: Sequence[Sequence[tuple[int, int]]], logs: Mapping[tuple[int, int], float], frames: Sequence[int]
) -> dict[int, float]:
    """Sum of the median changes of all cells up to each frame."""
    steps: dict[int, list[float]] = {}
    for chain in chains:
        labels = dict(chain)
        for frame, label in chain:
            before, now = (frame - 1, labels.get(frame - 1, 0)), (frame, label)
            if frame - 1 in labels and before in logs and now in logs:
                steps.setdefault(frame, []).append(logs[now] - logs[before])
    total, common = 0.0, {}
    for frame in frames:
        if len(steps.get(frame, ())) >= MIN_COMMON:
            total += float(np.median(steps[frame]))
        common[frame] = total
    return common


def _good(level: np.ndarray, limit: float) -> np.ndarray:
    """Which values of a track go on from its longest stretch without a step of `limit` or more."""
    starts = np.concatenate([[0], np.flatnonzero(np.abs(np.diff(level)) >= limit) + 1, [len(level)]])
    longest = int(np.argmax(np.diff(starts)))  # of equally long ones the first
    good = np.zeros(len(level), bool)
    good[starts[longest] : starts[longest + 1]] = True
    for way in (range(starts[longest + 1], len(level)), range(starts[longest] - 1, -1, -1)):
        last = level[starts[longest + 1] - 1] if way.step > 0 else level[starts[longest]]
        for k in way:
            if abs(level[k] - last) < limit:
                good[k], last = True, level[k]
    return good
