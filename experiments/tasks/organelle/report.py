"""Contents of the report of an organelle run."""

from pathlib import Path
from typing import Any

from cytovox.plots.charts import dice_figure, read_rows
from experiments.report import data
from experiments.report.parts import MAX_OVERLAYS, drawn, picture, sections, title
from training.rundir import read_json


def organelle_report(folder: Path) -> dict[str, Any]:
    """Return the contents of the sections of the page."""
    tables, figures = folder / "tables", folder / "figures"
    overlays = sorted(figures.glob("predict_*.png"))
    return {
        "sections": sections("organelle", "Masks", "µm"),
        "headline": data.headline(folder),
        "seen_line": data.seen_line(
            read_json(folder / "metrics.json"), "test", "test cases", "Their scores say nothing about new ones."
        ),
        "dice": drawn(
            figures / "dice.png",
            tables / "test_cases.csv",
            lambda png, table: dice_figure(png, table, tables / "test_windows.csv"),
        ),
        "groups": data.score_table(read_rows(tables / "test_groups.csv"), ("group", "n")),
        "cases": data.score_table(read_rows(tables / "test_cases.csv"), ("case", "group")),
        "channels": data.score_table(
            read_rows(tables / "test_channels.csv"),
            (
                "case",
                "organelle",
                "channel",
                "offset_z_um",
                "offset_y_um",
                "offset_x_um",
                "corrected",
                "reason",
                "cells",
                "undrawn_cells",
            ),
            {"reliability": "correlation", "undrawn_share": "share not drawn"},
        ),
        "test_overlays": [(rank, picture(figures / f"test_{rank}.png")) for rank in ("best", "median", "worst")],
        "predictions": data.predictions(folder),
        "overlays": [(title(path), picture(path)) for path in overlays[:MAX_OVERLAYS]],
        "overlays_left_out": max(0, len(overlays) - MAX_OVERLAYS),
    }
