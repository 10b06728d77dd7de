"""Errors of a user's data and config, each with its kind, and what a run does when it finds one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cytovox.errors import InputError


class DataError(InputError):
    """An error of the user's data.

    Parameters
    ----------
    kind : str
        Kind of the error, such as `mask-shape` (see `datamodules.audit.findings.KINDS`).
    text : str
        Message, one line.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class NotAnnotatedError(DataError):
    """A volume of which no voxel is annotated: it cannot be trained on, and a test leaves it out."""

    def __init__(self, text: str) -> None:
        super().__init__("unannotated", text)


#: Handler of an error after which reading can continue: a run raises it, the audit records it.
OnError = Callable[[InputError], None]


def refuse(error: InputError) -> None:
    """Raise the error, so that a run stops at the first one."""
    raise error


def failed(checks: Iterable[tuple[bool, str]]) -> list[str]:
    """Return the messages of the checks that failed."""
    return [message for valid, message in checks if not valid]
