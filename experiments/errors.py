"""Errors of a config: all at once, with the most similar valid name."""

import difflib
from collections.abc import Collection

from cytovox.errors import InputError


class ConfigErrors(InputError):
    """All errors of a config, one line per error."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


def did_you_mean(word: object, known: Collection[str], cutoff: float = 0.6) -> str:
    """Return `; did you mean X?` for the most similar known name; empty if none is similar enough."""
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def not_one_of(key: str, known: Collection[str], given: object) -> str:
    """Return the error about a value that is not among the known ones."""
    return f"{key}: expected one of {', '.join(known)}, got {given!r}{did_you_mean(given, known)}"
