"""What an analysis reads: tomograms with their groups, masks that are already there, and corrections."""

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

#: What a file without a group is in.
NO_GROUP = "all"


@dataclass(frozen=True)
class Source:
    """One tomogram file."""

    path: Path
    name: str
    """Unique among the inputs; results are named by it."""
    group: str
    field: str
    """Field of view: the unit of a test between groups, unless dishes are given."""
    dish: str = ""
    """Dish that the field lies in; "" where none is given."""


@dataclass
class Error:
    """An input that could not be analysed, and why."""

    source: Source
    text: str


def find_sources(config: AnalyzeConfig) -> list[Source]:
    """Inputs with their groups.

    Raises
    ------
    InputError
        Nothing found, a file named twice, or groups that name no file or leave one out.
    """
    if not config.inputs:
        raise InputError("inputs: nothing to analyse; give tomograms, such as inputs=[cells/*.TCF]")
    paths = expand(config.inputs, Path(), "inputs")
    names = output_names(paths)
    groups = find_groups(paths, config.groups, names)
    sources = [Source(path, names[path], *groups[path]) for path in paths]
    if config.statistics.unit == "dish":
        _require_dishes(sources)
    return sources


def _require_dishes(sources: Sequence[Source]) -> None:
    """Every file has a dish, and no dish holds two groups."""
    if any(not source.dish for source in sources):
        raise InputError("statistics.unit: dish, but groups names no dishes: give a CSV with a column dish")
    groups: dict[str, set[str]] = {}
    for source in sources:
        groups.setdefault(source.dish, set()).add(source.group)
    for dish, held in sorted(groups.items()):
        if len(held) > 1:
            raise InputError(
                f"statistics.unit: dish {dish} holds the groups {', '.join(sorted(held))}; use statistics.unit=field"
            )


def find_groups(
    paths: Sequence[Path], given: str | None, names: Mapping[Path, str]
) -> dict[Path, tuple[str, str, str]]:
    """Group, field and dish of each file, from a CSV, from a pattern, or all of one group.

    A file without a field in the CSV is a field of its own, called by its unique name: files of one name in several
    folders are several fields.
    """
    if given is None:
        return {path: (NO_GROUP, names[path], "") for path in paths}
    return _by_pattern(paths, given, names) if "{group}" in given else _by_table(paths, Path(given), names)


def _by_pattern(paths: Sequence[Path], given: str, names: Mapping[Path, str]) -> dict[Path, tuple[str, str, str]]:
    """`*/{group}_*.TCF` against the end of each path."""
    parts = [fnmatch.translate(part)[4:-3] for part in given.split("{group}")]  # without (?s: and )\\Z
    if any("group" in part for part in parts) or len(parts) != 2:
        raise InputError(f"groups: {given}: expected {{group}} once, such as */{{group}}_*.TCF")
    pattern = re.compile(rf"(?s:(?:.*/)?{parts[0]}(?P<group>[^/]+?){parts[1]})\Z")
    found, bare = {}, []
    for path in paths:
        matched = pattern.match(path.absolute().as_posix())
        if matched is None:
            bare.append(str(path))
        else:
            found[path] = (matched["group"], names[path], "")
    if bare:
        raise InputError(f"groups: {given}: {len(bare)} of {len(paths)} inputs do not match, such as {bare[0]}")
    return found


def _by_table(paths: Sequence[Path], table: Path, names: Mapping[Path, str]) -> dict[Path, tuple[str, str, str]]:
    """A CSV: file (its name, or a path from the table's folder), group, and perhaps field and dish."""
    try:
        rows = read_csv(table, "groups")
    except InputError as error:
        raise InputError(f"{error}; or give a pattern with {{group}}") from None
    if not rows or not {"file", "group"} <= set(rows[0].cells):
        raise InputError(f"groups: {table}: expected the columns file and group")
    found: dict[Path, tuple[str, str, str]] = {}
    errors = []
    for number, row in rows:
        named = _named(row["file"], paths, table.parent)
        if len(named) > 1:
            several = ", ".join(str(path) for path in named[:3]) + (", ..." if len(named) > 3 else "")
            errors.append(
                f"groups: {table.name} line {number}: {row['file']} names {len(named)} inputs ({several}); give each "
                "with its path from the table's folder"
            )
        if not named or not row["group"]:
            why = "names no input" if row["group"] else "has no group"
            errors.append(f"groups: {table.name} line {number}: {row['file']} {why}")
        if named and not row.get("dish", "-"):
            errors.append(f"groups: {table.name} line {number}: {row['file']} has no dish; name one in every line")
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
    """Inputs that a line of the table means: the one at this path from the table's folder, else all of this name."""
    whole = os.path.abspath(folder / text)
    at_place = [path for path in paths if same_name(os.path.abspath(path), whole)]
    return at_place or [path for path in paths if same_name(path.name, text)]
