"""Write docs/columns.md from the registry of measurements: every built-in column of tables/cells and tables/parts."""

from __future__ import annotations

from pathlib import Path

from cytovox.measurement.registry import BUILT_IN, PART_KEYS, PART_MEASUREMENTS, column_reference

HEAD = """\
# Every measured column

Written from the code by `python docs/write_column_reference.py`; a test compares the two.

A column is empty where its value is not defined, for instance in the row of an organelle that a cell does not have.
Stored rows are computed again when the version of a measurement rises.
[measurements.md](measurements.md) describes the columns that an analysis adds, and
[extending.md](extending.md#a-measurement) how to add your own.
"""


def reference() -> str:
    """Return the whole page."""
    cells, parts = column_reference(BUILT_IN), column_reference(PART_MEASUREMENTS, PART_KEYS)
    return f"""\
{HEAD}
## `tables/cells`: one row per compartment, cell and frame

{cells}

## `tables/parts`: one row per connected part of an organelle

{parts}
"""


if __name__ == "__main__":
    target = Path(__file__).with_name("columns.md")
    target.write_text(reference(), encoding="utf-8")
    print(f"wrote {target}")
