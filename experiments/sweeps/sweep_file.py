"""W&B sweep files, checked against the config whose keys they vary."""

import hashlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from experiments.compose import find_config, read_yaml, shipped_sweeps
from experiments.config import load_config, resolved
from experiments.errors import ConfigErrors, did_you_mean
from experiments.schema import Config
from experiments.unused import sweep_rules, unused_keys, without_effect

METHODS = ("random", "grid", "bayes")
#: The command of shipped sweeps. W&B's default command writes arguments with hyphens, which Cytovox does not accept.
COMMAND = ["${env}", "python", "-m", "experiments.run", "CONFIG", "${args_no_hyphens}"]
#: W&B's macro for arguments without hyphens.
_ARGUMENTS = "${args_no_hyphens}"


#: Key that W&B's schema lacks, since W&B's server handles it.
RUN_CAP = "run_cap"
#: Expected values of keys for which the schema only reports that none of its many forms fits.
_EXPECTED = {
    "parameters": "values: [...], value:, or a distribution with its min and max",
    "early_terminate": "one such as {type: hyperband, min_iter: 5, eta: 3}",
    "metric": "one such as {name: val/dice_mean, goal: maximize}",
}


@dataclass(frozen=True)
class Sweep:
    """A valid sweep file."""

    path: Path
    values: dict[str, Any]
    """Content of the file, as plain values."""
    config: str
    """Config in the command."""
    fixed: list[str]
    """`key=value` arguments in the command."""
    typed: Config
    """The config with these arguments."""

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """Parameters by key path; nested ones by their whole path."""
        return flat_parameters(self.values["parameters"])

    @property
    def for_engine(self) -> dict[str, Any]:
        """Content for W&B's engine, without nesting: version 0.2 does not recognise nested parameters of its runs."""
        return {**self.values, "parameters": self.parameters}

    @property
    def id(self) -> str:
        """Name that depends on the content only: a sweep that was stopped resumes in its folder."""
        digest = hashlib.sha256(json.dumps(self.values, sort_keys=True, default=str).encode()).hexdigest()
        return f"{self.path.stem}-{digest[:8]}"

    @property
    def metric(self) -> tuple[str, bool]:
        """Name of the metric, and whether larger is better."""
        parameter = self.values.get("metric") or {}
        return str(parameter.get("name", "")), parameter.get("goal", "minimize") == "maximize"

    @property
    def folder(self) -> Path:
        """Folder of state, table and figure."""
        return Path(self.typed.runs_dir).absolute() / "sweeps" / self.id

    def words(self, suggested: Mapping[str, Any]) -> list[str]:
        """Return the `key=value` arguments of a run, for `${args_no_hyphens}`."""
        return [f"{key}={_word(value)}" for key, value in suggested.items()]

    def overrides(self, suggested: Mapping[str, Any]) -> list[str]:
        """Return all `key=value` arguments of a run in the order of its command; the last one of a key counts."""
        parts = list(map(str, self.values["command"]))
        found = {part: [part] for part in self.fixed} | {_ARGUMENTS: self.words(suggested)}
        return [word for part in parts[parts.index("experiments.run") + 1 :] for word in found.get(part, [])]

    def command(self, suggested: Mapping[str, Any], python: str = sys.executable) -> list[str]:
        """Return the command of a run.

        Parameters
        ----------
        suggested : mapping
            Values of the parameters.
        python : str
            Interpreter.
        """
        macros = {
            _ARGUMENTS: self.words(suggested),
            "${env}": [shutil.which("env") or "env"] if os.name != "nt" else [],
            **{name: [python] for name in ("${interpreter}", "python", "python3")},
            "${program}": [str(self.values.get("program", ""))],
        }
        found: list[str] = []
        for part in map(str, self.values["command"]):
            variable = part.startswith("${envvar:")
            found += [os.environ.get(part[len("${envvar:") : -1], "")] if variable else macros.get(part, [part])
        return found


def _word(value: Any) -> str:
    """Return a value as text that OmegaConf reads as the same value."""
    return json.dumps(value) if value is None or isinstance(value, bool | list | dict) else str(value)


def find_sweep(name: str) -> Path:
    """Return the path of a sweep that is given as a file or as the name of a shipped one.

    Raises
    ------
    InputError
        There is no such file and no such shipped sweep.
    """
    shipped = shipped_sweeps()
    path = Path(name) if Path(name).is_file() else shipped.get(name.removesuffix(".yaml"))
    if path is None:
        raise InputError(f"{name}: no such sweep file, and no shipped one of that name (shipped: {', '.join(shipped)})")
    return path


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file, and check that the config accepts every value that it may suggest.

    Raises
    ------
    InputError
        The sweep does not run `experiments.run`, or W&B's engine refuses it.
    ConfigErrors
        Unknown keys or invalid values, one line each.
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
    sweep = Sweep(path, values, config, fixed, load_config(find_config(config), fixed))
    _require_keys(sweep)
    _require_engine(sweep)
    return sweep


def _read_command(name: str, command: Any) -> tuple[str, list[str]]:
    """Return the config and the `key=value` arguments in the command of a sweep."""
    expected = f"{name}: command: expected {json.dumps(COMMAND)}"
    if not isinstance(command, list):
        raise InputError(f"{expected}, got {command!r}")
    if other := [part for part in command if not isinstance(part, str)]:
        raise InputError(f"{name}: command: expected texts, got {other[0]!r}; put it in quotes")
    if "experiments.run" not in command:
        raise InputError(expected)
    if other := [part for part in command if part.startswith("${args") and part != _ARGUMENTS]:
        raise InputError(f"{name}: command: {other[0]} does not produce key=value arguments; use {_ARGUMENTS}")
    after = command[command.index("experiments.run") + 1 :]
    if _ARGUMENTS not in after:
        raise InputError(f"{name}: command: without {_ARGUMENTS} every run is the same; put it at the end")
    words = [part for part in after if not part.startswith("${")]
    config = next((part for part in words if "=" not in part), "")
    if not config:
        raise InputError(f"{name}: command: expected a config after experiments.run")
    return config, [part for part in words if "=" in part]


