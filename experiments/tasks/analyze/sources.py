"""Inputs of an analysis: tomograms, and their groups, fields of view and dishes."""

from __future__ import annotations

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cytovox.errors import InputError
from cytovox.io.csv_files import read_csv, same_name
from datamodules.paths import expand
from experiments.errors import ConfigErrors
from experiments.tasks.analyze.config import AnalyzeConfig
from training.prediction import output_names

#: Group of all files if the config has no groups.
NO_GROUP = "all"


@dataclass(frozen=True)
class Source:
    """One tomogram file."""

    path: Path
    name: str
    """Name of the results, unique among the inputs."""
    group: str
    field: str
    """Field of view, the unit of tests unless dishes are known."""
    dish: str = ""
    """Dish of the field; "" if unknown."""


@dataclass
class Error:
    """An input that could not be analysed, and the reason."""

    source: Source
    text: str


def find_sources(config: AnalyzeConfig) -> list[Source]:
    """Return the inputs of a config with their groups.

    Raises
    ------
    InputError
        There are no inputs, an input occurs twice, or the groups do not match the inputs.
    """
    if not config.inputs:
        raise InputError("inputs: nothing to analyse; give tomograms, such as inputs=[cells/*.TCF]")
    paths = expand(config.inputs, Path(), "inputs")
    sources = with_groups(paths, config.groups)
    if config.statistics.unit == "dish":
        _require_dishes(sources)
    return sources


def _require_dishes(sources: Sequence[Source]) -> None:
    """Raise an InputError if a file has no dish, or a dish contains two groups."""
    if any(not source.dish for source in sources):
        raise InputError("statistics.unit: dish, but the dishes are unknown: set groups to a CSV with a column dish")
    for dish in sorted({source.dish for source in sources}):
        groups = sorted({source.group for source in sources if source.dish == dish})
        if len(groups) > 1:
            raise InputError(
                f"statistics.unit: dish {dish} contains the groups {', '.join(groups)}; use statistics.unit=field"
            )


def with_groups(paths: Sequence[Path], groups: str | None) -> list[Source]:
    """Return the files with group, field and dish, from a CSV or a pattern; without both they are one group.

    A file without a field in the CSV is a field of its own, with the unique name of the file.
    """
    names = output_names(paths)
    if groups is None:
        return [Source(path, names[path], NO_GROUP, names[path]) for path in paths]
    found = _by_pattern(paths, groups, names) if "{group}" in groups else _by_table(paths, Path(groups), names)
    return [Source(path, names[path], *found[path]) for path in paths]


def _by_pattern(paths: Sequence[Path], given: str, names: Mapping[Path, str]) -> dict[Path, tuple[str, str, str]]:
    """Return group, field and dish of each file from a pattern of the ends of paths, such as `*/{group}_*.TCF`."""
    parts = [fnmatch.translate(part)[4:-3] for part in given.split("{group}")]  # without (?s: and )\\Z
    if any("group" in part for part in parts) or len(parts) != 2:
        raise InputError(f"groups: {given}: expected {{group}} once, such as */{{group}}_*.TCF")
    pattern = re.compile(rf"(?s:(?:.*/)?{parts[0]}(?P<group>[^/]+?){parts[1]})\Z")
    matches = {path: pattern.match(path.absolute().as_posix()) for path in paths}
    if bare := [path for path, match in matches.items() if match is None]:
        raise InputError(f"groups: {given}: {len(bare)} of {len(paths)} inputs do not match, such as {bare[0]}")
    return {path: (match["group"], names[path], "") for path, match in matches.items() if match is not None}


def _by_table(paths: Sequence[Path], table: Path, names: Mapping[Path, str]) -> dict[Path, tuple[str, str, str]]:
    """Return group, field and dish of each file from a CSV with columns file, group and optionally field and dish."""
    try:
        rows = read_csv(table, "groups")
    except InputError as error:
        raise InputError(f"{error}; or set groups to a pattern with {{group}}") from None
    if not rows or not {"file", "group"} <= set(rows[0].cells):
        raise InputError(f"groups: {table}: expected the columns file and group")
    found: dict[Path, tuple[str, str, str]] = {}
    errors = []
    for number, row in rows:
        named = _named(row["file"], paths, table.parent)
        if len(named) > 1:
            several = ", ".join(str(path) for path in named[:3]) + (", ..." if len(named) > 3 else "")
            errors.append(
                f"groups: {table.name} line {number}: {row['file']} names {len(named)} inputs ({several}); write "
                "their paths relative to the table's folder"
            )
        if not named or not row["group"]:
            why = "names no input" if row["group"] else "has no group"
            errors.append(f"groups: {table.name} line {number}: {row['file']} {why}")
        if named and not row.get("dish", "-"):
            errors.append(f"groups: {table.name} line {number}: {row['file']} has no dish; every line needs one")
        for path in named:
            stated = (row["group"], row.get("field") or names[path], row.get("dish", ""))
            for what, before, now in zip(("group", "field", "dish"), found.get(path, stated), stated, strict=True):
                if before != now:
                    errors.append(f"groups: {table.name} line {number}: {path.name} is in {what} {before}, too")
            found[path] = stated
    twice = Counter(path.name for path in paths)
    errors += [
        f"groups: {table.name}: no line for {path.name if twice[path.name] == 1 else path}"
        for path in paths
        if path not in found
    ]
    if errors:
        raise ConfigErrors(errors)
    return found


def _named(text: str, paths: Sequence[Path], folder: Path) -> list[Path]:
    """Return the input at this path relative to the table's folder, or else all inputs of this name."""
    whole = os.path.abspath(folder / text)
    at_place = [path for path in paths if same_name(os.path.abspath(path), whole)]
    return at_place or [path for path in paths if same_name(path.name, text)]
