"""Merge config files and `key=value` arguments into one plain tree that records the origin of every key."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf._yaml import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException

from cytovox.errors import InputError
from experiments.errors import did_you_mean
from experiments.renamed import with_new_names

#: A key's path from the root: ("trainer", "max_epochs").
KeyPath = tuple[str, ...]

#: The key of each group that chooses its branch of the schema. If a later file chooses another branch, keys that this
#: branch does not have are dropped.
SELECTORS: dict[str, str] = {
    "data": "source",
    "field": "name",
    "model": "network",
    "process": "name",
    "preconditioning": "name",
    "loss": "name",
    "sampler": "name",
    "optimizer": "name",
    "traits": "name",
}

#: Folder of the shipped sweep files among the configs.
SWEEPS = "sweeps/"

#: Folder of the shipped parts of configs, which a config names in `base:`.
PARTS = "slurm/"

#: Origin of keys that `key=value` arguments set.
COMMAND_LINE = "command line"

#: Keys whose meaning differs between the branches of a group, although the name is the same.
OF_ONE_BRANCH = {("data", "spacing_um")}

#: Times such as 24:00:00, which YAML 1.1 reads as a number to the base of 60.
_TIME = re.compile(r"[-+]?[0-9_]+(:[0-9]+)+(\.[0-9_]*)?$")

#: Returns the keys of a branch by (task, group, choice); None if there is no such branch.
Keep = Callable[[str, str, str], set[str] | None]


@dataclass
class Composed:
    """A config before it is checked."""

    values: dict[str, Any] = field(default_factory=dict)
    """Values of files and command line, as a plain nested dict."""
    origin: dict[KeyPath, str] = field(default_factory=dict)
    """File (or `command line`) that last set each key."""
    folder: Path = field(default_factory=Path)
    """Folder of the main file."""

    def where(self, path: KeyPath) -> str:
        """Return the origin of a key path, or of its longest prefix with a known origin."""
        return next((self.origin[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.origin), "config")


def shipped_configs() -> dict[str, Path]:
    """Return the shipped configs: path by name (without `.yaml`)."""
    return {name: path for name, path in _shipped().items() if not name.startswith((SWEEPS, PARTS))}


def shipped_parts() -> dict[str, Path]:
    """Return the shipped parts of configs: path by name, such as slurm/8xV100."""
    return {name: path for name, path in _shipped().items() if name.startswith(PARTS)}


def shipped_sweeps() -> dict[str, Path]:
    """Return the shipped sweep files: path by name, such as sweeps/organelle."""
    return {name: path for name, path in _shipped().items() if name.startswith(SWEEPS)}


def _shipped() -> dict[str, Path]:
    root = Path(str(resources.files("experiments.configs")))
    return {str(p.relative_to(root).with_suffix("").as_posix()): p for p in sorted(root.rglob("*.yaml"))}


def named_config(config: str, overrides: list[str]) -> tuple[str, list[str]]:
    """Return CONFIG, empty if only `key=value` arguments are given, and these arguments."""
    if "=" in config and not Path(config).is_file():
        return "", [config, *overrides]
    return config, overrides


def find_config(name: str, folder: Path = Path()) -> Path:
    """Return the path of a config that is given as a file or as the name of a shipped one.

    Parameters
    ----------
    name : str
        The file or the name.
    folder : Path
        Folder that is searched before the working directory.

    Raises
    ------
    InputError
        There is no such file and no such shipped config; the message names the most similar one.
    """
    shipped = {**shipped_configs(), **shipped_parts()}
    for path in (folder / name, Path(name), shipped.get(name.removesuffix(".yaml"))):
        if path is not None and path.is_file():
            return path
    hint = did_you_mean(Path(name).stem, shipped)
    raise InputError(
        f"{name}: no such config file, and no shipped config of that name{hint} (shipped: {', '.join(shipped)})"
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """Return a YAML file as a plain dict, read with OmegaConf's safe loader (no tags, no duplicate keys)."""
    try:
        tree = _plain(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark is not None else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{path.name}:{line} not readable as YAML: {reason}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a YAML text file") from None
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise InputError(f"{path.name}: expected `key: value` lines at the top level, got a {type(tree).__name__}")
    return {str(key): value for key, value in tree.items()}


def _plain(text: str) -> Any:
    """Return YAML as plain values; a time such as 24:00:00 stays text."""
    loader = get_yaml_loader()
    resolvers = loader.yaml_implicit_resolvers
    for first in "+-0123456789_":
        resolvers[first] = [("tag:yaml.org,2002:str", _TIME), *resolvers.get(first, [])]
    # the loader is OmegaConf's own, and safe
    value = yaml.load(text, Loader=loader)  # noqa: S506
    plain: Any = OmegaConf.to_container(OmegaConf.create({"value": value}), resolve=False)
    return plain["value"]


def compose(config: str | Path, overrides: Iterable[str] = (), keep: Keep | None = None) -> Composed:
    """Merge bases, the file and the command line; later values take precedence.

    Parameters
    ----------
    config : str or Path
        A file, or the name of a shipped config.
    overrides : iterable of str
        `key.path=value` arguments.
    keep : callable, optional
        `keep(task, group, choice)` returns the keys of a newly chosen branch (None: unknown branch, keep all).

    Raises
    ------
    InputError
        A file is missing, not YAML, or only part of a config; bases form a cycle; an argument has no `=`.
    """
    path = find_config(str(config))
    if path in shipped_parts().values():
        part = f"{PARTS}{path.stem}"
        raise InputError(f"{config}: part of a config: name it in base: of your own, such as base: [organelle, {part}]")
    result = Composed(origin={(): path.name}, folder=path.parent)
    _layer_file(result, path, keep, chain=())
    for word in overrides:
        _layer(result, _parse_override(word), COMMAND_LINE, keep)
    return result


def _layer_file(result: Composed, path: Path, keep: Keep | None, chain: tuple[Path, ...]) -> None:
    """Merge the bases of a file, then the file itself, into the result."""
    if path.resolve() in chain:
        names = " -> ".join(p.name for p in (*chain, path))
        raise InputError(f"{path.name}: base: files refer to each other in a circle ({names})")
    tree = read_yaml(path)
    bases = tree.get("base") or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list):
        raise InputError(f"{path.name}: base: expected a list of config files, got {bases!r}")
    for base in bases:
        _layer_file(result, find_config(str(base), path.parent), keep, (*chain, path.resolve()))
    _layer(result, tree, path.name, keep)


