"""Division of cases into training, validation and test, without a group in two splits."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from datamodules.cases import FolderCase
from datamodules.config import FolderData
from datamodules.errors import DataError, OnError, refuse

SPLITS = ("train", "val", "test")

Division = dict[str, list[FolderCase]]


def split_cases(cases: Sequence[FolderCase], config: FolderData, seed: int, on_error: OnError = refuse) -> Division:
    """Return the cases of each split, divided by the table's column, by lists, or by fractions of the groups.

    Parameters
    ----------
    cases : sequence of FolderCase
        All cases.
    config : FolderData
        Config with `split` and `train_cell_lines`.
    seed : int
        Seed that determines the split of each group, if fractions are given.
    on_error : callable
        Called with each error after which the division can continue. The default raises it.

    Raises
    ------
    InputError
        A case is in no list or in two, a group is in two splits, or there are fewer groups than splits.
    """
    lines = {c.cell_line for c in cases}
    trained_lines = set(config.train_cell_lines) or lines
    trained = [c for c in cases if c.cell_line in trained_lines]
    unseen = [c for c in cases if c.cell_line not in trained_lines]
    if missing := trained_lines - lines:
        known = ", ".join(sorted(lines))
        on_error(DataError("split", f"data.train_cell_lines: no volume of cell line {min(missing)}; found: {known}"))
    if any(c.split for c in trained):
        division = _by_table(trained, on_error)
    elif all(isinstance(getattr(config.split, s), int | float) for s in SPLITS):
        shares = (float(config.split.train), float(config.split.val), float(config.split.test))
        division = _by_fraction(trained, shares, seed, on_error)
    else:
        division = _by_lists(trained, unseen, config, on_error)
    division["test"] = division["test"] + unseen
    _refuse_leaks(division, on_error)
    return division


def _by_table(cases: Sequence[FolderCase], on_error: OnError) -> Division:
    if blank := [c.name for c in cases if c.split is None]:
        found = f"{len(blank)} of {len(cases)} volumes have no split, such as {blank[0]}"
        on_error(DataError("split", f"data.table: {found}; fill the column split in every row, or in none"))
    return {split: [c for c in cases if c.split == split] for split in SPLITS}


def _by_lists(
    cases: Sequence[FolderCase], unseen: Sequence[FolderCase], config: FolderData, on_error: OnError
) -> Division:
    root = Path(config.root)
    patterns = {s: _as_list(getattr(config.split, s)) for s in SPLITS}
    division: Division = {split: [] for split in SPLITS}
    unlisted: list[FolderCase] = []
    for case in cases:
        named = [s for s in SPLITS if any(_matches(case.volume, p, root) for p in patterns[s])]
        (division[named[0]] if named else unlisted).append(case)
        if len(named) > 1:
            found = f"{case.volume} is in {' and in '.join(named)}"
            on_error(DataError("leak", f"data.split: {found}; name it in one of them"))
    if unlisted:
        found = f"{len(unlisted)} of {len(cases)} volumes are in no list, such as {unlisted[0].name}"
        on_error(DataError("split", f"data.split: {found}; list them, or leave them out of data.volumes"))
    for split, pattern in ((s, p) for s in SPLITS for p in patterns[s]):
        if not any(_matches(c.volume, pattern, root) for c in [*cases, *unseen]):
            found = f"{pattern}: no volume of that name; check it against data.volumes"
            on_error(DataError("split", f"data.split.{split}: {found}"))
    return division


def _as_list(value: object) -> list[str]:
    values = [value] if isinstance(value, str) else value
    return [str(v) for v in values] if isinstance(values, list | tuple) else []


def _matches(volume: Path, pattern: str, root: Path) -> bool:
    """Return whether a pattern is the file's name, its path, the path of a parent folder, or a matching glob."""
    full = root / pattern
    named = volume.name == pattern or full == volume or full in volume.parents
    return named or fnmatchcase(volume.as_posix(), (Path(glob.escape(str(root))) / pattern).as_posix())


def _by_fraction(
    cases: Sequence[FolderCase], shares: tuple[float, float, float], seed: int, on_error: OnError
) -> Division:
    """Assign whole groups, in a random order, to the split that is furthest below its share."""
    groups: dict[str, list[FolderCase]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case)
    wanted = {s: share for s, share in zip(SPLITS, shares, strict=True) if share > 0}
    division: Division = {split: [] for split in SPLITS}
    # large groups first, since small ones can still fill the shares
    for name in sorted(groups, key=lambda g: (-len(groups[g]), hashlib.sha256(f"{seed}:{g}".encode()).hexdigest())):
        division[max(wanted, key=lambda s: wanted[s] * len(cases) - len(division[s]))] += groups[name]
    if len(groups) < len(wanted):
        found = f"{len(groups)} groups cannot be divided over {', '.join(wanted)}"
        on_error(DataError("split", f"data.split: {found}; use more groups, a finer data.group, or a share of 0"))
    else:
        _fill_empty(division, wanted, len(cases))
    return division


def _fill_empty(division: Division, wanted: dict[str, float], total: int) -> None:
    """Give each empty split with a share the last group of the split that exceeds its share most."""
    for empty in (s for s in wanted if not division[s]):
        several = [s for s in wanted if len({c.group for c in division[s]}) > 1]
        giver = max(several, key=lambda s: len(division[s]) - wanted[s] * total)
        last = division[giver][-1].group
        division[empty] = [c for c in division[giver] if c.group == last]
        division[giver] = [c for c in division[giver] if c.group != last]


def _refuse_leaks(division: Division, on_error: OnError) -> None:
    sides: dict[str, str] = {}
    for split in SPLITS:
        for case in division[split]:
            if (other := sides.setdefault(case.group, split)) != split:
                found = f"group {case.group} is in {other} and in {split}, so its cells are in both"
                on_error(DataError("leak", f"data.split: {found}; keep each group in one split"))
