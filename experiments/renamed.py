"""Old names of config values: they keep working for one release, with a one-line notice."""

from __future__ import annotations

import sys
from typing import Any

from cytovox.renamed import RENAMED_WEIGHTS

#: Old value to new value, by key path. Remove an entry one release after it was added.
RENAMED_VALUES: dict[tuple[str, ...], dict[str, str]] = {
    ("method",): {"fast": "offsets"},
    ("loss", "name"): {"votes": "centre_offsets"},
    ("measure", "area"): {"staircase": "marching_cubes"},
    **dict.fromkeys(
        [
            ("weights", "default"),
            ("predict", "checkpoint"),
            ("init_from",),
            ("organelle_weights",),
            ("cell_weights",),
        ],
        RENAMED_WEIGHTS,
    ),
}

#: Notices that were printed: one config is read several times in a run.
_printed: set[str] = set()


def with_new_names(tree: dict[str, Any], origin: str) -> dict[str, Any]:
    """Return the tree with old names of values replaced, and print a notice for each.

    Parameters
    ----------
    tree : dict
        Plain nested dict of a config file or of one `key=value` argument. It is not changed.
    origin : str
        The file, or `command line`, for the notice.
    """
    for path, names in RENAMED_VALUES.items():
        tree = _replaced(tree, path, names, origin, path)
    return tree


def _replaced(
    tree: dict[str, Any], rest: tuple[str, ...], names: dict[str, str], origin: str, path: tuple[str, ...]
) -> dict[str, Any]:
    key, *inner = rest
    value = tree.get(key)
    if inner:
        if not isinstance(value, dict):
            return tree
        new: Any = _replaced(value, tuple(inner), names, origin, path)
    elif isinstance(value, list):
        new = [_new(one, names, origin, path) for one in value]
    else:
        new = _new(value, names, origin, path)
    return tree if new is value else {**tree, key: new}


def _new(value: Any, names: dict[str, str], origin: str, path: tuple[str, ...]) -> Any:
    if not isinstance(value, str) or value not in names:
        return value
    _notice(f"note: {origin}: {'.'.join(path)}: {value} is now called {names[value]}; the old name works until the "
            "next release")  # fmt: skip
    return names[value]


def _notice(text: str) -> None:
    if text not in _printed:
        _printed.add(text)
        print(text, file=sys.stderr)