def _parse_override(word: str) -> dict[str, Any]:
    """Return a `key.path=value` argument as a nested dict, the value read as YAML."""
    key, equals, value = word.partition("=")
    if not equals or not key.strip() or any(not part for part in key.strip().split(".")):
        raise InputError(f"command line: {word!r}: expected key=value, such as trainer.max_epochs=10")
    if key.startswith("-"):
        raise InputError(f"command line: {word!r}: keys have no dashes; write {key.lstrip('-')}={value}")
    if value.startswith("*"):  # a glob, which YAML would read as an alias
        value = f"'{value}'" if "'" not in value else value
    try:
        tree = _plain(value)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"command line: {key}: {value!r} is not a readable value: {reason}") from None
    for part in reversed(key.strip().split(".")):
        tree = {part: tree}
    return tree


def _layer(result: Composed, tree: dict[str, Any], origin: str, keep: Keep | None) -> None:
    """Merge one tree into the result; keys of a branch that is replaced by another one are dropped."""
    tree = with_new_names(tree, origin)
    for group, selector in SELECTORS.items():
        new, old = tree.get(group), result.values.get(group)
        if not isinstance(new, dict) or not isinstance(old, dict) or selector not in new or keep is None:
            continue
        task = str(tree.get("task", result.values.get("task", "organelle")))
        if new[selector] != old.get(selector) and (known := keep(task, group, str(new[selector]))) is not None:
            result.values[group] = {
                key: value
                for key, value in old.items()
                if key in known and ((group, key) not in OF_ONE_BRANCH or result.where((group, key)) == COMMAND_LINE)
            }
    _merge(result.values, tree, origin, result.origin, ())


def _merge(into: dict[str, Any], tree: dict[str, Any], origin: str, origins: dict[KeyPath, str], path: KeyPath) -> None:
    for raw, value in tree.items():
        key, here = str(raw), (*path, str(raw))
        origins[here] = origin
        if not isinstance(value, dict):
            into[key] = value
            continue
        if not isinstance(into.get(key), dict):
            into[key] = {}
        _merge(into[key], value, origin, origins, here)
