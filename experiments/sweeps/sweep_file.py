"""A sweep as W&B's documentation has it: read safely, and checked against the config that it varies."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from experiments.compose import find_config, read_yaml, shipped_sweeps
from experiments.config import load_config, resolved
from experiments.errors import ConfigErrors
from experiments.schema import Config
from experiments.sweeps.sweep_schema import sweep_errors
from experiments.unused import sweep_rules, unused_keys, without_effect

METHODS = ("random", "grid", "bayes")
#: What shipped sweeps say, and what W&B would run without a `command` cannot: our words have no hyphens.
COMMAND = ["${env}", "python", "-m", "experiments.run", "CONFIG", "${args_no_hyphens}"]
#: The macro that our words are written by.
_ARGUMENTS = "${args_no_hyphens}"


@dataclass(frozen=True)
class Sweep:
    """A sweep file that can be run."""

    path: Path
    values: dict[str, Any]
    """Plain, as W&B's engine wants them."""
    config: str
    """What its command gives to `experiments.run`."""
    fixed: list[str]
    """`key=value` words of the command itself."""
    typed: Config
    """The config with the fixed words."""

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """What is varied, by key path: nested parameters by the path that they lie at."""
        return flat_parameters(self.values["parameters"])

    @property
    def for_engine(self) -> dict[str, Any]:
        """The file as W&B's engine is given it: without nesting, which 0.2 does not find again in its own runs."""
        return {**self.values, "parameters": self.parameters}

    @property
    def id(self) -> str:
        """The same for the same file: a sweep that was killed goes on in its folder."""
        digest = hashlib.sha256(json.dumps(self.values, sort_keys=True, default=str).encode()).hexdigest()
        return f"{self.path.stem}-{digest[:8]}"

    @property
    def metric(self) -> tuple[str, bool]:
        """Name of the metric, and whether larger is better."""
        parameter = self.values.get("metric") or {}
        return str(parameter.get("name", "")), parameter.get("goal", "minimize") == "maximize"

    @property
    def folder(self) -> Path:
        """State, table and figure."""
        return Path(self.typed.runs_dir).absolute() / "sweeps" / self.id

    def words(self, suggested: Mapping[str, Any]) -> list[str]:
        """`key=value` words of a run, as `${args_no_hyphens}` has them."""
        return [f"{key}={_word(value)}" for key, value in suggested.items()]

    def overrides(self, suggested: Mapping[str, Any]) -> list[str]:
        """All `key=value` words of a run in the order of its command: the last one of a key counts."""
        parts = list(map(str, self.values["command"]))
        found: list[str] = []
        for part in parts[parts.index("experiments.run") + 1 :]:
            found += self.words(suggested) if part == _ARGUMENTS else [part] if part in self.fixed else []
        return found

    def command(self, suggested: Mapping[str, Any], python: str = sys.executable) -> list[str]:
        """Words of the process that runs it, with this interpreter."""
        found: list[str] = []
        for part in map(str, self.values["command"]):
            if part == _ARGUMENTS:
                found += self.words(suggested)
            elif part == "${env}":
                found += [shutil.which("env") or "env"] if os.name != "nt" else []
            elif part in ("${interpreter}", "python", "python3"):
                found.append(python)
            elif part == "${program}":
                found.append(str(self.values.get("program", "")))
            elif part.startswith("${envvar:"):
                found.append(os.environ.get(part[len("${envvar:") : -1], ""))
            else:
                found.append(part)
        return found


def _word(value: Any) -> str:
    """A value that OmegaConf's dotlist reads as what it was."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def find_sweep(name: str) -> Path:
    """Path of a sweep given as a file or as the name of a shipped one.

    Raises
    ------
    InputError
        Neither.
    """
    shipped = shipped_sweeps()
    if not Path(name).is_file() and name.removesuffix(".yaml") not in shipped:
        raise InputError(f"{name}: no such sweep file, and no shipped one of that name (shipped: {', '.join(shipped)})")
    return Path(name) if Path(name).is_file() else shipped[name.removesuffix(".yaml")]


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file, and see that every value it may suggest is one that the config takes.

    Raises
    ------
    InputError
        Not a sweep of `experiments.run`, or one that W&B's engine refuses.
    ConfigErrors
        Keys that the schema does not know, or values that do not fit, one line each.
    """
    values = read_yaml(path)
    method = values.get("method")
    if method not in METHODS:
        raise InputError(f"{path.name}: method: expected one of {', '.join(METHODS)}, got {method!r}")
    if not isinstance(values.get("parameters"), dict) or not values["parameters"]:
        raise InputError(f"{path.name}: parameters: expected keys of the config, each with values or a distribution")
    metric = values.get("metric")
    if (method == "bayes" or values.get("early_terminate")) and not (isinstance(metric, dict) and metric.get("name")):
        raise InputError(f"{path.name}: metric: {method} and early_terminate need one, such as name: val/dice_mean")
    config, fixed = _read_command(path.name, values.get("command"))
    typed = load_config(find_config(config), fixed)
    sweep = Sweep(path, values, config, fixed, typed)
    _require_keys(sweep)
    _require_engine(sweep)
    return sweep


