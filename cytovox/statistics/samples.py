"""Values of cells, and the fields and dishes that the cells lie in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cytovox.statistics import false_positives

Unit = Literal["field", "dish"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One value per cell of one group, and where each cell lies."""

    values: np.ndarray
    """float, (cells,); finite."""
    fields: Sequence[str]
    """Field of view of each cell; the name is unique in the study, also where fields of two dishes share a name."""
    dishes: Sequence[str] | None = None
    """Dish of each cell; None where dishes are not known."""

    def units(self, unit: Unit) -> false_positives.Units:
        """Return the means of fields (of dishes: means of their fields' means) and how cells are spread over them."""
        by_field: dict[str, list[int]] = {}
        for k, name in enumerate(self.fields):
            by_field.setdefault(name, []).append(k)
        means = {name: float(np.mean(self.values[index])) for name, index in by_field.items()}
        counts = {name: len(index) for name, index in by_field.items()}
        if unit == "field":
            return false_positives.Units(np.array(list(means.values())), tuple((n,) for n in counts.values()))
        if self.dishes is None:
            raise ValueError("unit 'dish': the sample has no dishes")
        by_dish: dict[str, list[str]] = {}
        for name, index in by_field.items():
            by_dish.setdefault(self.dishes[index[0]], []).append(name)
        return false_positives.Units(
            np.array([np.mean([means[f] for f in own]) for own in by_dish.values()]),
            tuple(tuple(counts[f] for f in own) for own in by_dish.values()),
        )

    @property
    def n_fields(self) -> int:
        return len(set(self.fields))

    @property
    def n_dishes(self) -> int | None:
        return None if self.dishes is None else len(set(self.dishes))
