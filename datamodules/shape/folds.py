"""Stratified folds, determined by the cells' names, their classes and a seed only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from cytovox.errors import InputError
from datamodules.shape.cases import ShapeFiles
from datamodules.shape.config import ShapeFolderData


def stratified_folds(names: Sequence[str], groups: Sequence[str], folds: int, seed: int) -> np.ndarray:
    """Return the fold of every cell.

    Two folds differ by at most one cell of each class, and by at most one cell in total. The order within a class is
    that of a hash of seed and name, so that the folds depend neither on the order of files nor on a library's version.

    Parameters
    ----------
    names, groups : sequence of str
        Name and class of each cell; names are unique.
    folds : int
        2 or more.
    seed : int
        Seed of the division.

    Returns
    -------
    int array, (N,)
        0 to folds - 1, in the order of `names`.

    Raises
    ------
    InputError
        A class has fewer cells than folds.
    """
    members = _drawn(names, groups, seed)
    if small := [f"{group} ({len(found)})" for group, found in members.items() if len(found) < folds]:
        raise InputError(
            f"data.folds: {folds} folds, but fewer cells in {', '.join(small)}; use fewer folds, at most as "
            "many as the smallest class has cells, or leave that class out"
        )
    fold_N = np.empty(len(names), dtype=int)
    # each class begins at the fold after the last one, so that the remainders of all classes are not in fold 0
    fold_N[[index for found in members.values() for index in found]] = np.arange(len(names)) % folds
    return fold_N


def take_share(names: Sequence[str], groups: Sequence[str], share: float, seed: int) -> np.ndarray:
    """Return a fraction of the cells, stratified by class; at least one cell if it is above 0, never a whole class.

    Parameters
    ----------
    names, groups : sequence of str
        Name and class of each cell.
    share : float
        Fraction, from 0 to below 1.
    seed : int
        Seed of the choice.

    Returns
    -------
    bool array, (N,)
        True for the chosen cells: `share` of all, rounded; each class has its share of them, plus or minus one cell.
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
    """Return the indices of the cells of each class, in an order determined by the seed."""
    members: dict[str, list[int]] = {group: [] for group in sorted(set(groups))}
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(f"{seed}:{names[i]}".encode()).digest())
    for index in order:
        members[groups[index]].append(index)
    return members


def divide_shapes(cells: Sequence[ShapeFiles], config: ShapeFolderData) -> dict[str, list[ShapeFiles]]:
    """Return the training, validation and test cells.

    The test cells are those of the folder `test` if there is one (DISPR's layout), else those of `data.fold`. The
    fraction `data.val` of the other cells is used for validation.

    Raises
    ------
    InputError
        A class has fewer cells than folds.
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
    return {
        "train": [cell for cell, val in zip(rest, chosen_N, strict=True) if not val],
        "val": [cell for cell, val in zip(rest, chosen_N, strict=True) if val],
        "test": [cell for cell, out in zip(cells, tested, strict=True) if out],
    }


def _columns(cells: Sequence[ShapeFiles]) -> tuple[list[str], list[str]]:
    return [c.name for c in cells], [c.group for c in cells]
