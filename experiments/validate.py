"""Compare a composed config with the dataclasses of its schema, and collect all errors."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cytovox.errors import InputError
from experiments.compose import Composed, KeyPath
from experiments.errors import did_you_mean, not_one_of

#: The dataclass of each group of a config.
Branches = dict[str, type]


def describe(kind: Any) -> str:
    """Return a type hint in plain words."""
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


def find_task(
    composed: Composed, tasks: Collection[str], trained: Collection[str], default: str
) -> tuple[str, list[str]]:
    """Return the task of a config and the error about it.

    Parameters
    ----------
    composed : Composed
        The config.
    tasks : collection of str
        All tasks.
    trained : collection of str
        Tasks that train a network. The other keys of a config with an unknown task are checked for the most similar
        one of these.
    default : str
        Task of a config that names none.
    """
    named = composed.values.get("task", default)
    if isinstance(named, str) and named in tasks:
        return named, []
    near = difflib.get_close_matches(str(named), trained, n=1)
    return near[0] if near else default, [f"{composed.where(('task',))}: {not_one_of('task', tasks, named)}"]


def find_branches(
    composed: Composed, choices: Mapping[str, tuple[str, str]], make: Callable[[str, str], type]
) -> tuple[Branches, list[str]]:
    """Return the dataclass of every group with branches, and the errors of the keys that choose them.

    Parameters
    ----------
    composed : Composed
        The config. The values of a group whose branch is unknown are removed, since they cannot be checked.
    choices : mapping of str to (key, default)
        For each group, the key that chooses the branch and its default.
    make : callable
        Returns the dataclass of a group and a choice; raises `InputError` for an unknown one.
    """
    found: Branches = {}
    errors = []
    for group, (key, default) in choices.items():
        values = composed.values.get(group)
        try:
            found[group] = make(group, str(values.get(key, default)) if isinstance(values, dict) else default)
        except InputError as error:
            text, path = str(error), f"{group}.{key}"
            shown = text if text.startswith(path) else f"{path}: {text}"
            errors.append(f"{composed.where((group, key))}: {shown}")
            found[group] = make(group, default)
            composed.values[group] = {}
    return found, errors


def find_errors(composed: Composed, root: type, branches: Branches) -> list[str]:
    """Return one line for every unknown key and every value of a wrong type.

    Parameters
    ----------
    composed : Composed
        The config.
    root : type
        Dataclass of the top level; fields named in `branches` are groups.
    branches : dict of str to type
        Dataclass of each group, as chosen by the config.
    """
    everywhere = [(group, f.name) for group, kind in branches.items() for f in dataclasses.fields(kind)]
    return _walk(
        composed, composed.values, root, (), branches, [*everywhere, *((f.name,) for f in dataclasses.fields(root))]
    )


def _walk(
    composed: Composed, tree: dict[str, Any], kind: type, path: KeyPath, branches: Branches, everywhere: list[KeyPath]
) -> list[str]:
    """Return the errors of a group of keys and of the groups in it."""
    hints, fields = typing.get_type_hints(kind), {f.name: f for f in dataclasses.fields(kind)}
    errors: list[str] = []
    for key, value in tree.items():
        here = (*path, key)
        shown = f"{composed.where(here)}: {'.'.join(here)}"
        if key not in fields:
            errors.append(f"{shown}: no such key{_nearest(here, list(hints), everywhere)}")
            continue
        inner = branches.get(key) if not path else _dataclass_in(hints[key])
        if inner is not None and isinstance(value, dict):
            errors += _walk(composed, value, inner, here, branches, everywhere)
        elif inner is not None and not path:
            keys = ", ".join(f.name for f in dataclasses.fields(inner))
            errors.append(f"{shown}: expected a group of keys ({keys}), got {value!r}")
        elif error := _leaf_error(fields[key], hints[key], value):
            errors.append(f"{shown}: {error}")
    return errors


def _dataclass_in(hint: Any) -> type | None:
    """Return the dataclass in `Group` or `Group | None`."""
    options = (hint, *get_args(hint))
    return next((one for one in options if dataclasses.is_dataclass(one) and isinstance(one, type)), None)


def _nearest(here: KeyPath, siblings: list[str], everywhere: list[KeyPath]) -> str:
    """Return `; did you mean X?` for the most similar key of this group, else of any group."""
    *groups, key = here
    if near := difflib.get_close_matches(key, siblings, n=1):
        return f"; did you mean {'.'.join((*groups, near[0]))}?"
    elsewhere = {path[-1]: ".".join(path) for path in everywhere}
    if near := difflib.get_close_matches(key, elsewhere, n=1, cutoff=0.8):
        return f"; did you mean {elsewhere[near[0]]}?"
    return f"; known here: {', '.join(siblings)}"


def _leaf_error(field: dataclasses.Field[Any], hint: Any, value: Any) -> str | None:
    """Return the error of a value, or None.

    The value must pass the field's own test (`accepts` in its metadata), or OmegaConf's conversion to the type of the
    field. Beyond that, booleans are no numbers or texts, and interpolations are refused.
    """
    shown = "null" if value is None else repr(value)
    if "accepts" in field.metadata and not field.metadata["accepts"](value):
        return f"expected {field.metadata['expects']}, got {shown}"
    if _interpolated(value):
        return f"{value!r}: interpolations (${{...}}) are not read; write the value itself"
    if isinstance(value, bool) and not _takes_bool(hint):
        return f"expected {describe(hint)}, got {str(value).lower()}"
    made: Any = dataclasses.field(default=field.default)
    if field.default_factory is not dataclasses.MISSING:
        made = dataclasses.field(default_factory=field.default_factory)
    try:  # a schema of this field alone: a check against the whole group takes three times as long
        OmegaConf.merge(
            OmegaConf.structured(dataclasses.make_dataclass("Group", [(field.name, hint, made)])), {field.name: value}
        )
    except (OmegaConfBaseException, ValueError, TypeError):
        options = (hint, *get_args(hint))
        choices = [str(c) for option in options if get_origin(option) is Literal for c in get_args(option)]
        return f"expected {describe(hint)}, got {shown}{did_you_mean(value, choices)}"
    return None


def _takes_bool(hint: Any) -> bool:
    return hint in (bool, Any) or any(_takes_bool(arg) for arg in get_args(hint) if arg is not type(None))


def _interpolated(value: Any) -> bool:
    if isinstance(value, str):
        return "${" in value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(_interpolated, inner))
