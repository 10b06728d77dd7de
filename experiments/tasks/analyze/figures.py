"""Figures of an analysis, drawn from its tables."""

from __future__ import annotations

import pandas as pd

from cytovox.io.deletion import Manifest
from cytovox.io.names import safe_name
from cytovox.plots.time_series import Panel, boxes_figure, curves_figure, lineage_figure
from cytovox.tracking.tracking import Track
from experiments.tasks.analyze.time_series_tables import QUANTITIES, Study, cell_series, group_names
from training.rundir import RunFolder

#: Largest number of files whose lineages are drawn; the table contains all.
MAX_LINEAGES = 12


def panels_of(study: Study) -> list[Panel]:
    """Return one panel per quantity, with the values of each group."""
    panels = []
    for quantity in QUANTITIES:
        series = cell_series(study, quantity)
        groups = {name: series.of_group(name).values_NT for name in group_names(study, series)}
        panels.append(Panel(quantity.name, groups, study.window.points, study.cohort))
    return panels


def draw_results(study: Study, tracks: pd.DataFrame, folder: RunFolder) -> None:
    """Draw curves, box plots and lineages, and remove earlier figures."""
    written = Manifest(folder.path, "results")
    written.remove_all()
    panels = panels_of(study)
    curves_figure(folder.figures / "curves_cells.png", panels, study.window.in_frames)
    boxes_figure(folder.figures / "boxes_cells.png", panels)
    for name in ("curves_cells", "boxes_cells"):
        written.add(folder.figures / f"{name}.png")
    for file, rows in list(tracks.groupby("file", sort=True))[:MAX_LINEAGES]:
        lines = [
            Track(
                int(row.track), None if pd.isna(row.parent) else int(row.parent), int(row.lineage),
                int(row.first_frame), int(row.last_frame), int(row.detections), bool(row.divided),
            )
            for row in rows.itertuples()
        ]  # fmt: skip
        frames = int(study.table.loc[study.table["file"] == file, "frame"].max()) + 1
        figure = folder.figures / f"lineage_{safe_name(str(file))}.png"
        lineage_figure(figure, lines, frames)
        written.add(figure)
