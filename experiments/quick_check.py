"""Check the keys and types of a config before torch is imported, which takes seconds.

The schema of a config is defined by the dataclasses of the tasks, which import networks and losses. Its names and types
are stored in `configs/keys.json`, which `docs/write_config_reference.py` writes. The file is used while the fields in
the sources are those that it was written from. What cannot be checked with it is left to the complete check
(`experiments.config`), which has the same messages.
"""

import ast
import contextlib
import dataclasses
import hashlib
import json
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, Union

from omegaconf import MISSING

from cytovox.errors import InputError
from experiments.compose import compose
from experiments.errors import not_one_of
from experiments.validate import find_branches, find_errors, find_task

HOME = Path(__file__).resolve().parents[1]
KEYS = HOME / "experiments" / "configs" / "keys.json"
_PLAIN: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "None": type(None), "Any": Any}


class Unsure(Exception):
    """The stored schema does not suffice to check this config."""


def require_known_keys(config: str, overrides: Sequence[str]) -> None:
    """Refuse a config with misspelled keys, before torch is imported.

    Raises
    ------
    InputError
        One line per error; or the config cannot be read.
    """
    if errors := quick_errors(config, overrides):
        raise InputError("\n".join(errors))


def quick_errors(config: str, overrides: Sequence[str]) -> list[str]:
    """Return misspelled keys, unknown choices and values of a wrong type, one line each.

    Parameters
    ----------
    config : str
        A file or the name of a shipped config; empty for a run that is resumed.
    overrides : sequence of str
        `key=value` arguments.

    Returns
    -------
    list of str
        Empty if nothing is wrong, or if the stored schema does not suffice.

    Raises
    ------
    InputError
        The config cannot be read.
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
    """Return a digest of the names and fields in source files; empty if one is missing.

    Docstrings, comments and functions are ignored: they change no key.
    """
    text = hashlib.sha256()
    with contextlib.suppress(OSError, SyntaxError):
        for name in files:
            module = ast.parse((HOME / name).read_text(encoding="utf-8"))
            classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
            nodes = [node for body in (module.body, *(kind.body for kind in classes)) for node in body]
            fields = [ast.unparse(node) for node in nodes if isinstance(node, ast.AnnAssign | ast.Assign)]
            text.update("".join(fields).encode())
            text.update(" ".join([name, *(kind.name for kind in classes)]).encode())
        return text.hexdigest()
    return ""


def _errors(stored: Mapping[str, Any], config: str, overrides: Sequence[str]) -> list[str]:
    tasks: Mapping[str, Any] = stored["tasks"]
    made = _dataclasses(stored["classes"])

    def keep(task: str, group: str, choice: str) -> set[str] | None:
        kinds = tasks.get(task, {}).get("choices", {}).get(group, {}).get("kinds", {})
        return {name for name, *_ in stored["classes"][kinds[choice]]["fields"]} if choice in kinds else None

    composed = compose(config, overrides, keep)
    trained = [name for name, task in tasks.items() if task["choices"]]
    named, errors = find_task(composed, tasks, trained, stored["default_task"])
    task = tasks[named]
    choices = task["choices"]

    def make(group: str, chosen: str) -> type:
        choice = choices[group]
        if chosen in choice["kinds"]:
            return made(choice["kinds"][chosen])
        if choice["added_by"] is not None:
            raise Unsure  # another package may have added it
        raise InputError(not_one_of(f"{group}.{choice['key']}", choice["kinds"], chosen))

    groups = {name: made(kind) for name, kind in task["groups"].items()}
    chosen, more = find_branches(composed, {name: (one["key"], one["default"]) for name, one in choices.items()}, make)
    return list(dict.fromkeys([*errors, *more, *find_errors(composed, made(task["class"]), {**groups, **chosen})]))


def _dataclasses(classes: Mapping[str, Any]) -> Callable[[str], type]:
    """Return the function that creates a dataclass of the stored schema, by its stored name."""

    @cache
    def made(name: str) -> type:
        fields = []
        for field, kind, expects in classes[name]["fields"]:
            metadata = {} if expects is None else {"accepts": partial(_accepts, expects), "expects": expects}
            fields.append((field, hint(kind), dataclasses.field(default=MISSING, metadata=metadata)))
        return dataclasses.make_dataclass(classes[name]["name"], fields)

    def hint(kind: Any) -> Any:
        if isinstance(kind, str):
            return _PLAIN[kind]
        (form, inner), *_ = kind.items()
        if form == "class":
            return made(inner)
        if form == "literal":
            return Literal[tuple(inner)]
        arguments = tuple(hint(one) for one in inner)
        if form == "union":
            return Union[arguments]  # noqa: UP007 - of a tuple
        return types.GenericAlias(list if form == "list" else dict, arguments)

    return made


def _accepts(expects: str, value: Any) -> bool:
    """Return whether a field with a test of its own accepts a value, as far as the text `expects` shows."""
    if value is None:
        return "null" in expects
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and "number" in expects:
        return True
    texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
    if (texts and "list" in expects) or (isinstance(value, str) and ("text" in expects or value == "auto")):
        return True
    raise Unsure


def stored_schema(tasks: Mapping[str, Any], default_task: str) -> dict[str, Any]:
    """Return the content of `configs/keys.json`.

    Parameters
    ----------
    tasks : mapping of str to Task
        `experiments.tasks.TASKS`.
    default_task : str
        Task of a config that names none.
    """
    import inspect
    import typing

    from experiments.schema import branch

    classes: dict[str, Any] = {}
    files = {"experiments/tasks/__init__.py", "experiments/schema.py"}
    names = {kind: name for name, kind in _PLAIN.items()}

    def add(kind: type) -> str:
        name = f"{kind.__module__}.{kind.__qualname__}-{','.join(f.name for f in dataclasses.fields(kind))}"
        name = f"{kind.__name__}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        if name in classes:
            return name
        classes[name] = {}  # keeps the order of the first use
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
