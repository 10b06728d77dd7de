"""Messages about values of options that are not allowed, and about unknown names."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from cytovox.errors import InputError

Entry = TypeVar("Entry")


def option_errors(options: object, *checks: tuple[str, bool, str]) -> list[str]:
    """Return one line per option whose value is not allowed: name, value and what was expected.

    Parameters
    ----------
    options : object
        An object with an attribute for each option.
    *checks : tuple of str, bool and str
        Name of an option, whether its value is allowed, and the allowed values in words.
    """
    return [
        f"{name}: {_as_text(getattr(options, name))}: expected {expected}"
        for name, allowed, expected in checks
        if not allowed
    ]


def _as_text(value: object) -> str:
    return repr(list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value)


def raise_errors(name: str, errors: Collection[str]) -> None:
    """Raise an `InputError` with all errors in one line, if there are any.

    Parameters
    ----------
    name : str
        Name of the part whose options these are, for the message.
    errors : collection of str
        One entry per error.
    """
    if errors:
        raise InputError(f"{name}: {'; '.join(errors)}")


def nearest_name(name: str, known: Collection[str]) -> str:
    """Return the end of a message about an unknown name: the most similar known name, and all known names."""
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    return (f"did you mean {near[0]}? " if near else "") + f"known: {', '.join(known)}"


def entry_of(known: Mapping[str, Entry], name: str, kind: str) -> Entry:
    """Return the entry of a registry.

    Parameters
    ----------
    known : mapping
        The registry.
    name : str
        Name of the entry.
    kind : str
        Kind of the entries, such as "loss", for the message.

    Raises
    ------
    InputError
        The name is unknown. The message gives the most similar name and all names.
    """
    if name not in known:
        raise InputError(f"{kind} {name!r}: no such {kind.split()[-1]}; {nearest_name(name, known)}")
    return known[name]


class NoOptions:
    """Base of a config without options."""

    def errors(self) -> list[str]:
        """Return an empty list."""
        return []
