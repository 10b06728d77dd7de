"""Report of an analysis, made from its tables and figures."""

from pathlib import Path
from typing import Any

from cytovox.plots.charts import read_rows
from experiments.report.data import link, number, read_text, shown_number
from experiments.report.parts import picture, sections, title
from experiments.tasks.analyze import report_quality
from experiments.tasks.analyze.report_tests import groups_section

#: Largest numbers of table rows and figures on the page; the files contain all.
MAX_ROWS = 200
MAX_PICTURES = 12

#: Column of the table of cells, its heading, and its number of digits.
_CELL = (
    ("volume_um3", "volume, µm³", None), ("volume_low_um3", "from", None), ("volume_high_um3", "to", None),
    ("surface_area_um2", "area, µm²", None), ("sphericity", "sphericity", 3), ("mean_ri", "mean RI", 4),
    ("concentration_g_per_ml", "concentration, g/mL", 4),
    ("concentration_choi_g_per_ml", "concentration as published, g/mL", 4), ("dry_mass_pg", "dry mass, pg", None),
)  # fmt: skip


def contents(folder: Path) -> dict[str, Any]:
    """Return the variables of the report's templates, from the tables and figures of an analysis."""
    tables, figures = folder / "tables", folder / "figures"
    cells = read_rows(tables / "cells.csv")
    files = read_rows(tables / "files.csv")
    overlays = sorted(figures.glob("cells_*_t[0-9]*.png"))
    lineages = sorted(figures.glob("lineage_*.png"))
    return {
        "quality": report_quality.contents(tables, cells),
        "analysed": _summary(files),
        "broken": [row for row in files if row.get("state") == "broken"],
        "notes": [line for line in read_text(tables / "notes.txt").splitlines() if line][:MAX_ROWS],
        "rules": _rules(cells),
        "groups": groups_section(tables),
        "first_cells": _cells(cells),
        "inputs": files,
        "downloads": [
            (path.name, link(folder, f"tables/{path.name}"))
            for path in sorted(tables.glob("*"))
            if path.suffix in (".csv", ".parquet")
        ],
        "overlay_paths": overlays[:MAX_PICTURES],
        "overlays_left_out": max(0, len(overlays) - MAX_PICTURES),
        "lineage_paths": lineages[:MAX_PICTURES],
        "lineages_left_out": max(0, len(lineages) - MAX_PICTURES),
    }


def _summary(files: list[dict[str, str]]) -> list[tuple[str, str]]:
    """Return the rows of the summary: a name and a value each."""
    if not files:
        return []
    done = [row for row in files if row.get("state") == "done"]

    def total(column: str) -> str:
        return str(int(sum(value for row in done if (value := number(row.get(column))) == value)))

    return [
        ("files", str(len(done))), ("broken files", str(len(files) - len(done))), ("frames", total("frames")),
        ("cells followed", total("cells_followed")),
        ("tracks (a division ends one and starts two)", total("tracks")), ("divisions", total("divisions")),
        ("cell images at the border", total("cells_at_border")),
        ("cell images without a nucleus", total("cells_without_nucleus")),
        ("groups", ", ".join(sorted({row.get("group", "") for row in done})) or "–"),
    ]  # fmt: skip


def _rules(cells: list[dict[str, str]]) -> list[str]:
    """Return the different rules of measurement in the table of cells, one line each."""
    rules = {
        (row.get("medium_ri", ""), row.get("medium_from", ""), row.get("increments", ""), row.get("area_estimator", ""))
        for row in cells
    }
    return [
        f"medium {medium} ({source}); increments {increments}; surface area: {area}"
        for medium, source, increments, area in sorted(rules)
    ][:MAX_PICTURES]


def _cells(cells: list[dict[str, str]]) -> dict[str, Any]:
    """Return the table of whole cells in the first and last frame of each file."""
    whole = [row for row in cells if row.get("compartment") == "cell"]
    ends: dict[str, set[str]] = {}
    for row in whole:
        ends.setdefault(row.get("file", ""), set()).add(row.get("frame", ""))
    kept = {file: {min(frames, key=number), max(frames, key=number)} for file, frames in ends.items()}
    rows = [row for row in whole if row.get("frame") in kept[row.get("file", "")]]
    columns = [column for column in _CELL if any(row.get(column[0]) for row in rows)]
    return {
        "heads": [head for _, head, _ in columns],
        "rows": [
            {
                "file": row.get("file", ""), "group": row.get("group", ""), "frame": row.get("frame", ""),
                "track": row.get("track", "") or "–",
                "values": [shown_number(row.get(key), digits) for key, _, digits in columns],
                "flags": ", ".join(_flags(row)),
            }
            for row in rows[:MAX_ROWS]
        ],
        "more": max(0, len(rows) - MAX_ROWS),
    }  # fmt: skip


def _flags(row: dict[str, str]) -> list[str]:
    """Return the remarks on a cell: border, other flags, and whether it is given or corrected."""
    flags = [f"border {row['border']}"] if row.get("border") else []
    flags += [flag.replace("_", " ") for flag in row.get("flags", "").split() if flag != "border"]
    return flags + ([row["cells_from"]] if row.get("cells_from") not in ("predicted", None, "") else [])


def analysis_report(folder: Path) -> dict[str, Any]:
    """Return all variables of the page."""
    figures, shown = folder / "figures", contents(folder)
    parts = [
        ("quality", "Quality"), ("scores", "Results"), ("groups", "Groups"), ("predictions", "Cells"),
        ("lineages", "Lineages"),
    ]  # fmt: skip
    return {
        **shown,
        "sections": {**sections("analyze", "Cells", "µm"), "trained": False, "parts": parts},
        "course": picture(figures / "curves_cells.png"),
        "boxes": picture(figures / "boxes_cells.png"),
        "overlays": [(title(path).removeprefix("cells_"), picture(path)) for path in shown["overlay_paths"]],
        "lineages": [(path.stem.removeprefix("lineage_"), picture(path)) for path in shown["lineage_paths"]],
    }
