"""Writes docs/config.md out of the schema: each key, its type, its default and the docstring below its field."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import textwrap
import typing
from pathlib import Path
from typing import Any

from experiments.quick_check import KEYS, stored_schema
from experiments.schema import Choice, Config, branch
from experiments.tasks import TASKS
from experiments.tasks.base import TrainedTask
from experiments.validate import describe

HEAD = """\
# Every key of a config

Written from the code by `python docs/write_config_reference.py`; a test holds the two together.

A config is a YAML file; `key.path=value` words on the command line override it. `base: [file, ...]` lays other configs
below it. `task` decides which groups there are. Most groups have branches: their first key chooses which other keys
there are.
A config that changes a branch forgets the keys of the branch below it.
"""


def field_docs(kind: type) -> dict[str, str]:
    """The docstring below each field of a dataclass and of those it inherits from."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        except (OSError, TypeError):
            continue  # made by make_dataclass: its fields are those of its base
        for field, text in itertools.pairwise(body):
            named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if named and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[field.target.id] = " ".join(str(text.value.value).split())  # type: ignore[attr-defined]
    return found


def rows(kind: type, prefix: str, skip: tuple[str, ...] = ()) -> list[str]:
    """Table rows of a dataclass, its inner dataclasses opened."""
    hints, docs, lines = typing.get_type_hints(kind), field_docs(kind), []
    for field in dataclasses.fields(kind):
        if field.name in skip:
            continue
        inner = next(
            (t for t in (hints[field.name], *typing.get_args(hints[field.name])) if dataclasses.is_dataclass(t)), None
        )
        default = default_of(field)
        if inner is not None:
            shown = "null" if default is None else ""
            lines.append(
                row(
                    f"{prefix}{field.name}",
                    "a group or null" if default is None else "a group",
                    shown,
                    docs.get(field.name, ""),
                )
            )
            lines += rows(typing.cast(type, inner), f"{prefix}{field.name}.")
        else:
            lines.append(
                row(
                    f"{prefix}{field.name}",
                    field.metadata.get("expects", describe(hints[field.name])),
                    plain(default),
                    docs.get(field.name, ""),
                )
            )
    return lines


def default_of(field: dataclasses.Field) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


def plain(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def row(*cells: str) -> str:
    text = cells[3].replace("<", "&lt;").replace("|", "\\|")
    return "| " + " | ".join([f"`{cells[0]}`", cells[1], f"`{cells[2]}`" if cells[2] else "", text]) + " |"


def table(lines: list[str]) -> str:
    return "\n".join(["| key | type | default | what it does |", "|---|---|---|---|", *lines]) + "\n"


def reference() -> str:
    """The whole page."""
    shared = ("trainer", "logging", "optimizer")
    groups = ("data", "field", "model", "process", "preconditioning", "loss", "sampler", "predict", *shared)
    parts = [HEAD, "## Top level\n", table(rows(Config, "", skip=groups))]
    trained = [task for task in TASKS.values() if isinstance(task, TrainedTask)]
    for task in trained:
        for group, choice in task.choices.items():
            if group not in shared:
                parts += branches(group, choice, f"task {task.name}: ")
        hints = typing.get_type_hints(task.config)
        parts += [f"## task {task.name}: `predict`\n", table(rows(hints["predict"], "predict."))]
        more = tuple(f.name for f in dataclasses.fields(task.config) if f.name not in _shared())
        if more:
            parts += [f"## task {task.name}: its own keys\n", table(rows(task.config, "", skip=tuple(_shared())))]
    for task in TASKS.values():
        if task not in trained:
            about = (inspect.getdoc(task.config) or "").splitlines()[0]
            parts += [f"## task {task.name}\n", f"{about}\n", table(rows(task.config, ""))]
    parts += branches("optimizer", next(iter(TASKS.values())).choices["optimizer"], "")
    hints = typing.get_type_hints(Config)
    for group in ("trainer", "logging"):
        parts += [f"## `{group}`\n", table(rows(hints[group], f"{group}."))]
    return "\n".join(parts)


def _shared() -> set[str]:
    """Keys that every task has, and groups that have a section of their own."""
    every = {f.name for f in dataclasses.fields(Config)}
    return every | {group for task in TASKS.values() for group in task.choices}


def keys_text() -> str:
    """Names and types of all keys, for the check of typos that imports nothing slow."""
    return json.dumps(stored_schema(TASKS, Config.task), indent=1, ensure_ascii=False) + "\n"


def branches(group: str, choice: Choice, prefix: str) -> list[str]:
    """A section for every branch of a group."""
    parts = []
    for name, kind in choice.kinds.items():
        parts.append(f"## {prefix}`{group}` with `{choice.key}: {name}`\n")
        text = (inspect.getdoc(kind) or "").splitlines()[0]
        lines = rows(branch(group, choice, name), f"{group}.", skip=(choice.key,))
        parts += [text + "\n", table(lines)] if lines else [text + "\n"]
    return parts


if __name__ == "__main__":
    target = Path(__file__).with_name("config.md")
    target.write_text(reference(), encoding="utf-8")
    print(f"wrote {target}")
    KEYS.write_text(keys_text(), encoding="utf-8")
    print(f"wrote {KEYS}")
