"""Errors of data, each with the name of its kind, and what is done when one is met."""

from __future__ import annotations

from collections.abc import Callable

from cytovox.errors import InputError


class DataError(InputError):
    """A error of the user's data.

    Parameters
    ----------
    kind : str
        Its name in the audit, such as `mask-shape` (see `datamodules.audit.findings.KINDS`).
    text : str
        The message, one line.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


#: What is done with a error that one could go on after: a run refuses, the audit notes it.
OnError = Callable[[InputError], None]


def refuse(error: InputError) -> None:
    """Stop at the first error, as a run does."""
    raise error