def _require_keys(sweep: Sweep) -> None:
    """Check a sweep against W&B's schema, and load its config once for every value of every parameter."""
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
            except InputError as error:
                lines = str(error).splitlines() if isinstance(error, ConfigErrors) else [str(error)]
                errors += [f"{sweep.path.name}: parameters: {line}" for line in lines]
    if errors:
        raise ConfigErrors(list(dict.fromkeys(errors)))
    _require_effect(sweep, loaded)


def flat_parameters(tree: Mapping[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """Return the parameters of a sweep by key path: `optimizer: {parameters: {lr: ...}}` is `optimizer.lr`.

    Raises
    ------
    InputError
        Two of them have the same key path.
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
    """Return the values in the definition of a parameter: all of a list, or the bounds of its distribution."""
    bounds = [parameter[name] for name in ("value", "min", "max", "mu") if name in parameter]
    return list(parameter.get("values", bounds))


def _twice(values: list[Any]) -> str | None:
    """Return the first two equal values of a list, such as 0 and 0.0 but not 1 and true; None if all differ."""
    pairs = ((other, value) for k, value in enumerate(values) for other in values[:k])
    equal = ((a, b) for a, b in pairs if a == b and isinstance(a, bool) == isinstance(b, bool))
    return next((f"{a!r} and {b!r}" for a, b in equal), None)


def _require_effect(sweep: Sweep, loaded: Mapping[str, list[Config]]) -> None:
    """Refuse parameters that have no effect.

    A parameter has an effect if one of the configs uses it: that of the command, or one in which a single parameter has
    one of its values.

    Parameters
    ----------
    sweep : Sweep
        The sweep.
    loaded : mapping
        For each parameter, the configs of its values.

    Raises
    ------
    ConfigErrors
        One line for each parameter, with the reason.
    """
    rules = sweep_rules(sweep.metric[0])
    configs = [sweep.typed, *(config for found in loaded.values() for config in found)]
    unused = [unused_keys(config, rules) for config in configs]
    errors = []
    for key, found in loaded.items():
        if "value" in sweep.parameters[key]:
            continue  # a constant has the same effect in every run
        reasons = [without_effect(key, one) for one in unused]
        trees = [resolved(config) for config in found]
        if all(reasons):
            errors.append(f"parameters.{key}: has no effect: {reasons[0]}; leave it out")
        elif len(trees) > 1 and all(tree == trees[0] for tree in trees):
            errors.append(f"parameters.{key}: has no effect: its values give one and the same config; leave it out")
    if errors:
        raise ConfigErrors([f"{sweep.path.name}: {error}" for error in errors])


def _require_engine(sweep: Sweep) -> None:
    """Request a first run from W&B's engine, which refuses sweeps that it cannot read."""
    try:
        with engine() as sweeps:
            sweeps.next_run(sweep.for_engine, [])
            if sweep.values.get("early_terminate"):
                sweeps.stop_runs(sweep.for_engine, [])
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{sweep.path.name}: W&B's sweep engine refuses it: {reason}") from None


@contextmanager
def engine() -> Iterator[Any]:
    """Import W&B's sweep engine, and suppress its warnings within the block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sweeps

        yield sweeps


def sweep_errors(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the errors of a sweep file, as pairs of key and error.

    W&B's engine ignores invalid values: with `goal: max` it would minimise.

    Parameters
    ----------
    values : mapping
        Content of the file. Keys that are null are ignored.
    """
    given = {key: value for key, value in values.items() if value is not None}
    cap = given.pop(RUN_CAP, 1)
    errors = []
    if isinstance(cap, bool) or not isinstance(cap, int) or cap < 1:
        errors.append((RUN_CAP, f"expected a whole number, 1 or more, got {_short(cap)}"))
    with engine():
        from sweeps.config.cfg import schema_violations_from_proposed_config
        from sweeps.config.schema import validator

        known = [*validator.schema["properties"], RUN_CAP]
        errors += [
            (key, "no such key of a sweep" + (did_you_mean(key, known) or f"; expected {', '.join(known)}"))
            for key in given
            if key not in known
        ]
        tree = {key: value for key, value in given.items() if key in known}
        found = [(".".join(map(str, error.absolute_path)), _line(error)) for error in validator.iter_errors(tree)]
        if not found:  # comparisons between values presuppose that each has the right type
            found = [("parameters", line) for line in dict.fromkeys(schema_violations_from_proposed_config(tree))]
    return errors + found


def _line(error: Any) -> str:
    """Return an error of the schema as one line, reworded if the schema's message is of little help."""
    top = error.absolute_path[0] if error.absolute_path else ""
    if error.validator in ("anyOf", "oneOf", "type") and top in _EXPECTED and len(error.absolute_path) <= 2:
        return f"expected {_EXPECTED[top]}, got {_short(error.instance)}"
    if error.validator == "enum":
        return f"expected one of {', '.join(error.validator_value)}, got {_short(error.instance)}"
    return " ".join(str(error.message).split())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
