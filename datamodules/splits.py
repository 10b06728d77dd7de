"""Training, validation and test, with no group on two sides."""

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
    """Divide cases by the table's column, by lists, or by fractions of the groups.

    Parameters
    ----------
    cases : sequence of FolderCase
        All of them.
    config : FolderData
        Its `split`, `train_cell_lines` and `group`.
    seed : int
        Decides which group goes where, when fractions do.
    on_error : callable
        Given each error that one can go on after. The default raises it.

    Raises
    ------
    InputError
        A case in no list or in two, a group in two splits, fewer groups than splits.
    """
    trained = [c for c in cases if not config.train_cell_lines or c.cell_line in config.train_cell_lines]
    unseen = [c for c in cases if config.train_cell_lines and c.cell_line not in config.train_cell_lines]
    missing = set(config.train_cell_lines) - {c.cell_line for c in cases}
    if missing:
        lines = ", ".join(sorted({c.cell_line for c in cases}))
        text = f"data.train_cell_lines: no volume of cell line {min(missing)}; found: {lines}"
        on_error(DataError("split", text))
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
    blank = [c.name for c in cases if c.split is None]
    if blank:
        text = f"data.table: {len(blank)} of {len(cases)} volumes have no split, such as {blank[0]}; "
        on_error(DataError("split", text + "fill the column split in every row, or in none"))
    return {split: [c for c in cases if c.split == split] for split in SPLITS}


def _by_lists(
    cases: Sequence[FolderCase], unseen: Sequence[FolderCase], config: FolderData, on_error: OnError
) -> Division:
    root = Path(config.root)
    patterns = {s: _as_list(getattr(config.split, s)) for s in SPLITS}
    division: Division = {split: [] for split in SPLITS}
    for case in cases:
        found = [s for s in SPLITS if any(_matches(case.volume, p, root) for p in patterns[s])]
        if len(found) > 1:
            text = f"data.split: {case.volume} is in {' and in '.join(found)}; name it in one of them"
            on_error(DataError("leak", text))
        if found:
            division[found[0]].append(case)
    listed = sum(map(len, division.values()))
    if listed < len(cases):
        left = next(c.name for c in cases if not any(c in division[s] for s in SPLITS))
        text = f"data.split: {len(cases) - listed} of {len(cases)} volumes are in no list, such as {left}; "
        on_error(DataError("split", text + "list them, or leave them out of data.volumes"))
    for split in SPLITS:
        for pattern in patterns[split]:
            if not any(_matches(c.volume, pattern, root) for c in [*cases, *unseen]):
                text = f"data.split.{split}: {pattern}: no volume of that name; check it against data.volumes"
                on_error(DataError("split", text))
    return division


def _as_list(value: object) -> list[str]:
    if isinstance(value, list | tuple):
        return [str(v) for v in value]
    return [value] if isinstance(value, str) else []


def _matches(volume: Path, pattern: str, root: Path) -> bool:
    """By the file's name alone, as the path of the file or of a folder above it, or as a glob."""
    full = root / pattern
    named = volume.name == pattern or full == volume or full in volume.parents
    return named or fnmatchcase(volume.as_posix(), (Path(glob.escape(str(root))) / pattern).as_posix())


def _by_fraction(
    cases: Sequence[FolderCase], shares: tuple[float, float, float], seed: int, on_error: OnError
) -> Division:
    """Whole groups, in an order drawn by the seed, to the split that is furthest below its share."""
    groups: dict[str, list[FolderCase]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case)

    def drawn(name: str) -> str:
        return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()

    division: Division = {split: [] for split in SPLITS}
    # large groups first, or a share could only be met by luck
    for name in sorted(groups, key=lambda g: (-len(groups[g]), drawn(g))):
        lacking = {
            s: share * len(cases) - len(division[s]) for s, share in zip(SPLITS, shares, strict=True) if share > 0
        }
        division[max(lacking, key=lambda s: lacking[s])] += groups[name]
    _fill_empty(division, shares, len(groups), on_error)
    return division


def _fill_empty(division: Division, shares: tuple[float, float, float], groups: int, on_error: OnError) -> None:
    """A split that was wanted, however small its share, gets the last group of the one that has most to spare."""
    wanted = {s: share for s, share in zip(SPLITS, shares, strict=True) if share > 0}
    total = sum(map(len, division.values()))
    if groups < len(wanted):
        text = f"data.split: {groups} groups cannot be divided over {', '.join(wanted)}; "
        on_error(DataError("split", text + "use more groups, a finer data.group, or a share of 0"))
        return
    for empty in (s for s in wanted if not division[s]):
        spare = {s: len(division[s]) - share * total for s, share in wanted.items() if len(_groups(division[s])) > 1}
        giver = max(spare, key=lambda s: spare[s])
        last = _groups(division[giver])[-1]
        division[empty] = [c for c in division[giver] if c.group == last]
        division[giver] = [c for c in division[giver] if c.group != last]


def _groups(cases: Sequence[FolderCase]) -> list[str]:
    return list(dict.fromkeys(c.group for c in cases))


def _refuse_leaks(division: Division, on_error: OnError) -> None:
    sides: dict[str, str] = {}
    for split in SPLITS:
        for case in division[split]:
            other = sides.setdefault(case.group, split)
            if other != split:
                text = f"data.split: group {case.group} is in {other} and in {split}, so the test would know the "
                on_error(DataError("leak", text + "training; keep each group on one side"))
