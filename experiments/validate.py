"""Walk a plain tree against the dataclasses that are its schema, and collect every error at once."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.compose import Composed, KeyPath

#: For a nested group: the dataclass that its values must fit.
Branches = dict[str, type]


def dotted(path: KeyPath) -> str:
    """('trainer', 'max_epochs') as a person writes it."""
    return ".".join(path)


def describe(kind: Any) -> str:
    """A type hint in words a biologist can use."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if arg is type(None) else describe(arg) for arg in args)
    if origin is Literal:
        return "one of " + ", ".join(str(arg) for arg in args)
    if origin is list:
        return f"a list of {describe(args[0])}" if args else "a list"
    if origin is dict:
        return "a mapping of names to " + describe(args[1])
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Any: "anything"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def find_errors(composed: Composed, root: type, branches: Branches) -> list[str]:
    """Every unknown key and every value of a wrong type, one line each.

    Parameters
    ----------
    composed : Composed
        The tree and the origin of its keys.
    root : type
        Dataclass of the top level; fields named in `branches` are groups of their own.
    branches : dict of str to type
        Dataclass of each group, as chosen by the tree itself.
    """
    known = {kind: _all_keys(kind, (group,)) for group, kind in branches.items()}
    everywhere = [path for paths in known.values() for path in paths] + [(f.name,) for f in dataclasses.fields(root)]
    return _walk(composed, composed.values, root, (), branches, everywhere)


def _all_keys(kind: type, path: KeyPath) -> list[KeyPath]:
    return [(*path, f.name) for f in dataclasses.fields(kind)]


def _walk(
    composed: Composed, tree: dict[str, Any], kind: type, path: KeyPath, branches: Branches, everywhere: list[KeyPath]
) -> list[str]:
    hints = typing.get_type_hints(kind)
    errors: list[str] = []
    for key, value in tree.items():
        here = (*path, key)
        if key not in {f.name for f in dataclasses.fields(kind)}:
            hint = _nearest(here, [(*path, name) for name in hints], everywhere)
            errors.append(f"{composed.where(here)}: {dotted(here)}: no such key{hint}")
            continue
        inner = branches.get(key) if not path else _dataclass_in(hints[key])
        if inner is not None and (isinstance(value, dict) or not path):
            if isinstance(value, dict):
                errors += _walk(composed, value, inner, here, branches, everywhere)
            else:
                errors.append(
                    f"{composed.where(here)}: {dotted(here)}: expected a group of keys "
                    f"({', '.join(f.name for f in dataclasses.fields(inner))}), got {value!r}"
                )
            continue
        error = _metadata_error(kind, key, value) or _leaf_error(kind, key, hints[key], value)
        if error:
            errors.append(f"{composed.where(here)}: {dotted(here)}: {error}")
    return errors


def _dataclass_in(hint: Any) -> type | None:
    """The dataclass in `Group` or `Group | None`."""
    for option in (hint, *get_args(hint)):
        if dataclasses.is_dataclass(option) and isinstance(option, type):
            return option
    return None


def _nearest(here: KeyPath, siblings: list[KeyPath], everywhere: list[KeyPath]) -> str:
    """'; did you mean X?' for the nearest sibling, else for the nearest key of any group."""
    near = difflib.get_close_matches(here[-1], [p[-1] for p in siblings], n=1, cutoff=0.6)
    if near:
        return f"; did you mean {dotted((*here[:-1], near[0]))}?"
    elsewhere = {p[-1]: p for p in everywhere}
    close = difflib.get_close_matches(here[-1], list(elsewhere), n=1, cutoff=0.8)
    if close:
        return f"; did you mean {dotted(elsewhere[close[0]])}?"
    return f"; known here: {', '.join(p[-1] for p in siblings)}"


def _leaf_error(kind: type, key: str, hint: Any, value: Any) -> str | None:
    """What is wrong with one value: OmegaConf's own conversion, stricter on booleans, without interpolation."""
    if _interpolated(value):
        return f"{value!r}: interpolations (${{...}}) are not read; write the value itself"
    if isinstance(value, bool) and not _takes_bool(hint):
        return f"expected {describe(hint)}, got {str(value).lower()}"
    try:
        OmegaConf.merge(_only(kind, key), {key: value})
    except (OmegaConfBaseException, ValueError, TypeError):
        shown = "null" if value is None else repr(value)
        return f"expected {describe(hint)}, got {shown}{_nearest_choice(hint, value)}"
    return None


def _only(kind: type, key: str) -> DictConfig:
    """The schema of one field: checking each key against its whole group takes three times as long."""
    about = next(f for f in dataclasses.fields(kind) if f.name == key)
    made: Any = dataclasses.field(default=about.default)
    if about.default_factory is not dataclasses.MISSING:
        made = dataclasses.field(default_factory=about.default_factory)
    hint = typing.get_type_hints(kind)[key]
    return OmegaConf.structured(dataclasses.make_dataclass(kind.__name__, [(key, hint, made)]))


def _metadata_error(kind: type, key: str, value: Any) -> str | None:
    """What a field says of itself where its type cannot: `accepts`, a test, and `expects`, its words."""
    about = next(f.metadata for f in dataclasses.fields(kind) if f.name == key)
    if "accepts" in about and not about["accepts"](value):
        return f"expected {about['expects']}, got {'null' if value is None else repr(value)}"
    return None


def _takes_bool(hint: Any) -> bool:
    return hint in (bool, Any) or any(_takes_bool(arg) for arg in get_args(hint) if arg is not type(None))


def _nearest_choice(hint: Any, value: Any) -> str:
    choices = [str(c) for option in (hint, *get_args(hint)) if get_origin(option) is Literal for c in get_args(option)]
    near = difflib.get_close_matches(str(value), choices, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _interpolated(value: Any) -> bool:
    if isinstance(value, str):
        return "${" in value
    if isinstance(value, dict):
        return any(_interpolated(v) for v in value.values())
    return isinstance(value, list) and any(_interpolated(v) for v in value)
