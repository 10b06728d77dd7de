"""Tables of features for a classifier, and folds of them that cannot leak.

A feature of a predicted shape knows what the model that predicted it was trained on: if that model saw a cell, its
shapes of this cell are better than those of a new one, and a classifier trained on them learns from a quality that no
test cell has. So a `Table` carries, for each row, the cells its shape model saw, and a `Fold` refuses rows that break
the nesting: training rows are predicted out of fold, and no model of an outer fold saw its test cells.
"""

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cytovox.errors import InputError

#: Column of a table that says whether weights have seen a cell or volume, and its values (`lightning_modules.seen`).
SEEN = "seen_in_training"
YES, NO, UNKNOWN = "yes", "no", "unknown"
_ABOUT = ("cell", "unit", SEEN)


@dataclass(frozen=True)
class Table:
    """Features of cells: one row per cell, or several (one per predicted sample)."""

    cells: tuple[str, ...]
    """Of each row, the cell it describes."""
    names: tuple[str, ...]
    """Of each column, the feature."""
    values_NF: np.ndarray
    """float64, rows x features."""
    seen: tuple[frozenset[str], ...] = ()
    """Of each row, the cells that the shape model behind it was trained (or stopped early, or tuned) on. Empty where
    the features are measured, not predicted."""

    def __post_init__(self) -> None:
        """Check the shapes and that every value is finite.

        Raises
        ------
        InputError
            A value is NaN or infinite.
        ValueError
            Rows, columns and `seen` do not fit each other, or a feature is there twice.
        """
        values = np.array(self.values_NF, dtype=np.float64)
        if values.shape != (len(self.cells), len(self.names)) or len(self.seen) not in (0, len(self.cells)):
            raise ValueError(
                f"values {values.shape} and {len(self.seen)} seen: expected {len(self.cells)} x {len(self.names)}"
            )
        if len(set(self.names)) != len(self.names):
            raise ValueError("a feature is in the table twice")
        for row, column in np.argwhere(~np.isfinite(values))[:1]:
            raise InputError(
                f"{self.cells[row]}: feature {self.names[column]} is {values[row, column]}; expected a number: "
                "fix its image or mask, or leave the cell out"
            )
        values.flags.writeable = False
        object.__setattr__(self, "values_NF", values)

    def rows(self, chosen: Collection[int] | np.ndarray) -> "Table":
        """These rows only, in this order."""
        index = [int(i) for i in chosen]
        seen = tuple(self.seen[i] for i in index) if self.seen else ()
        return Table(tuple(self.cells[i] for i in index), self.names, self.values_NF[index], seen)

    def of(self, cells: Collection[str]) -> "Table":
        """The rows of these cells, in the table's order."""
        wanted = set(cells)
        return self.rows([i for i, cell in enumerate(self.cells) if cell in wanted])

    def columns(self, names: Sequence[str]) -> "Table":
        """These features only, in this order."""
        return Table(self.cells, tuple(names), self.values_NF[:, [self.names.index(n) for n in names]], self.seen)


def table_of(
    features: Sequence[Mapping[str, float]], cells: Sequence[str], seen: Sequence[Collection[str]] = ()
) -> Table:
    """A table from rows as `features_2d` and `features_3d` return them; parameters as `Table`'s fields."""
    names = tuple(features[0])
    values = np.array([[row[name] for name in names] for row in features])
    shared: dict[frozenset[str], frozenset[str]] = {}
    sets = tuple(shared.setdefault(frozenset(one), frozenset(one)) for one in seen)
    return Table(tuple(cells), names, values, sets)


