"""Old names of config values, which remain valid for one release; a notice is printed."""

import sys
from typing import Any

from cytovox.renamed import RENAMED_OPTIONS, RENAMED_WEIGHTS

#: New value by old value, by key path. Remove an entry one release after it was added.
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

#: Printed notices: a run reads its config several times and prints each notice once.
_printed: set[str] = set()


def with_new_names(tree: dict[str, Any], origin: str) -> dict[str, Any]:
    """Return the tree with old names of values replaced, and print a notice for each.

    Parameters
    ----------
    tree : dict
        Plain nested dict of a config file or of one `key=value` argument. It is not modified.
    origin : str
        The file, or `command line`, for the notice.
    """
    for group, names in RENAMED_OPTIONS.items():
        values = tree.get(group)
        if isinstance(values, dict) and names.keys() & values.keys():
            for old in names.keys() & values.keys():
                _notice(origin, f"{group}.{old}", f"{group}.{names[old]}")
            tree = {**tree, group: {names.get(name, name): value for name, value in values.items()}}
    for path, new_names in RENAMED_VALUES.items():
        tree = _replaced(tree, path, new_names, origin, ".".join(path))
    return tree


def _replaced(value: Any, path: tuple[str, ...], names: dict[str, str], origin: str, shown: str) -> Any:
    """Return a value with old names replaced in the part that a path leads to."""
    if path:
        key, *rest = path
        if not isinstance(value, dict) or key not in value:
            return value
        return {**value, key: _replaced(value[key], tuple(rest), names, origin, shown)}
    if isinstance(value, list):
        return [_replaced(one, (), names, origin, shown) for one in value]
    if not isinstance(value, str) or value not in names:
        return value
    _notice(origin, f"{shown}: {value}", names[value])
    return names[value]


def _notice(origin: str, old: str, new: str) -> None:
    text = f"note: {origin}: {old} is now called {new}; the old name works until the next release"
    if text not in _printed:
        _printed.add(text)
        print(text, file=sys.stderr)
