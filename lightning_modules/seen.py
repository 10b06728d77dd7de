"""Which cells and volumes weights have seen: fingerprints (`datamodules.fingerprints`) are kept in their metadata.

A prediction for a cell of the training is better than one for a new cell. Its scores and features say nothing of new
cells, and a classifier that learns from them learns a quality that no other cell has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from cytovox.models.metadata import CheckpointMetadata
from cytovox.statistics.feature_tables import NO, UNKNOWN, YES
from cytovox.statistics.feature_tables import SEEN as COLUMN

AnyMetadata = TypeVar("AnyMetadata", bound=CheckpointMetadata)


def counted_seen(metadata: CheckpointMetadata, fingerprints: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """Return `seen_in_training` of each, and how often each answer was given: "yes" and "unknown" also if never."""
    known, other = frozenset(metadata.seen), NO if metadata.seen_all else UNKNOWN
    found = [YES if one in known else other for one in fingerprints]
    return found, {YES: found.count(YES), UNKNOWN: found.count(UNKNOWN), NO: found.count(NO)}


def seen_metrics(counted: Mapping[str, int], stage: str) -> dict[str, int]:
    """Return what a run folder keeps of it, for the report."""
    return {f"{stage}/{COLUMN}_{answer}": counted[answer] for answer in (YES, UNKNOWN)}


def seen_by_all(metadata: AnyMetadata, others: Iterable[CheckpointMetadata]) -> AnyMetadata:
    """Return the metadata of an ensemble: it has seen what any of its members has."""
    for other in others:
        metadata = resumed_from(metadata, other.seen, other.seen_all)
    return metadata


def begun_from(metadata: AnyMetadata, start: CheckpointMetadata | None) -> AnyMetadata:
    """Return the metadata of a training that begins with these weights, whose data it has seen, or with random ones."""
    if start is None:
        return dataclasses.replace(metadata, seen=[], seen_all=True)
    return dataclasses.replace(metadata, seen=list(start.seen), seen_all=start.seen_all)


def trained_on(metadata: AnyMetadata, fingerprints: Collection[str]) -> AnyMetadata:
    """Return the metadata of weights that were trained, stopped early or tuned on these, too."""
    return dataclasses.replace(metadata, seen=sorted({*metadata.seen, *fingerprints}))


def resumed_from(metadata: AnyMetadata, seen: Collection[str], seen_all: bool) -> AnyMetadata:
    """Return the metadata of a training that goes on from a checkpoint: it has seen what that has."""
    return dataclasses.replace(trained_on(metadata, seen), seen_all=metadata.seen_all and seen_all)


def seen_note(counted: Mapping[str, int], what: str, consequence: str) -> str | None:
    """Return the line that says how many were seen in training; None where it is known of all that they were not.

    Parameters
    ----------
    counted : mapping
        From `counted_seen`.
    what : str
        What they are, in the plural, such as "test cells".
    consequence : str
        What follows for those that were seen.
    """
    total, seen, unknown = sum(counted.values()), counted[YES], counted[UNKNOWN]
    parts = []
    if seen:
        parts.append(f"{seen} of {total} {what} were seen in training by these weights: {consequence}")
    if unknown:
        parts.append(f"of {unknown} of {total} {what} it is not known whether these weights have seen them")
    return f"note: {'; '.join(parts)}" if parts else None
