"""Record of the cells and volumes that a model was trained on: their fingerprints are stored in its metadata.

A prediction is better for a cell of the training set than for a new one. Scores and features of training cells do not
apply to new cells, and a classifier trained on them relies on a quality that predictions of new cells do not have.
See `datamodules.fingerprints`.
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
    """Return `seen_in_training` of each fingerprint, and the count of each answer, zero counts included."""
    known, other = frozenset(metadata.seen), NO if metadata.seen_all else UNKNOWN
    found = [YES if one in known else other for one in fingerprints]
    return found, {YES: found.count(YES), UNKNOWN: found.count(UNKNOWN), NO: found.count(NO)}


def seen_metrics(counted: Mapping[str, int], stage: str) -> dict[str, int]:
    """Return the counts as metrics of a run folder, for the report."""
    return {f"{stage}/{COLUMN}_{answer}": counted[answer] for answer in (YES, UNKNOWN)}


def seen_by_all(metadata: AnyMetadata, others: Iterable[CheckpointMetadata]) -> AnyMetadata:
    """Return the metadata of an ensemble: the union of the training data of its members."""
    for other in others:
        metadata = resumed_from(metadata, other.seen, other.seen_all)
    return metadata


def begun_from(metadata: AnyMetadata, start: CheckpointMetadata | None) -> AnyMetadata:
    """Return the metadata of a training that starts from other weights and their training data, or at random."""
    seen, seen_all = ([], True) if start is None else (list(start.seen), start.seen_all)
    return dataclasses.replace(metadata, seen=seen, seen_all=seen_all)


def trained_on(metadata: AnyMetadata, fingerprints: Collection[str]) -> AnyMetadata:
    """Return the metadata with more training data: data used for training, early stopping or tuning."""
    return dataclasses.replace(metadata, seen=sorted({*metadata.seen, *fingerprints}))


def resumed_from(metadata: AnyMetadata, seen: Collection[str], seen_all: bool) -> AnyMetadata:
    """Return the metadata of a training resumed from a checkpoint, with the training data recorded there."""
    return dataclasses.replace(trained_on(metadata, seen), seen_all=metadata.seen_all and seen_all)


def seen_note(counted: Mapping[str, int], what: str, consequence: str) -> str | None:
    """Return a note with the number of items seen in training; None if none was and all are known.

    Parameters
    ----------
    counted : mapping
        Counts from `counted_seen`.
    what : str
        Name of the items, in the plural, such as "test cells".
    consequence : str
        Consequence for the items that were seen.
    """
    total, seen, unknown = sum(counted.values()), counted[YES], counted[UNKNOWN]
    parts = [
        f"{seen} of {total} {what} were seen in training by these weights: {consequence}" if seen else "",
        f"of {unknown} of {total} {what} it is not known whether these weights have seen them" if unknown else "",
    ]
    return f"note: {'; '.join(filter(None, parts))}" if any(parts) else None
