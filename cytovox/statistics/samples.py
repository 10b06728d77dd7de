"""Values of cells, and the fields of view and dishes of the cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cytovox.statistics import false_positives

Unit = Literal["field", "dish"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One value per cell of one group, with the field and dish of each cell."""

    values: np.ndarray
    """float, (cells,); finite."""
    fields: Sequence[str]
    """Field of view of each cell. Names are unique in the study: fields of different dishes have different names."""
    dishes: Sequence[str] | None = None
    """Dish of each cell; None if dishes are unknown."""

    def units(self, unit: Unit) -> false_positives.Units:
        """Return the mean of each field, or of each dish (mean of its field means), and the numbers of cells."""
        names = self.fields if unit == "field" else self.dishes
        if names is None:
            raise ValueError("unit 'dish': the sample has no dishes")
        by_field: dict[str, list[int]] = {}
        for k, name in enumerate(self.fields):
            by_field.setdefault(name, []).append(k)
        by_unit: dict[str, list[list[int]]] = {}
        for cells in by_field.values():
            by_unit.setdefault(names[cells[0]], []).append(cells)
        return false_positives.Units(
            np.array([np.mean([float(np.mean(self.values[cells])) for cells in own]) for own in by_unit.values()]),
            tuple(tuple(len(cells) for cells in own) for own in by_unit.values()),
        )

    @property
    def n_fields(self) -> int:
        """Number of fields."""
        return len(set(self.fields))

    @property
    def n_dishes(self) -> int | None:
        """Number of dishes; None if dishes are unknown."""
        return None if self.dishes is None else len(set(self.dishes))
