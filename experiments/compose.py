"""From files and `key=value` words to one plain tree, with the origin of every key kept for the error messages."""

from __future__ import annotations

import difflib
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
from experiments.renamed import with_new_names

#: A key's path from the root: ("trainer", "max_epochs").
KeyPath = tuple[str, ...]

#: Keys that choose a branch of the schema: what an earlier layer set for another branch is dropped with it.
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

#: Folder of the shipped parts of configs, which others name in `base:`.
PARTS = "slurm/"

#: Origin of what `key=value` words say.
COMMAND_LINE = "command line"

#: Keys that the branches of a group share in name only: each says what its own files are like.
OF_ONE_BRANCH = {("data", "spacing_um")}

#: What YAML 1.1 takes for a number to the base of 60, and a person for a time: 24:00:00 is no 86400.
_TIME = re.compile(r"[-+]?[0-9_]+(:[0-9]+)+(\.[0-9_]*)?$")

#: (task, group, choice) to the keys that a branch knows; None where there is no such branch.
Keep = Callable[[str, str, str], set[str] | None]


@dataclass
class Composed:
    """A config before it is checked."""

    values: dict[str, Any] = field(default_factory=dict)
    """Plain nested dict of what the files and the command line say."""
    origin: dict[KeyPath, str] = field(default_factory=dict)
    """Which file (or `command line`) last set each key."""
    folder: Path = field(default_factory=Path)
    """Where the main file lies."""

    def where(self, path: KeyPath) -> str:
        """Origin of the longest known prefix of a key path."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origin:
                return self.origin[path[:end]]
        return self.origin.get((), "config")


def shipped_configs() -> dict[str, Path]:
    """Names (without `.yaml`) and paths of the configs that come with the package."""
    return {name: path for name, path in _shipped().items() if not name.startswith((SWEEPS, PARTS))}


def shipped_parts() -> dict[str, Path]:
    """Names, such as slurm/8xV100, and paths of the parts of configs that come with the package."""
    return {name: path for name, path in _shipped().items() if name.startswith(PARTS)}


def shipped_sweeps() -> dict[str, Path]:
    """Names, such as sweeps/organelle, and paths of the sweep files that come with the package."""
    return {name: path for name, path in _shipped().items() if name.startswith(SWEEPS)}


def _shipped() -> dict[str, Path]:
    root = Path(str(resources.files("experiments.configs")))
    return {str(p.relative_to(root).with_suffix("").as_posix()): p for p in sorted(root.rglob("*.yaml"))}


def find_config(name: str, beside: Path | None = None) -> Path:
    """Path of a config given as a file or as the name of a shipped one.

    Raises
    ------
    InputError
        Neither a file nor a shipped name; the message names the nearest shipped ones.
    """
    candidates = [beside / name] if beside is not None else []
    candidates.append(Path(name))
    for path in candidates:
        if path.is_file():
            return path
    shipped = {**shipped_configs(), **shipped_parts()}
    if name.removesuffix(".yaml") in shipped:
        return shipped[name.removesuffix(".yaml")]
    near = difflib.get_close_matches(Path(name).stem, shipped, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(
        f"{name}: no such config file, and no shipped config of that name{hint} (shipped: {', '.join(shipped)})"
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a plain dict, through OmegaConf's safe loader (no tags, no duplicate keys)."""
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
    """YAML as plain values; a time stays the text that it is."""
    loader = get_yaml_loader()
    for first in "+-0123456789_":
        resolvers = loader.yaml_implicit_resolvers
        resolvers[first] = [("tag:yaml.org,2002:str", _TIME), *resolvers.get(first, [])]
    # the loader is OmegaConf's own, and safe
    value = yaml.load(text, Loader=loader)  # noqa: S506
    made: Any = OmegaConf.to_container(OmegaConf.create({"value": value}), resolve=False)
    return made["value"]


def compose(config: str | Path, overrides: Iterable[str] = (), keep: Keep | None = None) -> Composed:
    """Merge bases, the file and the command line, later ones winning.

    Parameters
    ----------
    config : str or Path
        A file, or the name of a shipped config.
    overrides : iterable of str
        `key.path=value` words.
    keep : callable, optional
        `keep(task, group, choice)` gives the keys a newly chosen branch knows (None: unknown branch, keep all).

    Raises
    ------
    InputError
        A file that is missing or not YAML, one that is part of a config only, a cycle of bases, a word without `=`.
    """
    path = find_config(str(config))
    if path in shipped_parts().values():
        part = f"{PARTS}{path.stem}"
        raise InputError(f"{config}: part of a config: name it in base: of your own, such as base: [organelle, {part}]")
    result = Composed(folder=path.parent)
    result.origin[()] = path.name
    _layer_file(result, path, keep, chain=())
    for word in overrides:
        _layer(result, _parse_override(word), COMMAND_LINE, keep)
    return result


def _layer_file(result: Composed, path: Path, keep: Keep | None, chain: tuple[Path, ...]) -> None:
    """Bases first, then the file itself."""
    if path.resolve() in chain:
        names = " -> ".join(p.name for p in (*chain, path))
        raise InputError(f"{path.name}: base: files refer to each other in a circle ({names})")
    tree = read_yaml(path)
    bases = tree.get("base") or []
    if isinstance(bases, str):
        bases = [bases]
    if not isinstance(bases, list):
        raise InputError(f"{path.name}: base: expected a list of config files, got {bases!r}")
    for base in bases:
        _layer_file(result, find_config(str(base), beside=path.parent), keep, (*chain, path.resolve()))
    _layer(result, tree, path.name, keep)


def _parse_override(word: str) -> dict[str, Any]:
    """One `key.path=value` as a nested dict, the value read as YAML."""
    key, equals, value = word.partition("=")
    if not equals or not key.strip() or any(not part for part in key.strip().split(".")):
        raise InputError(f"command line: {word!r}: expected key=value, such as trainer.max_epochs=10")
    if key.startswith("-"):
        raise InputError(f"command line: {word!r}: keys have no dashes; write {key.lstrip('-')}={value}")
    if value.startswith("*"):  # a glob: to YAML an alias, of which a single value can have none
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
    """Lay one tree over the result; a group that changes its branch forgets the other branch's keys."""
    tree = with_new_names(tree, origin)
    for group, selector in SELECTORS.items():
        new, old = tree.get(group), result.values.get(group)
        if not isinstance(new, dict) or not isinstance(old, dict) or selector not in new:
            continue
        if new[selector] != old.get(selector) and keep is not None:
            task = str(tree.get("task", result.values.get("task", "organelle")))
            known = keep(task, group, str(new[selector]))
            if known is not None:
                known = {
                    k for k in known if (group, k) not in OF_ONE_BRANCH or result.where((group, k)) == COMMAND_LINE
                }
                result.values[group] = {key: value for key, value in old.items() if key in known}
    _merge(result.values, tree, origin, result.origin, ())


def _merge(into: dict[str, Any], tree: dict[str, Any], origin: str, origins: dict[KeyPath, str], path: KeyPath) -> None:
    for raw, value in tree.items():
        key = str(raw)
        here = (*path, key)
        origins[here] = origin
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, origin, origins, here)
        else:
            into[key] = value
            if isinstance(value, dict):
                into[key] = {}
                _merge(into[key], value, origin, origins, here)
