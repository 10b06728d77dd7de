"""Old names of config values: they keep working for one release, with a one-line notice."""

from __future__ import annotations

import sys
from typing import Any

from cytovox.renamed import RENAMED_OPTIONS, RENAMED_WEIGHTS

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
    for group, names in RENAMED_OPTIONS.items():
        values = tree.get(group)
        if isinstance(values, dict) and any(name in values for name in names):
            for old in names.keys() & values.keys():
                _notice(origin, f"{group}.{old}", f"{group}.{names[old]}")
            tree = {**tree, group: {names.get(name, name): value for name, value in values.items()}}
    for path, values_of in RENAMED_VALUES.items():
        tree = _replaced(tree, path, values_of, origin, path)
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
    _notice(origin, f"{'.'.join(path)}: {value}", names[value])
    return names[value]


def _notice(origin: str, old: str, new: str) -> None:
    text = f"note: {origin}: {old} is now called {new}; the old name works until the next release"
    if text not in _printed:
        _printed.add(text)
        print(text, file=sys.stderr)
