"""Registry of measurements: the columns of the compartment table, built-in and added."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points

from cytovox.errors import InputError
from cytovox.measurement.columns import COMPARTMENT_MEASUREMENTS, KEYS, PART_KEYS, PART_MEASUREMENTS
from cytovox.measurement.evidence import EVIDENCE
from cytovox.measurement.fluorescence import FLUORESCENCE
from cytovox.measurement.region import Column, Measurement, Region

__all__ = [
    "BUILT_IN",
    "GROUP",
    "KEYS",
    "PART_KEYS",
    "PART_MEASUREMENTS",
    "Column",
    "Measurement",
    "Region",
    "column_reference",
    "columns",
    "columns_of_ri",
    "measurement_versions",
    "measurements",
    "numeric_types",
    "part_columns",
]

#: Entry-point group by which an installed package adds measurements: ``name = "module:MEASUREMENT"``.
GROUP = "cytovox.measurements"

#: Measurements of this package. A new one is a file that defines it, and one line here.
BUILT_IN: tuple[Measurement, ...] = (*COMPARTMENT_MEASUREMENTS, EVIDENCE, FLUORESCENCE)


@functools.cache
def measurements() -> tuple[Measurement, ...]:
    """Return all measurements, built-in ones first. Entry points are looked up once per process.

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
        taken = _columns(KEYS, known).keys() & added.columns.keys()
        if taken or added.name in {other.name for other in (*PART_MEASUREMENTS, *known)}:
            what = f"the column {min(taken)}" if taken else f"the name {added.name!r}"
            raise InputError(f"{where}: {what} is taken by another measurement: update or uninstall its package")
        known.append(added)
    return tuple(known)


def _columns(keys: Mapping[str, Column], of: Iterable[Measurement]) -> dict[str, Column]:
    return {**keys, **{name: column for one in of for name, column in one.columns.items()}}


def columns(channels: Sequence[str] = ()) -> dict[str, Column]:
    """Return all columns of the compartment table with these fluorescence channels, in their order."""
    return {**KEYS, **{name: column for one in measurements() for name, column in one.columns_for(channels).items()}}


def part_columns() -> dict[str, Column]:
    """Return all columns of the table of parts, in their order."""
    return _columns(PART_KEYS, PART_MEASUREMENTS)


def numeric_types(of: Mapping[str, Column]) -> dict[str, str]:
    """Return the pandas type of each numeric column."""
    return {name: column.dtype for name, column in of.items() if column.dtype != "text"}


def columns_of_ri() -> set[str]:
    """Return the columns that are left out where there is no refractive index."""
    return {name for one in measurements() if one.uses_ri for name in one.columns}


def measurement_versions() -> dict[str, list[object]]:
    """Return version and columns of each measurement, for the provenance of stored rows."""
    return {one.name: [one.version, *one.columns] for one in (*PART_MEASUREMENTS, *measurements())}


def column_reference(of: Sequence[Measurement] | None = None, keys: Mapping[str, Column] = KEYS) -> str:
    """Return a Markdown table of columns: name, unit, description, measurement with its version, and since when.

    Parameters
    ----------
    of : sequence of Measurement, optional
        Measurements of the table; by default all of the compartment table, those of installed packages included.
    keys : dict of name -> Column
        Columns that identify a row of the table.
    """
    of = measurements() if of is None else of
    source = {name: f"{one.name} {one.version}" for one in of for name in one.columns}
    rows = [
        f"| `{name}` | {column.unit} | {column.description} | {source.get(name, '')} | {column.since} |"
        for name, column in _columns(keys, of).items()
    ]
    return "\n".join(["| column | unit | what it is | measurement, version | since |", "|---|---|---|---|---|", *rows])
