"""Time series of cells as tables: curves, changes from first to last, and tests of groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from cytovox.organelles import WHOLE
from cytovox.statistics.cohort import (
    COHORTS,
    Cohort,
    Window,
    cohort_flag,
    cohort_members,
    common_window,
    curve,
    first_and_last,
)
from cytovox.statistics.group_tests import TestName, TestResult, compare_groups, compare_with_zero
from cytovox.statistics.samples import Sample, Unit
from experiments.tasks.analyze.config import AnalyzeConfig

Exclusions = Literal["applied", "ignored"]


@dataclass(frozen=True)
class Quantity:
    """A quantity that is followed over time."""

    compartment: str
    column: str
    name: str
    """Label in figures, with the unit."""


def _of(compartment: str, noun: str) -> tuple[Quantity, ...]:
    return (
        Quantity(compartment, "mean_ri", f"{noun} mean RI"),
        Quantity(compartment, "concentration_g_per_ml", f"{noun} concentration (g/mL)"),
        Quantity(compartment, "surface_area_um2", f"{noun} surface area (µm²)"),
        Quantity(compartment, "volume_um3", f"{noun} volume (µm³)"),
    )


#: Quantities of curves, box plots and tests. Figure 4 of Choi et al. 2021: four quantities of four compartments,
#: then number, area and volume of single droplets. The dry mass is added here.
QUANTITIES: tuple[Quantity, ...] = (
    *_of(WHOLE, "cell"),
    *_of("nucleus", "nucleus"),
    *_of("nucleolus", "nucleoli"),
    *_of("lipid", "lipid"),
    Quantity("lipid", "parts", "lipid droplets"),
    Quantity("lipid", "mean_part_area_um2", "area per droplet (µm²)"),
    Quantity("lipid", "mean_part_um3", "volume per droplet (µm³)"),
    Quantity(WHOLE, "dry_mass_pg", "cell dry mass (pg)"),
)


@dataclass(frozen=True, eq=False)
class Study:
    """Measured cells of all files, and the rules by which groups are compared."""

    table: pd.DataFrame
    """One row per compartment, cell and frame; perhaps with a boolean column `excluded`, and `excluded_COLUMN` of one
    quantity: such rows are missing values where exclusions are applied."""
    window: Window
    cohort: Cohort = "complete"
    border: str = "exclude"
    control: str = "control"
    test: TestName = "student"
    unit: Unit = "field"
    notes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    """All groups of the study, including those without cells."""

    @property
    def is_time_lapse(self) -> bool:
        """Whether the window has several time points."""
        return len(self.window.points) > 1

    @property
    def has_exclusions(self) -> bool:
        """Whether any row is excluded."""
        columns = [name for name in self.table if name == "excluded" or str(name).startswith("excluded_")]
        return any(bool(_true(self.table[name]).any()) for name in columns)


def study_of(
    table: pd.DataFrame, times: Mapping[str, Sequence[float] | int], config: AnalyzeConfig, groups: Iterable[str] = ()
) -> Study:
    """Return the study of a table of compartments.

    Parameters
    ----------
    table : DataFrame
        One row per compartment, cell and frame.
    times : dict of file -> sequence of float, or int
        Time of every frame in seconds; the number of frames of a file without time stamps.
    config : AnalyzeConfig
    groups : iterable of str
        Groups of all files; the table lacks groups without cells.
    """
    rules = config.statistics
    in_frames = all(isinstance(value, int) for value in times.values())
    given = None if rules.window is None else [value * (1.0 if in_frames else 3600.0) for value in rules.window]
    window = common_window(times, given)
    unit, messages = unit_of(table, rules.unit)
    notes = [*_window_notes(window, rules.window), *messages]
    seen = set(table["group"].astype(str))
    known = sorted({*seen, *groups})
    notes += [f"groups: no cell was found in group {name}" for name in known if name not in seen]
    if len(known) > 1 and config.control not in known:
        pairs = "each pair of groups is compared" if len(known) > 2 else "the alphabetically first group is the control"
        notes.append(f"control: no group is named {config.control}; {pairs}")
    return Study(
        table, window, config.cohort, config.border, config.control, rules.test, unit, tuple(notes), tuple(known)
    )


def unit_of(table: pd.DataFrame, asked: str) -> tuple[Unit, list[str]]:
    """Return the unit of tests (the dish if every file has one and no dish contains two groups), and notes."""
    notes = []
    shared = table.groupby(["dish", "field"])["group"].nunique()
    if len(table) and (shared > 1).any():
        names = ", ".join(str(field) for _, field in shared[shared > 1].index[:3])
        notes.append(f"groups: field {names} holds several groups; tests count it once in each, unpaired")
    if asked == "field" or table.empty or (table["dish"].fillna("") == "").any():
        return "field", notes
    mixed = table.groupby("dish")["group"].nunique()
    if (mixed > 1).any():  # sources.require_dishes refuses unit=dish then
        notes.append("statistics.unit: dishes hold several groups, so the unit of tests is the field")
        return "field", notes
    return "dish", notes


def _window_notes(window: Window, asked: Sequence[float] | None) -> list[str]:
    notes = [f"time series: {file} is left out: {why}" for file, why in sorted(window.left_out.items())]
    if not window.points:
        what = "in statistics.window" if asked is not None else "that all time-lapses have"
        notes.append(f"time series: no time point {what}; no curves and tests: set interval_min or statistics.window")
    elif (
        len(window.points) == 1
        and any(len(frames) for frames in window.frames.values())
        and (window.left_out or not window.in_frames)
    ):
        notes.append("time series: one time point only; values are compared instead of changes")
    if window.shortened:
        names = ", ".join(sorted(window.shortened)[:3]) + (" ..." if len(window.shortened) > 3 else "")
        notes.append(
            f"time series: the common window is {window.describe()}; {len(window.shortened)} time-lapses have later "
            f"frames ({names}): set statistics.window to leave shorter ones out"
        )
    if window.spread > 60 and not window.in_frames:
        notes.append(f"time series: frames of one time point are up to {window.spread / 60:.1f} min off its time")
    return notes


@dataclass(frozen=True, eq=False)
class CellSeries:
    """One quantity of all tracked cells at the window's time points."""

    cells: list[str]
    """File and track of each cell."""
    groups: np.ndarray
    fields: np.ndarray
    """Field of each cell; the name contains the dish, and is unique."""
    dishes: np.ndarray
    values_NT: np.ndarray
    """Values, float (cells, time points); nan where missing or excluded."""

    def of_group(self, name: str) -> CellSeries:
        """Return the cells of one group."""
        return self.where(self.groups == name)

    def where(self, kept: np.ndarray) -> CellSeries:
        """Return some of the cells."""
        cells = [cell for cell, keep in zip(self.cells, kept, strict=True) if keep]
        return CellSeries(cells, self.groups[kept], self.fields[kept], self.dishes[kept], self.values_NT[kept])

    def sample(self, values: np.ndarray) -> Sample:
        """Return a sample of one value per cell; cells without a value are left out."""
        known = np.isfinite(values)
        dishes = list(self.dishes[known]) if (self.dishes != "").all() else None
        return Sample(values[known], list(self.fields[known]), dishes)


