"""Misspelled keys and values of a wrong type, found before torch is imported: a typo should not cost ten seconds.

The schema is the dataclasses of the tasks, which lie beside networks and losses. `configs/keys.json`
holds its names and types, written by `docs/write_config_reference.py`; it counts as long as the sources that it was
written from are what they were. Whatever it cannot judge is left to the whole check (`experiments.config`), whose
messages are the same.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import hashlib
import json
import types
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union

from omegaconf import MISSING

from cytovox.errors import InputError
from experiments.compose import Composed, compose
from experiments.validate import Branches, find_errors

HOME = Path(__file__).resolve().parents[1]
KEYS = HOME / "experiments" / "configs" / "keys.json"
_PLAIN: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "None": type(None), "Any": Any}


class Unsure(Exception):
    """The stored schema cannot judge this config."""


def quick_errors(config: str, overrides: Sequence[str]) -> list[str]:
    """Return misspelled keys, unknown choices and values of a wrong type, one line each.

    Parameters
    ----------
    config : str
        A file or the name of a shipped config; empty for a run that is resumed.
    overrides : sequence of str
        `key=value` words.

    Returns
    -------
    list of str
        Empty where nothing is wrong, and where this check cannot judge.

    Raises
    ------
    InputError
        The config cannot be read at all.
    """
    if not config or not KEYS.is_file():
        return []
    try:
        stored = json.loads(KEYS.read_text(encoding="utf-8"))
        if stored["sources"] != digest_of(stored["files"]):
            return []
        return _errors(stored, config, overrides)
    except (Unsure, ValueError, KeyError):
        return []


def digest_of(files: Sequence[str]) -> str:
    """Digest of the fields and names in the sources of the schema; empty where one is missing.

    Docstrings, comments and functions do not count: they change no key.
    """
    text = hashlib.sha256()
    with contextlib.suppress(OSError, SyntaxError):
        for name in files:
            module = ast.parse((HOME / name).read_text(encoding="utf-8"))
            classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
            for body in (module.body, *(kind.body for kind in classes)):
                for node in body:
                    if isinstance(node, ast.AnnAssign | ast.Assign):
                        text.update(ast.unparse(node).encode())
            text.update(" ".join([name, *(kind.name for kind in classes)]).encode())
        return text.hexdigest()
    return ""


def _errors(stored: Mapping[str, Any], config: str, overrides: Sequence[str]) -> list[str]:
    tasks: Mapping[str, Any] = stored["tasks"]
    made = _Types(stored["classes"])

    def keep(task: str, group: str, choice: str) -> set[str] | None:
        kinds = tasks.get(task, {}).get("choices", {}).get(group, {}).get("kinds", {})
        return {name for name, *_ in stored["classes"][kinds[choice]]["fields"]} if choice in kinds else None

    composed = compose(config, overrides, keep)
    named = composed.values.get("task", stored["default_task"])
    errors = []
    if not isinstance(named, str) or named not in tasks:
        trained = [name for name, task in tasks.items() if task["choices"]]
        near, like = (difflib.get_close_matches(str(named), names, n=1) for names in (trained, list(tasks)))
        hint = f"; did you mean {like[0]}?" if like else ""
        known = ", ".join(tasks)
        errors.append(f"{composed.where(('task',))}: task: expected one of {known}, got {named!r}{hint}")
        named = near[0] if near else stored["default_task"]
    task = tasks[named]
    branches, more = _branches(composed, task, made)
    errors += more + find_errors(composed, made(task["class"]), branches)
    return list(dict.fromkeys(errors))


def _branches(composed: Composed, task: Mapping[str, Any], made: Callable[[str], type]) -> tuple[Branches, list[str]]:
    """The dataclass of every group, and errors of the keys that choose them."""
    found: Branches = {name: made(kind) for name, kind in task["groups"].items()}
    errors = []
    for group, choice in task["choices"].items():
        key, kinds, values = choice["key"], choice["kinds"], composed.values.get(group)
        chosen = str(values.get(key, choice["default"])) if isinstance(values, dict) else choice["default"]
        if chosen not in kinds:
            if choice["added_by"] is not None:
                raise Unsure  # another package may have added it
            near = difflib.get_close_matches(chosen, kinds, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            where = composed.where((group, key))
            errors.append(f"{where}: {group}.{key}: expected one of {', '.join(kinds)}, got {chosen!r}{hint}")
            composed.values[group] = {}
            chosen = choice["default"]
        found[group] = made(kinds[chosen])
    return found, errors


class _Types:
    """Dataclasses out of the stored schema."""

    def __init__(self, classes: Mapping[str, Any]) -> None:
        self.classes, self.made = classes, dict[str, type]()

    def __call__(self, name: str) -> type:
        """The dataclass of this name."""
        if name not in self.made:
            about = self.classes[name]
            fields = []
            for field, kind, expects in about["fields"]:
                metadata = {} if expects is None else {"accepts": partial(_accepts, expects), "expects": expects}
                fields.append((field, self.hint(kind), dataclasses.field(default=MISSING, metadata=metadata)))
            self.made[name] = dataclasses.make_dataclass(about["name"], fields)
        return self.made[name]

    def hint(self, kind: Any) -> Any:
        """A type hint."""
        if isinstance(kind, str):
            return _PLAIN[kind]
        (form, inner), *_ = kind.items()
        if form == "class":
            return self(inner)
        if form == "literal":
            return Literal[tuple(inner)]
        arguments = tuple(self.hint(one) for one in inner)
        if form == "union":
            return Union[arguments]  # noqa: UP007 - of a tuple
        return types.GenericAlias(list if form == "list" else dict, arguments)


def _accepts(expects: str, value: Any) -> bool:
    """Whether a field with a test of its own takes a value, as far as the test's words say it."""
    if value is None:
        return "null" in expects
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and "number" in expects:
        return True
    texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
    if (texts and "list" in expects) or (isinstance(value, str) and ("text" in expects or value == "auto")):
        return True
    raise Unsure


