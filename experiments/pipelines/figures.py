"""Pictures of an analysis, out of its tables."""

from __future__ import annotations

import pandas as pd

from analysis.course_figures import Panel, boxes_figure, curves_figure, lineage_figure
from analysis.groups import Course
from analysis.tracking import Track
from experiments.pipelines.time_series_tables import QUANTITIES, courses
from training.rundir import RunFolder

#: Lineages drawn at most: the table has all.
MAX_LINEAGES = 12


def draw_results(table: pd.DataFrame, tracks: pd.DataFrame, folder: RunFolder, border: str) -> None:
    """Curves, box plots and lineages; a picture that would be empty is removed."""
    panels = []
    for quantity in QUANTITIES:
        by_group: dict[str, list[Course]] = {}
        for course in courses(table, quantity, border):
            by_group.setdefault(course.group, []).append(course)
        panels.append(Panel(quantity.name, dict(sorted(by_group.items()))))
    in_frames = bool(table["time_s"].isna().any())
    for name, drawn in (
        ("curves_cells", curves_figure(folder.figures / "curves_cells.png", panels, in_frames)),
        ("boxes_cells", boxes_figure(folder.figures / "boxes_cells.png", panels)),
    ):
        if drawn is None:
            (folder.figures / f"{name}.png").unlink(missing_ok=True)
    for old in folder.figures.glob("lineage_*.png"):
        old.unlink()
    for file, rows in list(tracks.groupby("file", sort=True))[:MAX_LINEAGES]:
        lines = [
            Track(
                int(row.track), None if pd.isna(row.parent) else int(row.parent), int(row.lineage),
                int(row.first_frame), int(row.last_frame), int(row.sightings), bool(row.divided),
            )
            for row in rows.itertuples()
        ]  # fmt: skip
        frames = int(table.loc[table["file"] == file, "frame"].max()) + 1
        lineage_figure(folder.figures / f"lineage_{file}.png", lines, frames)
