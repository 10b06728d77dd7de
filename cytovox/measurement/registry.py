"""Registry of added measurements: columns of the compartment table besides those of `Compartment`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points

import numpy as np

from cytovox.errors import InputError
from cytovox.measurement.rows import COLUMNS

#: Entry-point group by which an installed package adds measurements: ``name = "module:MEASUREMENT"``.
GROUP = "cytovox.measurements"


@dataclass(frozen=True)
class Column:
    """A column of the compartment table."""

    unit: str
    """Such as "µm"; empty for a pure number."""
    description: str


@dataclass(frozen=True, eq=False)
class Region:
    """One compartment of one cell, in the box that holds it."""

    ri_ZYX: np.ndarray
    """Refractive index, float (z, y, x)."""
    mask_ZYX: np.ndarray
    """The compartment, bool (z, y, x); never empty."""
    spacing_um: tuple[float, float, float]
    """Voxel size, z, y, x."""
    compartment: str
    """"cell" or an organelle."""
    medium_ri: float
    """Refractive index of the medium."""


@dataclass(frozen=True)
class Measurement:
    """A measurement of every compartment of every cell.

    A module of `cytovox.measurement` defines one, and `BUILT_IN` lists it. An installed package adds one by an entry
    point of the group `cytovox.measurements`. Its columns follow those of `cytovox.measurement.rows.Compartment`.
    """

    name: str
    version: int
    """Raise it when results change for the same input: stored rows are then computed again."""
    columns: Mapping[str, Column]
    """Names of the columns, each with its unit and description."""
    measure: Callable[[Region], Mapping[str, float]]
    """Return a number for each column; nan where it is not defined. It is not called for an empty compartment."""

    def of(self, region: Region | None) -> dict[str, float]:
        """Return a number for each column; nan for no region.

        Raises
        ------
        ValueError
            The function returns other columns than the measurement declares.
        """
        if region is None:
            return dict.fromkeys(self.columns, float("nan"))
        values = self.measure(region)
        if set(values) != set(self.columns):
            raise ValueError(f"measurement {self.name!r}: expected {sorted(self.columns)}, got {sorted(values)}")
        return {column: float(values[column]) for column in self.columns}


#: Measurements of this package. A new one is a file that defines it, and one line here.
BUILT_IN: tuple[Measurement, ...] = ()


@functools.cache
def measurements() -> tuple[Measurement, ...]:
    """Return all added measurements, built-in ones first. Entry points are looked up once per process.

    Raises
    ------
    InputError
        An installed package offers an object that is not a `Measurement`, or a name or column that is taken.
    """
    known = list(BUILT_IN)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        where = f"measurement {entry.name!r} ({entry.value})"
        try:
            added = entry.load()
        except Exception as error:  # the module is another package's: anything can go wrong in it
            raise InputError(f"{where}: cannot be imported ({error}): update or uninstall its package") from error
        if not isinstance(added, Measurement):
            raise InputError(
                f"{where}: expected a cytovox.measurement.registry.Measurement, got {type(added).__name__}: "
                "update or uninstall its package"
            )
        taken = {*COLUMNS, *(column for other in known for column in other.columns)} & set(added.columns)
        if taken or added.name in [other.name for other in known]:
            what = f"the column {min(taken)}" if taken else f"the name {added.name!r}"
            raise InputError(f"{where}: {what} is taken by another measurement: update or uninstall its package")
        known.append(added)
    return tuple(known)


def added_columns() -> dict[str, Column]:
    """Return the columns of all added measurements."""
    return {name: column for one in measurements() for name, column in one.columns.items()}


def measurement_versions() -> dict[str, list[object]]:
    """Return version and columns of each added measurement, for the provenance of stored rows."""
    return {one.name: [one.version, *one.columns] for one in measurements()}


def column_reference() -> str:
    """Return a Markdown table of all added columns: name, unit, description."""
    rows = [f"| `{name}` | {column.unit} | {column.description} |" for name, column in added_columns().items()]
    return "\n".join(["| column | unit | description |", "|---|---|---|", *rows])
