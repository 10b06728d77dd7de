"""Every key of every shipped config counts in every step that stores results, or is listed with a reason."""

from __future__ import annotations

import copy
import dataclasses
import types
import typing
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

import pytest

from cytovox.io.provenance import GIVEN, Fingerprint, leaves_of
from datamodules.steps import STEPS
from experiments.compose import compose, shipped_configs
from experiments.config import load_config
from experiments.tasks import TASKS
from experiments.tasks.base import TrainedTask

#: Enough for each config to be valid without files.
WORDS = {"cells_from_masks": ["membrane=a", "nucleus=b", "out=c"]}


@cache
def config_of(name: str) -> Any:
    task = compose(name).values.get("task")
    return load_config(name, ["stages=[test]"] if isinstance(TASKS[task], TrainedTask) else WORDS.get(name, []))


def fingerprints(config: Any) -> dict[str, Fingerprint]:
    """Of every step that stores results for a config, each referring to the one before it; its content stays."""
    if config.task == "analyze":
        found, before = {}, "content"
        for name in ("organelles", "cells", "overlap", "rows", "files", "tables"):
            made = STEPS[f"analyze.{name}"].fingerprint(config, before=before)
            found[f"analyze.{name}"], before = made, made.key
        return {**found, "analyze.folder": STEPS["analyze.folder"].fingerprint(config)}
    if config.task in ("shape", "shapr"):
        return {"predict.shapes": STEPS["predict.shapes"].fingerprint(config)}
    if config.task in ("organelle", "cells", "search"):
        prepare = {"prepare": STEPS["prepare"].fingerprint(config.data, "data.")}
        masks = {"predict.masks": STEPS["predict.masks"].fingerprint(config)}
        return {**prepare, **(masks if config.task == "organelle" else {})}
    return {}


def mutations(value: Any, hint: Any) -> list[Any]:
    """Other values of a key's type; which of them a run would accept does not matter here."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    found: list[Any] = []
    for option in options:
        origin = get_origin(option)
        if origin is Literal:
            found += [choice for choice in get_args(option) if choice != value] or ["another"]
        elif dataclasses.is_dataclass(option):
            found.append(option())
        elif option is bool:
            found.append(not value)
        elif option is int:
            found.append(value + 1 if isinstance(value, int) else 7)
        elif option is float:
            found.append(1.25 * value + 0.125 if isinstance(value, int | float) else 0.375)
        elif option is str:
            found.append(f"{value}x")
        elif origin is list or option is list:
            found.append([*(value or []), *(value or ["x"])])
        elif origin is dict:
            found.append({**(value or {}), "x": [1]})
        elif option is type(None) and value is not None:
            found.append(None)
        elif option is Any:
            found += ["another"] if value != "another" else [["other"]]
    return found


def keys_of(config: Any, prefix: str = "") -> list[tuple[str, list[Any]]]:
    """Dotted path and other values of every key, groups that are not there included."""
    found = []
    hints = typing.get_type_hints(type(config))
    for about in dataclasses.fields(config):
        value = getattr(config, about.name)
        if dataclasses.is_dataclass(value):
            found += keys_of(value, f"{prefix}{about.name}.")
        else:
            found.append((f"{prefix}{about.name}", mutations(value, hints.get(about.name, Any))))
    return found


def with_value(config: Any, path: str, value: Any) -> Any:
    changed = copy.deepcopy(config)
    *groups, key = path.split(".")
    inner = changed
    for group in groups:
        inner = getattr(inner, group)
    object.__setattr__(inner, key, value)
    return changed


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_every_key_of_every_config_counts_or_is_listed(name):
    config = config_of(name)
    before = fingerprints(config)
    keys = keys_of(config)
    assert {path for path, _ in keys} >= {k for k, leaf in leaves_of(config).items() if leaf.value != GIVEN}
    for path, others in keys:
        assert others, f"{path}: this test has no other value of its type"
        for value in others:
            after = fingerprints(with_value(config, path, value))
            for step, made in after.items():
                if STEPS[step].reason(path) is not None or (step == "prepare" and not path.startswith("data.")):
                    continue
                assert made.key != before[step].key, f"{path}={value!r} changes nothing in step {step}"
                assert not made.agrees(before[step].parts)
                assert made.why(before[step].parts)


def test_each_exception_stands_for_a_key_and_has_a_reason():
    known: dict[str, set[str]] = {}
    for name in shipped_configs():
        config = config_of(name)
        for step in fingerprints(config):
            known.setdefault(step, set()).update(leaves_of(config))
    assert set(known) == set(STEPS)
    for name, step in STEPS.items():
        assert step.unknown(known[name]) == []
        assert all(len(reason) > 10 for reason in step.ignored.values())
        assert step.version >= 1


def test_a_key_that_an_early_step_ignores_for_a_later_one_counts_there():
    order = ["organelles", "cells", "overlap", "rows", "files", "tables"]
    keys = leaves_of(config_of("analyze"))
    for key in keys:
        reasons = [STEPS[f"analyze.{name}"].reason(key) for name in order]
        if any(reason == "is used in a later step" for reason in reasons):
            assert reasons[-1] is None, f"{key} counts nowhere"


def test_every_task_has_a_config_in_this_test():
    assert {config_of(name).task for name in shipped_configs()} == set(TASKS)