def cell_series(study: Study, quantity: Quantity, exclusions: Exclusions = "applied") -> CellSeries:
    """Return one quantity of every tracked cell that has a value at any time point of the window.

    With `border: exclude`, values in frames in which the cell reaches the border of the field are missing. With
    exclusions applied, excluded values are missing, too.
    """
    window, table = study.window, study.table
    point_of = {(file, t): k for file, frames in window.frames.items() for k, t in enumerate(frames)}
    own = table[(table["compartment"] == quantity.compartment) & table["track"].notna() & (table["cell"] > 0)]
    points = np.array([point_of.get(key, -1) for key in zip(own["file"], own["frame"], strict=True)], int)
    values = own[quantity.column].to_numpy(float)
    if quantity.column == "surface_area_um2":
        values = np.where(own["parts"].to_numpy() == 0, 0.0, values)  # nan in the table if there are no parts
    missing = np.zeros(len(own), bool)
    if study.border != "include":
        missing |= (own["border"].fillna("") != "").to_numpy()
    if exclusions == "applied":
        for name in ("excluded", f"excluded_{quantity.column}"):
            if name in own:
                missing |= _true(own[name])
    kept = (points >= 0) & ~missing & np.isfinite(values)
    own, points, values = own[kept], points[kept], values[kept]
    numbers, names = pd.factorize(pd.MultiIndex.from_arrays([own["file"], own["track"]]), sort=True)
    filled = np.full((len(names), len(window.points)), np.nan)
    filled[numbers, points] = values
    first = {int(number): k for k, number in reversed(list(enumerate(numbers)))}
    rows = own.iloc[[first[n] for n in range(len(names))]]
    dishes = rows["dish"].fillna("").astype(str).to_numpy(object)
    fields = np.array([f"{dish}/{name}" for dish, name in zip(dishes, rows["field"], strict=True)], object)
    return CellSeries(
        [f"{file} {track}" for file, track in names], rows["group"].astype(str).to_numpy(object), fields, dishes, filled
    )