def read_features(path: Path, *, allow_seen: bool = False) -> Table:
    """Read the features of predicted shapes that a shape run wrote (`tables/predicted_features.csv`).

    Parameters
    ----------
    path : Path
        A CSV with the columns `cell`, `unit` and `seen_in_training`, and one for each feature.
    allow_seen : bool
        Take cells that the shape model was, or may have been, trained on. What a classifier makes of them says nothing
        about new cells: macro F1 of 101 red blood cells rose from 0.57 to 0.79 by it.

    Returns
    -------
    Table
        In the file's order; of each row `seen` holds the cells of the file that its shape model has seen.

    Raises
    ------
    InputError
        No such table, a value that is no number, or cells that the shape model has seen or may have seen.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected tables/predicted_features.csv of a run") from None
    missing = [name for name in _ABOUT if not rows or name not in rows[0]]
    if missing:
        raise InputError(
            f"{path}: no row, or no column {', '.join(missing)}; expected tables/predicted_features.csv of a shape "
            "prediction; predict again"
        )
    doubtful = [row for row in rows if row[SEEN] != NO]
    if doubtful and not allow_seen:
        known = sum(row[SEEN] == YES for row in doubtful)
        raise InputError(
            f"{path}: {known} of {len(rows)} cells were seen in training by the weights that predicted their shapes, "
            f"and of {len(doubtful) - known} it is not known (first: {doubtful[0]['cell']}); classify shapes that were "
            "predicted out of fold, or give allow_seen=True"
        )
    names = [name for name in rows[0] if name not in _ABOUT]
    try:
        values = np.array([[float(row[name]) for name in names] for row in rows], np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{path}: holds a value that is no number; predict again") from None
    seen = frozenset(row["cell"] for row in doubtful)
    return Table(tuple(row["cell"] for row in rows), tuple(names), values, () if allow_seen else (seen,) * len(rows))


def stacked(first: Table, second: Table) -> Table:
    """The rows of both, of the same features."""
    if first.names != second.names:
        raise ValueError("tables of other features cannot be stacked")
    seen = tuple(s for t in (first, second) for s in (t.seen or (frozenset(),) * len(t.cells)))
    return Table(first.cells + second.cells, first.names, np.concatenate([first.values_NF, second.values_NF]), seen)


def joined(per_cell: Table, rows: Table) -> Table:
    """Every row of `rows` with the features of its cell in `per_cell` in front.

    Raises
    ------
    InputError
        A cell of `rows` is not in `per_cell`.
    ValueError
        `per_cell` has a cell twice.
    """
    row_of = {cell: i for i, cell in enumerate(per_cell.cells)}
    if len(row_of) != len(per_cell.cells):
        raise ValueError("the table in front has a cell twice")
    for cell in rows.cells:
        if cell not in row_of:
            raise InputError(f"{cell}: its shape has features, its image has none; expected both: measure the image")
    index = [row_of[cell] for cell in rows.cells]
    none: frozenset[str] = frozenset()
    seen = tuple(
        (per_cell.seen[i] if per_cell.seen else none) | (rows.seen[j] if rows.seen else none)
        for j, i in enumerate(index)
    )
    return Table(rows.cells, per_cell.names + rows.names, np.hstack([per_cell.values_NF[index], rows.values_NF]), seen)


@dataclass(frozen=True)
class Fold:
    """One outer fold: what the forest learns from and the cells it is asked about.

    Raises
    ------
    ValueError
        A cell is on both sides, features differ, a row's shape model saw a test cell, or a training row's shape was
        predicted by a model that saw that very cell.
    """

    train: Table
    test: Table

    def __post_init__(self) -> None:
        """Refuse what leaks."""
        tested = set(self.test.cells)
        if self.train.names != self.test.names:
            raise ValueError("training and test cells have other features")
        if not tested or not self.train.cells:
            raise ValueError("a fold without training or test cells")
        if both := tested & set(self.train.cells):
            raise ValueError(f"leak: {sorted(both)[0]} is a training and a test cell")
        for side, table in (("training", self.train), ("test", self.test)):
            for cell, seen in zip(table.cells, table.seen, strict=bool(table.seen)):
                if cell in seen:
                    raise ValueError(f"leak: the shape model behind a {side} row of {cell} was trained on it")
                if met := tested & seen:
                    raise ValueError(
                        f"leak: the shape model behind a {side} row of {cell} saw test cell {sorted(met)[0]}"
                    )
