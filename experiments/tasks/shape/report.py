"""Contents of the report of a shape run, from its folder."""

import math
from pathlib import Path
from typing import Any

from cytovox.plots.charts import read_rows
from cytovox.statistics.feature_tables import SEEN
from experiments.report.data import link, number, score_table, seen_line, shown, shown_volume
from experiments.report.parts import picture, sections
from training.rundir import read_json

#: Errors that the summary and the report show, with their headings.
ERRORS = {
    "iou_error": "1 - IoU",
    "volume_error": "volume",
    "surface_error": "surface",
    "roughness_error": "roughness",
}
#: Scored shapes by their prefix in the metrics.
SCORED = {"": "mean shape", "single/": "single sample", "best_of_5/": "best of 5"}


def scores(run_folder: Path) -> dict[str, Any] | None:
    """Return the errors of the mean shape, of a sample and of the best of five; None without a test."""
    metrics = read_json(run_folder / "metrics.json")
    rows = [
        (what, [shown(metrics.get(f"test/{prefix}{name}")) for name in ERRORS])
        for prefix, what in SCORED.items()
        if f"test/{prefix}iou_error" in metrics
    ]
    if not rows:
        return None
    coverage, cells = (number(metrics.get(f"test/{name}")) for name in ("volume_coverage_90", "cases"))
    return {
        "errors": list(ERRORS.values()),
        "rows": rows,
        "cells": int(cells) if math.isfinite(cells) else "all",
        "coverage": f"{100 * coverage:.0f} %" if math.isfinite(coverage) else "",
        "crps": shown(metrics.get("test/volume_crps")),
        "seen": seen_line(metrics, "test", "test cells", "Their scores say nothing about new cells."),
    }


def predictions(run_folder: Path) -> dict[str, Any] | None:
    """Return one row per predicted cell, with its volume and the path of its shapes; None without rows."""
    rows = read_rows(run_folder / "tables/predicted_shapes.csv")
    if not rows:
        return None
    consequence = "Their shapes and features are better than those of new cells; classifiers refuse them."
    return {
        "seen": seen_line(read_json(run_folder / "metrics.json"), "predict", "cells", consequence),
        "unit": "µm³" if rows[0].get("unit") == "um3" else "voxels",
        "rows": [
            {
                "cell": row.get("cell", ""),
                "path": row.get("input", ""),
                "volumes": [shown_volume(row.get(name)) for name in ("volume", "volume_low", "volume_high")],
                "samples": row.get("samples", ""),
                "seen": row.get(SEEN, ""),
                "output": row.get("output", ""),
                "outside": row.get("outside_training", ""),
                "href": link(run_folder, row.get("output", "")),
            }
            for row in rows
        ],
    }


def shape_report(folder: Path) -> dict[str, Any]:
    """Return the contents of the sections of the page."""
    tables, figures = folder / "tables", folder / "figures"
    return {
        "sections": sections("shape", "Shapes", "voxels"),
        "shape_scores": scores(folder),
        "groups": score_table(read_rows(tables / "test_classes.csv"), ("class", "n"), ERRORS),
        "cases": score_table(read_rows(tables / "test_cells.csv"), ("cell", "class"), ERRORS),
        "gallery": picture(figures / "test_gallery.png"),
        "reliability": picture(figures / "test_reliability.png"),
        "predictions": predictions(folder),
        "predicted_gallery": picture(figures / "predict_gallery.png"),
    }