def _true(column: pd.Series) -> np.ndarray:
    return column.astype("boolean").fillna(False).to_numpy(bool)


def group_names(study: Study, series: CellSeries) -> list[str]:
    """Return the groups, the control first."""
    return sorted(set(series.groups), key=lambda name: (name != study.control, name))


def curve_table(study: Study) -> pd.DataFrame:
    """Return mean, spread and number of cells of every quantity and group at every time point."""
    rows = []
    for quantity in QUANTITIES:
        series = cell_series(study, quantity)
        for name in group_names(study, series):
            own = series.of_group(name)
            members = own.where(cohort_members(own.values_NT, study.cohort))
            ends = int(np.isfinite(first_and_last(own.values_NT, study.cohort)).all(axis=1).sum())
            for k, point in enumerate(curve(own.values_NT, study.window.points, study.cohort)):
                here = np.isfinite(members.values_NT[:, k])
                rows.append(
                    {
                        "compartment": quantity.compartment, "quantity": quantity.column, "group": name,
                        "frame" if study.window.in_frames else "time_s": point.time,
                        "cells": point.cells, "step_cells": point.step_cells, "cells_seen": len(own.cells),
                        "fields": len(set(members.fields[here])),
                        "dishes": len(set(members.dishes[here])) if (own.dishes != "").all() else None,
                        "mean": point.mean, "sd": point.sd, "cohort": study.cohort, "window": study.window.describe(),
                        "flag": cohort_flag(ends, len(own.cells), study.cohort),
                    }
                )  # fmt: skip
    columns = [
        "compartment", "quantity", "group", "frame", "time_s", "cells", "step_cells", "cells_seen", "fields", "dishes",
        "mean", "sd", "cohort", "window", "flag",
    ]  # fmt: skip
    whole = dict.fromkeys(("cells", "step_cells", "cells_seen", "fields", "dishes"), "Int64")
    return pd.DataFrame(rows, columns=columns).astype({**whole, "frame": "float64", "time_s": "float64"})


def change_table(study: Study) -> pd.DataFrame:
    """Return every quantity of every cell of the cohort at the window's first and last time point."""
    rows = []
    for quantity in QUANTITIES if study.is_time_lapse else ():
        series = cell_series(study, quantity)
        for k, (first, last) in enumerate(first_and_last(series.values_NT, study.cohort)):
            if np.isfinite(first):
                rows.append(
                    {
                        "cell": series.cells[k], "group": series.groups[k], "dish": series.dishes[k],
                        "field": series.fields[k].removeprefix(f"{series.dishes[k]}/"),
                        "compartment": quantity.compartment, "quantity": quantity.column,
                        "first": first, "last": last, "change": last - first, "window": study.window.describe(),
                    }
                )  # fmt: skip
    columns = ["cell", "group", "dish", "field", "compartment", "quantity", "first", "last", "change", "window"]
    return pd.DataFrame(rows, columns=columns)


#: Columns of the table of tests. `n`, `cells`, `fields` and `dishes` are the group's; `..._against` the control's.
TEST_COLUMNS = (
    "exclusions", "compartment", "quantity", "compares", "group", "against", "unit", "n", "n_against", "cells",
    "cells_against", "fields", "fields_against", "dishes", "dishes_against", "effect", "effect_low", "effect_high", "p",
    "p_holm", "q", "test", "assumes", "refused", "cohort", "window", "flag",
)  # fmt: skip


def test_table(study: Study) -> pd.DataFrame:
    """Return, for every quantity, whether each group changed, and whether groups differ from the control.

    Time-lapses are compared by changes from the window's first to its last time point, single frames by their values.
    `p_holm` corrects for the number of groups compared (Holm 1979, of one quantity), `q` for all tests of the table
    (Benjamini and Hochberg 1995). Rows with `exclusions: ignored` are the same tests without exclusions, and a family
    of their own; they are written only if something is excluded.
    """
    rows = []
    for exclusions in ("applied", "ignored") if study.has_exclusions else ("applied",):
        found = [row for quantity in QUANTITIES for row in _tests_of(study, quantity, exclusions)]
        p = np.array([row["p"] for row in found], float)
        q = np.full(len(p), np.nan)
        if np.isfinite(p).any():
            q[np.isfinite(p)] = stats.false_discovery_control(p[np.isfinite(p)])
        rows += [{**row, "q": value, "exclusions": exclusions} for row, value in zip(found, q, strict=True)]
    counts = [name for name in TEST_COLUMNS if name.removesuffix("_against") in ("n", "cells", "fields", "dishes")]
    return pd.DataFrame(rows, columns=list(TEST_COLUMNS)).astype(dict.fromkeys(counts, "Int64"))


