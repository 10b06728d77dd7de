"""Which cells and volumes weights have seen: fingerprints (`datamodules.fingerprints`) are kept in their metadata.

A prediction for a cell of the training is better than one for a new cell. Its scores and features say nothing of new
cells, and a classifier that learns from them learns a quality that no other cell has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import TypeVar

from lightning_modules.facts import Facts

#: Column of a table, and its values.
COLUMN = "seen_in_training"
YES, NO, UNKNOWN = "yes", "no", "unknown"

AnyFacts = TypeVar("AnyFacts", bound=Facts)


def seen_in_training(facts: Facts, fingerprint: str) -> str:
    """Return whether weights have seen what has this fingerprint: "yes", "no", or "unknown"."""
    if fingerprint in facts.seen:
        return YES
    return NO if facts.seen_all else UNKNOWN


def begun_from(facts: AnyFacts, start: Facts | None) -> AnyFacts:
    """Return the facts of a training that begins with these weights, or with random ones: it has seen what they have."""
    if start is None:
        return dataclasses.replace(facts, seen=[], seen_all=True)
    return dataclasses.replace(facts, seen=list(start.seen), seen_all=start.seen_all)


def trained_on(facts: AnyFacts, fingerprints: Collection[str]) -> AnyFacts:
    """Return the facts of weights that were trained, stopped early or tuned on these, too."""
    return dataclasses.replace(facts, seen=sorted({*facts.seen, *fingerprints}))


def resumed_from(facts: AnyFacts, seen: Collection[str], seen_all: bool) -> AnyFacts:
    """Return the facts of a training that goes on from a checkpoint: what that has seen was seen, whatever it is now."""
    return dataclasses.replace(trained_on(facts, seen), seen_all=facts.seen_all and seen_all)


def seen_note(counted: dict[str, int], what: str, consequence: str) -> str | None:
    """Return the line that says how many were seen in training; None where it is known of all that they were not.

    Parameters
    ----------
    counted : dict
        How many of each of "yes", "no" and "unknown".
    what : str
        What they are, in the plural, such as "test cells".
    consequence : str
        What follows for those that were seen.
    """
    total, seen, unknown = sum(counted.values()), counted.get(YES, 0), counted.get(UNKNOWN, 0)
    parts = []
    if seen:
        parts.append(f"{seen} of {total} {what} were seen in training by these weights: {consequence}")
    if unknown:
        parts.append(f"of {unknown} of {total} {what} it is not known whether these weights have seen them")
    return f"note: {'; '.join(parts)}" if parts else None
