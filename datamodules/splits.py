"""Training, validation and test, with no group on two sides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from datamodules.cases import FolderCase
from datamodules.config import FolderData
from formats.errors import InputError

SPLITS = ("train", "val", "test")

Division = dict[str, list[FolderCase]]


def divide(cases: Sequence[FolderCase], config: FolderData, seed: int) -> Division:
    """Divide cases by the table's column, by lists, or by fractions of the groups.

    Parameters
    ----------
    cases : sequence of FolderCase
        All of them.
    config : FolderData
        Its `split`, `train_lines` and `group`.
    seed : int
        Decides which group goes where, when fractions do.

    Raises
    ------
    InputError
        A case in no list or in two, a group in two splits, an empty training set.
    """
    trained = [c for c in cases if not config.train_lines or c.line in config.train_lines]
    unseen = [c for c in cases if config.train_lines and c.line not in config.train_lines]
    missing = set(config.train_lines) - {c.line for c in cases}
    if missing:
        lines = ", ".join(sorted({c.line for c in cases}))
        raise InputError(f"data.train_lines: no volume of line {min(missing)}; lines found: {lines}")
    if any(c.split for c in trained):
        division = _by_table(trained)
    elif isinstance(config.split.train, int | float):
        shares = (float(config.split.train), float(config.split.val), float(config.split.test))
        division = _by_fraction(trained, shares, seed)
    else:
        division = _by_lists(trained, config)
    division["test"] = division["test"] + unseen
    _refuse_leaks(division)
    if not division["train"]:
        raise InputError(f"data.split: no volume is left for training ({len(cases)} in all); change data.split")
    return division


def _by_table(cases: Sequence[FolderCase]) -> Division:
    return {split: [c for c in cases if c.split == split] for split in SPLITS}


def _by_lists(cases: Sequence[FolderCase], config: FolderData) -> Division:
    root = Path(config.root)
    patterns = {s: _as_list(getattr(config.split, s)) for s in SPLITS}
    division: Division = {split: [] for split in SPLITS}
    for case in cases:
        found = [s for s in SPLITS if any(_matches(case.volume, p, root) for p in patterns[s])]
        if len(found) > 1:
            raise InputError(f"data.split: {case.volume} is in {' and in '.join(found)}; name it in one of them")
        if found:
            division[found[0]].append(case)
    for split in SPLITS:
        for pattern in patterns[split]:
            if not any(_matches(c.volume, pattern, root) for c in cases):
                raise InputError(
                    f"data.split.{split}: {pattern}: no volume of that name; check it against data.volumes"
                )
    return division


def _as_list(value: object) -> list[str]:
    if isinstance(value, list | tuple):
        return [str(v) for v in value]
    return [value] if isinstance(value, str) else []


def _matches(volume: Path, pattern: str, root: Path) -> bool:
    full = pattern if Path(pattern).is_absolute() else (root / pattern).as_posix()
    return volume.name == pattern or fnmatch(volume.as_posix(), full)


def _by_fraction(cases: Sequence[FolderCase], shares: tuple[float, float, float], seed: int) -> Division:
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
    _fill_empty(division, shares, len(groups))
    return division


def _fill_empty(division: Division, shares: tuple[float, float, float], groups: int) -> None:
    wanted = [s for s, share in zip(SPLITS, shares, strict=True) if share > 0]
    empty = [s for s in wanted if not division[s]]
    if empty:
        raise InputError(
            f"data.split: {groups} groups cannot be divided over {', '.join(wanted)}: nothing is left for {empty[0]}; "
            "use more groups, a finer data.group, or a share of 0"
        )


def _refuse_leaks(division: Division) -> None:
    sides: dict[str, str] = {}
    for split in SPLITS:
        for case in division[split]:
            other = sides.setdefault(case.group, split)
            if other != split:
                raise InputError(
                    f"data.split: group {case.group} is in {other} and in {split}, so the test would know the "
                    "training; keep each group on one side"
                )