def _read_command(name: str, command: Any) -> tuple[str, list[str]]:
    """Config and `key=value` words of a sweep's command."""
    expected = f"{name}: command: expected {json.dumps(COMMAND)}"
    if not isinstance(command, list):
        raise InputError(f"{expected}, got {command!r}")
    if other := [part for part in command if not isinstance(part, str)]:
        raise InputError(f"{name}: command: expected texts, got {other[0]!r}; put it in quotes")
    if "experiments.run" not in command:
        raise InputError(expected)
    if other := [part for part in command if part.startswith("${args") and part != _ARGUMENTS]:
        raise InputError(f"{name}: command: {other[0]} writes what are no keys of ours; use {_ARGUMENTS}")
    after = command[command.index("experiments.run") + 1 :]
    if _ARGUMENTS not in after:
        raise InputError(f"{name}: command: without {_ARGUMENTS} every run is the same; put it at the end")
    words = [part for part in after if not part.startswith("${")]
    config = next((part for part in words if "=" not in part), "")
    if not config:
        raise InputError(f"{name}: command: expected a config after experiments.run")
    return config, [part for part in words if "=" in part]


def _require_keys(sweep: Sweep) -> None:
    """Ask W&B's schema, and load the config once for every value that a parameter names, the others as they are."""
    refused = dict(sweep_errors(sweep.values))
    errors = [f"{sweep.path.name}: {where}: {error}" for where, error in refused.items()]
    try:
        parameters = sweep.parameters
    except InputError as error:
        raise ConfigErrors([*errors, f"{sweep.path.name}: {error}"]) from None
    loaded: dict[str, list[Config]] = {}
    for key, parameter in parameters.items():
        if f"parameters.{key}" in refused or not isinstance(parameter, dict):
            continue
        if sweep.values.get("method") == "grid" and (twice := _twice(parameter.get("values", []))) is not None:
            errors.append(f"{sweep.path.name}: parameters.{key}: values: {twice}: the same point of the grid twice")
        for value in named_values(parameter):
            try:
                config = load_config(find_config(sweep.config), sweep.overrides({key: value}))
                loaded.setdefault(key, []).append(config)
            except ConfigErrors as error:
                errors += [f"{sweep.path.name}: parameters: {line}" for line in str(error).splitlines()]
            except InputError as error:
                errors.append(f"{sweep.path.name}: parameters: {error}")
    if errors:
        raise ConfigErrors(list(dict.fromkeys(errors)))
    _require_effect(sweep, loaded)


def flat_parameters(tree: Mapping[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """Parameters of a sweep by key path: `optimizer: {parameters: {lr: ...}}` is `optimizer.lr`.

    Raises
    ------
    InputError
        Two of them name one key of the config.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, parameter in tree.items():
        key = f"{prefix}{name}"
        nested = parameter.get("parameters") if isinstance(parameter, dict) else None
        more = flat_parameters(nested, f"{key}.") if isinstance(nested, dict) else {key: parameter}
        if twice := [other for other in more if other in found]:
            raise InputError(f"parameters: {twice[0]} is given twice, nested and by its path; leave one of them out")
        found |= more
    return found


def named_values(parameter: Mapping[str, Any]) -> list[Any]:
    """Values that a parameter names: all of a list, or what bounds its distribution."""
    return list(
        parameter.get("values", [parameter[name] for name in ("value", "min", "max", "mu") if name in parameter])
    )


def _twice(values: list[Any]) -> str | None:
    """Two values of a list that are one: 0 and 0.0, but not 1 and true."""
    for k, value in enumerate(values):
        for other in values[:k]:
            if value == other and isinstance(value, bool) == isinstance(other, bool):
                return f"{other!r} and {value!r}"
    return None


def _require_effect(sweep: Sweep, loaded: Mapping[str, list[Config]]) -> None:
    """Refuse keys that change nothing, whatever the other parameters are.

    A key counts as used if one of the configs uses it: that of the command alone, or one with a value that any
    parameter names, the others being as the command has them.

    Parameters
    ----------
    sweep : Sweep
        Its values are those of the config's keys.
    loaded : mapping
        For each parameter the configs of its values.

    Raises
    ------
    ConfigErrors
        A line for each key, with the reason.
    """
    rules = sweep_rules(sweep.metric[0])
    configs = [sweep.typed, *(config for found in loaded.values() for config in found)]
    unused = [unused_keys(config, rules) for config in configs]
    errors = []
    for key, found in loaded.items():
        if "value" in sweep.parameters[key]:
            continue  # a constant: what it does, it does in every run
        reasons = [without_effect(key, one) for one in unused]
        trees = [resolved(config) for config in found]
        if all(reasons):
            errors.append(f"parameters.{key}: has no effect: {reasons[0]}; leave it out")
        elif len(trees) > 1 and all(tree == trees[0] for tree in trees):
            errors.append(f"parameters.{key}: has no effect: its values give one and the same config; leave it out")
    if errors:
        raise ConfigErrors([f"{sweep.path.name}: {error}" for error in errors])


def _require_engine(sweep: Sweep) -> None:
    """Ask W&B's engine for a first run, which it refuses of a sweep that it cannot read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sweeps

        try:
            sweeps.next_run(sweep.for_engine, [])
            if sweep.values.get("early_terminate"):
                sweeps.stop_runs(sweep.for_engine, [])
        except Exception as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{sweep.path.name}: W&B's sweep engine refuses it: {reason}") from None


def shown(command: list[str]) -> str:
    """A command as a person types it."""
    return shlex.join(command)
