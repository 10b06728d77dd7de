"""Time series of cells as tables: the quantities followed, changes from first to last, and tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.groups import Course, Difference, between, first_to_last
from analysis.measurements import WHOLE


@dataclass(frozen=True)
class Quantity:
    """What is followed over time."""

    compartment: str
    column: str
    name: str
    """As in figures, with its unit."""


#: What curves, box plots and tests are made of.
QUANTITIES: tuple[Quantity, ...] = (
    Quantity(WHOLE, "volume_um3", "cell volume (µm³)"),
    Quantity(WHOLE, "surface_area_um2", "cell surface area (µm²)"),
    Quantity(WHOLE, "mean_ri", "cell mean RI"),
    Quantity(WHOLE, "concentration_g_per_ml", "cell concentration (g/mL)"),
    Quantity(WHOLE, "dry_mass_pg", "cell dry mass (pg)"),
    Quantity("nucleus", "volume_um3", "nucleus volume (µm³)"),
    Quantity("nucleus", "mean_ri", "nucleus mean RI"),
    Quantity("nucleus", "concentration_g_per_ml", "nucleus concentration (g/mL)"),
    Quantity("nucleolus", "volume_um3", "nucleoli volume (µm³)"),
    Quantity("nucleolus", "concentration_g_per_ml", "nucleoli concentration (g/mL)"),
    Quantity("lipid", "parts", "lipid droplets"),
    Quantity("lipid", "mean_part_um3", "mean droplet volume (µm³)"),
    Quantity("lipid", "concentration_g_per_ml", "droplet concentration (g/mL)"),
)


def courses(table: pd.DataFrame, quantity: Quantity, border: str) -> list[Course]:
    """One quantity of every tracked cell over time, with or without frames in which it reaches the border."""
    own = table[(table["compartment"] == quantity.compartment) & table["track"].notna() & (table["cell"] > 0)]
    found = []
    for (file, track), rows in own.groupby(["file", "track"], sort=True):
        whole = rows if border == "include" else rows[rows["border"].fillna("") == ""]
        whole = whole.sort_values("frame")
        if whole.empty:
            continue
        times = whole["time_s"] if whole["time_s"].notna().all() else whole["frame"]
        found.append(
            Course(
                f"{file} {track}", str(whole["group"].iloc[0]), str(whole["field"].iloc[0]),
                times.to_numpy(float), whole[quantity.column].to_numpy(float),
            )
        )  # fmt: skip
    return found


def change_table(table: pd.DataFrame, border: str) -> pd.DataFrame:
    """First and last value of every quantity of every track that is whole in two frames or more."""
    rows = []
    for quantity in QUANTITIES:
        for course in courses(table, quantity, border):
            first, last = course.ends
            if np.isfinite(first):
                rows.append(
                    {
                        "cell": course.cell, "group": course.group, "field": course.field,
                        "compartment": quantity.compartment, "quantity": quantity.column,
                        "first": first, "last": last, "change": last - first,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows, columns=["cell", "group", "field", "compartment", "quantity", "first", "last", "change"])


def test_table(table: pd.DataFrame, border: str, control: str) -> pd.DataFrame:
    """For every quantity, whether each group changed, and whether groups changed differently."""
    rows = []
    for quantity in QUANTITIES:
        by_group: dict[str, list[Course]] = {}
        for course in courses(table, quantity, border):
            by_group.setdefault(course.group, []).append(course)
        names = sorted(by_group, key=lambda name: (name != control, name))
        for name in names:
            rows.append(_tested(quantity, name, "", first_to_last(by_group[name])))
        for i, one in enumerate(names):
            for other in names[i + 1 :]:  # the effect is the other's, less the control's
                rows.append(_tested(quantity, other, one, between(by_group[one], by_group[other])))
    columns = ["compartment", "quantity", "group", "against", "n", "n_against", "effect", "p", "test", "assumes"]
    return pd.DataFrame([row for row in rows if row["n"] > 0], columns=columns)


test_table.__test__ = False  # type: ignore[attr-defined]


def _tested(quantity: Quantity, one: str, other: str, found: Difference) -> dict[str, Any]:
    return {
        "compartment": quantity.compartment, "quantity": quantity.column, "group": one, "against": other,
        "n": found.n[0], "n_against": found.n[1], "effect": found.effect, "p": found.p,
        "test": found.test, "assumes": found.assumes,
    }  # fmt: skip
