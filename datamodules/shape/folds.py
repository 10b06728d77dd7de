"""Stratified folds that depend on nothing but the cells' names, their classes and a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from cytovox.errors import InputError
from datamodules.shape.cases import ShapeFiles
from datamodules.shape.config import ShapeFolderData
from datamodules.splits import SPLITS

ShapeDivision = dict[str, list[ShapeFiles]]


def stratified_folds(names: Sequence[str], groups: Sequence[str], folds: int, seed: int) -> np.ndarray:
    """The fold of every cell.

    Each class is spread evenly over the folds (two folds differ by one cell of it at most), and so are all cells. The
    order within a class is that of a hash of seed and name, so that neither the order of files nor the version of a
    library changes who is tested with whom.

    Parameters
    ----------
    names, groups : sequence of str
        Name and class of each cell; names are unique.
    folds : int
        2 or more.
    seed : int

    Returns
    -------
    int array, (N,)
        0 to folds - 1, in the order of `names`.

    Raises
    ------
    InputError
        A class with fewer cells than folds: one line each.
    """
    members = _drawn(names, groups, seed)
    small = [f"{group} ({len(found)})" for group, found in members.items() if len(found) < folds]
    if small:
        raise InputError(
            f"data.folds: {folds} folds, but fewer cells in {', '.join(small)}; use fewer folds, at most as "
            "many as the smallest class has cells, or leave that class out"
        )
    fold_N = np.empty(len(names), dtype=int)
    # dealt in one go round the table, class after class: the remainders of all classes do not meet in fold 0
    dealt = [index for found in members.values() for index in found]
    fold_N[dealt] = np.arange(len(dealt)) % folds
    return fold_N


def take_share(names: Sequence[str], groups: Sequence[str], share: float, seed: int) -> np.ndarray:
    """A share of the cells, class by class; at least one cell if the share is above 0, never a whole class.

    Parameters
    ----------
    names, groups : sequence of str
    share : float
        0 to below 1.
    seed : int

    Returns
    -------
    bool array, (N,)
        True for the cells taken: `share` of all, rounded; each class within one cell of its own share.
    """
    taken_N = np.zeros(len(names), dtype=bool)
    if share <= 0:
        return taken_N
    members = _drawn(names, groups, seed)
    quota = {group: min(int(share * len(found)), len(found) - 1) for group, found in members.items()}
    lacking = max(1, round(share * len(names))) - sum(quota.values())
    rest = sorted(members, key=lambda g: (quota[g] - share * len(members[g]), g))
    for group in [g for g in rest if quota[g] + 1 < len(members[g])][: max(0, lacking)]:
        quota[group] += 1
    for group, found in members.items():
        taken_N[found[: quota[group]]] = True
    return taken_N


def _drawn(names: Sequence[str], groups: Sequence[str], seed: int) -> dict[str, list[int]]:
    """Places of the cells of each class, in an order drawn by the seed."""
    members: dict[str, list[int]] = {group: [] for group in sorted(set(groups))}
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(f"{seed}:{names[i]}".encode()).digest())
    for index in order:
        members[groups[index]].append(index)
    return members


def divide_shapes(cells: Sequence[ShapeFiles], config: ShapeFolderData) -> ShapeDivision:
    """Training, validation and test cells.

    The folders' own test cells where there are any (DISPR's `train` and `test`), else those of `data.fold`; then
    `data.val` of the training cells.

    Raises
    ------
    InputError
        A class with fewer cells than folds.
    """
    if any(cell.split for cell in cells):
        tested = [cell.split == "test" for cell in cells]
    elif config.folds:
        fold_N = stratified_folds(*_columns(cells), config.folds, config.fold_seed)
        tested = [fold == config.fold for fold in fold_N]
    else:
        tested = [False] * len(cells)
    rest = [cell for cell, out in zip(cells, tested, strict=True) if not out]
    chosen_N = take_share(*_columns(rest), config.val, config.fold_seed)
    parts = (
        [cell for cell, val in zip(rest, chosen_N, strict=True) if not val],
        [cell for cell, val in zip(rest, chosen_N, strict=True) if val],
        [cell for cell, out in zip(cells, tested, strict=True) if out],
    )
    return dict(zip(SPLITS, parts, strict=True))


def _columns(cells: Sequence[ShapeFiles]) -> tuple[list[str], list[str]]:
    return [c.name for c in cells], [c.group for c in cells]