def stored_schema(tasks: Mapping[str, Any], default_task: str) -> dict[str, Any]:
    """Return what `configs/keys.json` holds.

    Parameters
    ----------
    tasks : mapping of str to Task
        `experiments.tasks.TASKS`.
    default_task : str
        Where a config names none.
    """
    import inspect
    import typing

    from experiments.schema import branch

    classes: dict[str, Any] = {}
    files = {"experiments/tasks/__init__.py", "experiments/schema.py"}

    def add(kind: type) -> str:
        name = f"{kind.__module__}.{kind.__qualname__}-{','.join(f.name for f in dataclasses.fields(kind))}"
        name = f"{kind.__name__}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        if name in classes:
            return name
        classes[name] = {}
        for base in kind.__mro__:
            source = inspect.getsourcefile(base) if base.__module__ != "types" and base is not object else None
            if source is not None and Path(source).resolve().is_relative_to(HOME):
                files.add(Path(source).resolve().relative_to(HOME).as_posix())
        hints = typing.get_type_hints(kind)
        fields = [[f.name, plain(hints[f.name]), f.metadata.get("expects")] for f in dataclasses.fields(kind)]
        classes[name] = {"name": kind.__name__, "fields": fields}
        return name

    def plain(hint: Any) -> Any:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        names = {kind: name for name, kind in _PLAIN.items()}
        if hint in names:
            return names[hint]
        if dataclasses.is_dataclass(hint):
            return {"class": add(hint)}  # type: ignore[arg-type]
        if origin is Literal:
            return {"literal": list(arguments)}
        form = {list: "list", dict: "dict"}.get(origin, "union")
        return {form: [plain(one) for one in arguments]} if arguments else names[Any]

    made: dict[str, Any] = {}
    for name, task in tasks.items():
        choices = {
            group: {
                "key": choice.key,
                "default": choice.default,
                "kinds": {kind: add(branch(group, choice, kind)) for kind in choice.kinds},
                "added_by": "packages" if choice.find is not None else None,
            }
            for group, choice in task.choices.items()
        }
        groups = {
            field.name: add(field.default_factory)  # type: ignore[arg-type]
            for field in dataclasses.fields(task.config)
            if field.name not in choices and dataclasses.is_dataclass(field.default_factory)
        }
        made[name] = {"class": add(task.config), "choices": choices, "groups": groups}
    named = sorted(files)
    return {
        "default_task": default_task, "files": named, "sources": digest_of(named), "tasks": made, "classes": classes,
    }  # fmt: skip


def require_known_keys(config: str, overrides: Sequence[str]) -> None:
    """Refuse a config with misspelled keys, before anything slow is imported.

    Raises
    ------
    InputError
        One line each; or it cannot be read at all.
    """
    errors = quick_errors(config, overrides)
    if errors:
        raise InputError("\n".join(errors))