test_table.__test__ = False  # type: ignore[attr-defined]


def _tests_of(study: Study, quantity: Quantity, exclusions: Exclusions) -> Iterator[dict[str, Any]]:
    series = cell_series(study, quantity, exclusions)
    if not study.window.points or not series.cells:
        return
    ends = first_and_last(series.values_NT, study.cohort)
    values = ends[:, 1] - ends[:, 0] if study.is_time_lapse else series.values_NT[:, 0]
    # tests against a control without this quantity are refused; no other group replaces the control
    names = sorted({*study.groups, *series.groups}, key=lambda name: (name != study.control, name))
    samples, flags = {}, {}
    for name in names:
        own = series.groups == name
        samples[name] = series.where(own).sample(values[own])
        flags[name] = cohort_flag(len(samples[name].values), int(own.sum()), study.cohort)
        if study.is_time_lapse:
            result = compare_with_zero(samples[name], study.test, study.unit)
            yield _row(study, quantity, "change", name, "", samples, result, flags[name])
    controls = [study.control] if study.control in names else names
    pairs = [(name, control) for control in controls for name in names[names.index(control) + 1 :]]
    results = [compare_groups(samples[name], samples[control], study.test, study.unit) for name, control in pairs]
    corrected = holm([result.p for result in results])
    what = "change between groups" if study.is_time_lapse else "value between groups"
    for (name, control), result, p_holm in zip(pairs, results, corrected, strict=True):
        flag = "; ".join(f"{group}: {flags[group]}" for group in (name, control) if flags[group])
        yield {**_row(study, quantity, what, name, control, samples, result, flag), "p_holm": p_holm}


def _row(
    study: Study, quantity: Quantity, compares: str, group: str, against: str, samples: Mapping[str, Sample],
    result: TestResult, flag: str,
) -> dict[str, Any]:  # fmt: skip
    row: dict[str, Any] = {
        "compartment": quantity.compartment, "quantity": quantity.column, "compares": compares, "group": group,
        "against": against, "unit": study.unit, "n": result.n[0], "n_against": result.n[1] if against else None,
        "effect": result.effect, "effect_low": result.low, "effect_high": result.high, "p": result.p,
        "p_holm": result.p, "test": result.test, "assumes": result.assumes, "refused": result.refused,
        "cohort": study.cohort, "window": study.window.describe(), "flag": flag,
    }  # fmt: skip
    for end, name in (("", group), ("_against", against)):
        sample = samples.get(name)
        row |= {
            f"cells{end}": len(sample.values) if sample else None, f"fields{end}": sample.n_fields if sample else None,
            f"dishes{end}": sample.n_dishes if sample else None,
        }  # fmt: skip
    return row


def holm(p: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979, Scand. J. Statist. 6, 65); nan stays, uncounted."""
    values = np.asarray(p, float)
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    raised = values[order] * np.arange(len(order), 0, -1)
    corrected = np.full(len(values), np.nan)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(raised))
    return corrected.tolist()


def series_notes(study: Study, tests: pd.DataFrame) -> list[str]:
    """Return notes on automatic decisions and refused tests, one line each."""
    notes = list(study.notes)
    own = tests[(tests["exclusions"] == "applied") & (tests["against"] == "")]
    whole = own[(own["compartment"] == WHOLE) & (own["quantity"] == "volume_um3")]
    notes += [f"cohort: {row.group}: {row.flag}" for row in whole.itertuples() if row.flag]
    if study.is_time_lapse and len(whole):
        notes.append(f"curves and tests: {study.window.describe()}; cohort {study.cohort}: {COHORTS[study.cohort]}")
    refused = tests[(tests["exclusions"] == "applied") & (tests["refused"] != "")]
    if len(refused):
        reason = refused["refused"].mode().iloc[0]
        notes.append(f"tests: {len(refused)} of {(tests['exclusions'] == 'applied').sum()} refused, such as: {reason}")
    return notes
