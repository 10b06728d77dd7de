"""Pictures of an analysis, out of its tables."""

from __future__ import annotations

import pandas as pd

from analysis.course_figures import Panel, boxes_figure, curves_figure, lineage_figure
from analysis.groups import Course
from analysis.tracking import Track
from experiments.pipelines.time_series_tables import QUANTITIES, courses
from formats.deletion import Manifest
from formats.names import safe_name
from training.rundir import RunFolder

#: Lineages drawn at most: the table has all.
MAX_LINEAGES = 12


def draw_results(table: pd.DataFrame, tracks: pd.DataFrame, folder: RunFolder, border: str) -> None:
    """Curves, box plots and lineages; a picture that would be empty is removed."""
    written = Manifest(folder.path, "results")
    written.remove_all()
    panels = []
    for quantity in QUANTITIES:
        by_group: dict[str, list[Course]] = {}
        for course in courses(table, quantity, border):
            by_group.setdefault(course.group, []).append(course)
        panels.append(Panel(quantity.name, dict(sorted(by_group.items()))))
    in_frames = bool(table["time_s"].isna().any())
    curves_figure(folder.figures / "curves_cells.png", panels, in_frames)
    boxes_figure(folder.figures / "boxes_cells.png", panels)
    for name in ("curves_cells", "boxes_cells"):
        written.add(folder.figures / f"{name}.png")
    for file, rows in list(tracks.groupby("file", sort=True))[:MAX_LINEAGES]:
        lines = [
            Track(
                int(row.track), None if pd.isna(row.parent) else int(row.parent), int(row.first_frame),
                int(row.last_frame), int(row.sightings), bool(row.divided),
            )
            for row in rows.itertuples()
        ]  # fmt: skip
        frames = int(table.loc[table["file"] == file, "frame"].max()) + 1
        picture = folder.figures / f"lineage_{safe_name(str(file))}.png"
        lineage_figure(picture, lines, frames)
        written.add(picture)
