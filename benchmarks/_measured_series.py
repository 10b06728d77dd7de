"""Simulated treated and untreated cells, measured by the pipeline and by their truth."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks._common import Table
from cytovox.io import write_tcf
from cytovox.measurement.measurements import Rules, measure_frame
from cytovox.organelles import WHOLE
from cytovox.simulation.timelapse import time_lapse
from cytovox.simulation.tomogram import Options
from cytovox.statistics.bootstrap import interval, mean_of
from experiments.tasks.analyze.analysis import Analysis
from experiments.tasks.analyze.config import AnalyzeConfig
from experiments.tasks.analyze.sources import find_sources
from experiments.tasks.analyze.task import run_path
from experiments.tasks.analyze.time_series_tables import QUANTITIES, Quantity
from training.rundir import RunFolder

SHAPE, SPACING = (64, 160, 160), (0.3, 0.3, 0.3)
HOURS = (0.0, 2.0, 4.0, 6.0, 8.0)
#: Which way LPS-treated RAW 264.7 cells change (Choi et al. 2021): +1 grows, -1 falls.
EXPECTED = {
    (WHOLE, "mean_ri"): -1, (WHOLE, "concentration_g_per_ml"): -1, ("nucleus", "mean_ri"): -1,
    ("nucleus", "concentration_g_per_ml"): -1, (WHOLE, "volume_um3"): 1, (WHOLE, "surface_area_um2"): 1,
    ("nucleolus", "volume_um3"): 1, ("lipid", "parts"): 1, ("lipid", "mean_part_um3"): 1,
}  # fmt: skip
#: A cell that was found must overlap its true one by this Dice to be compared with it.
SAME = 0.7

Rows = list[dict[str, Any]]


def series_tables(arguments: argparse.Namespace) -> tuple[list[Table], dict[str, Any]]:
    """Time-lapses of both groups through the pipeline, compared with equation 1 inside the true masks."""
    fields = 1 if arguments.quick else arguments.fields
    hours = HOURS[:2] if arguments.quick else HOURS
    shape = (24, 96, 96) if arguments.quick else SHAPE
    spacing = (0.6, 0.6, 0.6) if arguments.quick else SPACING
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        truth = _simulate(folder, fields, hours, shape, spacing)
        config = AnalyzeConfig(
            inputs=[str(folder / "*.TCF")], groups="*-{group}.TCF", out=str(folder / "run"), meshes="none"
        )
        analysis = Analysis(
            config, RunFolder(run_path(config)), lambda what, done, all_: print(what, done, all_, flush=True)
        )
        analysis.update(find_sources(config))
        table = pd.read_parquet(folder / "run" / "tables" / "cells.parquet")
    rows = [row for row in _matched(table, truth) if not row["border"]]
    return _tables(rows, hours)


def _simulate(folder: Path, fields: int, hours: Any, shape: Any, spacing: Any) -> dict[tuple[str, int], Any]:
    """Write the time-lapses; (file, frame) to true rows measured on the observed and on the true index."""
    truth = {}
    for seed in range(920_001, 920_001 + fields):
        for group in ("control", "LPS"):
            seconds = [3600 * h for h in hours]
            frames = list(time_lapse("RAW264.7", seed, group, seconds, shape, spacing, Options()))
            name = f"RAW-{seed}-{group}"
            for t, frame in enumerate(frames):
                rules = Rules(frame.medium_ri)
                cells = frame.cells_ZYX.astype(np.int32)
                seen, true = (
                    {
                        (row["cell"], row["compartment"]): row
                        for row in measure_frame(ri, cells, frame.masks, spacing, rules).compartments
                    }
                    for ri in (frame.ri_ZYX, frame.ri_true_ZYX)
                )
                truth[(name, t)] = (seen, true)
            write_tcf(
                folder / f"{name}.TCF", np.stack([f.ri_ZYX for f in frames]), spacing, frames[0].medium_ri, seconds
            )
    return truth


def _matched(table: pd.DataFrame, truth: dict[tuple[str, int], Any]) -> Rows:
    """Every true cell that is found, by the nearest centre with about its size; one row per quantity."""
    rows: Rows = []
    for (file, t), (seen, true) in truth.items():
        own = table[(table["file"] == file) & (table["frame"] == t) & (table["cell"] > 0)]
        whole = own[own["compartment"] == WHOLE]
        taken: set[int] = set()
        for (cell, compartment), row in seen.items():
            if compartment != WHOLE or cell == 0 or whole.empty:
                continue
            axes = ["z_um", "y_um", "x_um"]
            away = np.linalg.norm(whole[axes].to_numpy(float) - [row[axis] for axis in axes], axis=1)
            k = int(away.argmin())
            found = whole.iloc[k]
            if away[k] > 2.0 or int(found["cell"]) in taken:
                continue
            taken.add(int(found["cell"]))
            parts = {r["compartment"]: r for _, r in own[own["cell"] == found["cell"]].iterrows()}
            for quantity in QUANTITIES:
                key = (cell, quantity.compartment)
                if key in seen and quantity.compartment in parts:
                    rows.append(
                        {
                            "group": file.rsplit("-", 1)[1], "frame": t, "cell": f"{file} {cell}", "quantity": quantity,
                            "measured": float(parts[quantity.compartment][quantity.column]),
                            "truth": float(seen[key][quantity.column]),
                            "unobserved": float(true[key][quantity.column]),
                            "border": bool(row["border"]) or bool(found["border"]),
                        }
                    )  # fmt: skip
    return rows


def _tables(rows: Rows, hours: Any) -> tuple[list[Table], dict[str, Any]]:
    known = [row for row in rows if np.isfinite([row["measured"], row["truth"]]).all()]
    cells = len({(row["cell"], row["frame"]) for row in known})
    held = Table(
        f"measured against true, {cells} whole cells (bootstrap 95 % intervals over cells)",
        ["quantity", "true mean", "measured - true", "group means inside the interval"],
    )
    bias = Table("what the optics do: observed - true index, inside the true masks", ["quantity", "true mean", "bias"])
    course = Table(
        "change from first to last frame, LPS less control",
        ["quantity", "expected", "true", "measured [95 %]", "direction found"],
    )
    figures: dict[str, Any] = {}
    for quantity in QUANTITIES:
        own = [row for row in known if row["quantity"] == quantity]
        if not own:
            continue
        inside, points = _inside(own, len(hours))
        error = interval(mean_of([row["measured"] - row["truth"] for row in own]), len(own))
        true_mean = float(np.mean([row["truth"] for row in own]))
        held.rows.append([quantity.name, f"{true_mean:.5g}", _shown(error), f"{inside} of {points}"])
        seen = [row["truth"] - row["unobserved"] for row in own if np.isfinite(row["unobserved"])]
        if quantity.column in ("mean_ri", "concentration_g_per_ml", "dry_mass_pg"):
            bias.rows.append([quantity.name, f"{true_mean:.5g}", _shown(interval(mean_of(seen), len(seen)))])
        sign = EXPECTED.get((quantity.compartment, quantity.column))
        if sign is not None:
            course.rows.append(_course(own, quantity, sign, len(hours) - 1))
        figures[quantity.name] = {"inside": inside, "points": points, "error": error.value, "true": true_mean}
    return [held, course, bias], figures


def _inside(own: Rows, frames: int) -> tuple[int, int]:
    """Group means at a time whose measured interval holds the true mean."""
    inside = points = 0
    for group in ("control", "LPS"):
        for t in range(frames):
            some = [row for row in own if row["group"] == group and row["frame"] == t]
            if len(some) < 3:
                continue
            found = interval(mean_of([row["measured"] for row in some]), len(some))
            points += 1
            inside += found.low <= float(np.mean([row["truth"] for row in some])) <= found.high
    return inside, points


def _course(own: Rows, quantity: Quantity, sign: int, last: int) -> list[str]:
    def change(key: str) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {"control": [], "LPS": []}
        ends = {(row["cell"], row["frame"]): row for row in own}
        for (cell, t), row in ends.items():
            if t == 0 and (cell, last) in ends:
                found[row["group"]].append(ends[(cell, last)][key] - row[key])
        return found

    true, measured = change("truth"), change("measured")
    if min(len(v) for v in measured.values()) < 2:
        return [quantity.name, "", "", "too few cells", ""]
    both = measured["control"] + measured["LPS"]
    strata = ["control"] * len(measured["control"]) + ["LPS"] * len(measured["LPS"])
    split = np.array(strata) == "LPS"
    values = np.array(both)

    def difference(index: np.ndarray) -> float:
        chosen = split[index]
        return float(values[index][chosen].mean() - values[index][~chosen].mean())

    statistic: Callable[[np.ndarray], float] = difference
    found = interval(statistic, len(both), strata=strata)
    truth = float(np.mean(true["LPS"]) - np.mean(true["control"]))
    right = (
        "yes" if found.value * sign > 0 and found.low * found.high > 0 else "no" if found.value * sign < 0 else "unsure"
    )
    return [quantity.name, "grows" if sign > 0 else "falls", f"{truth:+.4g}", _shown(found, "+"), right]


def _shown(found: Any, sign: str = "") -> str:
    return f"{found.value:{sign}.4g} [{found.low:{sign}.4g}, {found.high:{sign}.4g}]"
