"""Contents of the report of a cells_from_masks run."""

from pathlib import Path
from typing import Any

from cytovox.plots.charts import read_rows
from experiments.report.data import link, shown_number
from experiments.report.parts import picture, sections
from training.rundir import read_json

#: Most rows on the page; the table has all.
MAX_ROWS = 200
#: Columns of the page: column of the table, heading, decimals.
COLUMNS = (
    ("volume_um3", "volume, µm³", None),
    ("surface_area_um2", "area, µm²", None),
    ("sphericity", "sphericity", 3),
    ("mean_ri", "mean RI", 4),
    ("dry_mass_pg", "dry mass, pg", None),
)


def cells_from_masks_report(folder: Path) -> dict[str, Any]:
    """Return the contents of the sections of the page."""
    rows = [row for row in read_rows(folder / "tables" / "cells.csv") if row.get("compartment") == "cell"]
    columns = [column for column in COLUMNS if any(row.get(column[0]) for row in rows)]
    return {
        "sections": {
            **sections("cells_from_masks", "Cells", "µm"),
            "trained": False,
            "parts": [("scores", "Cells")],
            "predictions": "cells_predictions.html",
        },
        "found": read_json(folder / "metrics.json"),
        "first_frame": picture(folder / "figures" / "cells.png"),
        "table": link(folder, "tables/cells.csv"),
        "heads": [head for _, head, _ in columns],
        "rows": [
            {
                "frame": row.get("frame", ""),
                "cell": row.get("cell", ""),
                "values": [shown_number(row.get(key), digits) for key, _, digits in columns],
                "flags": ", ".join(row.get("flags", "").replace("_", " ").split()),
            }
            for row in rows[:MAX_ROWS]
        ],
        "more": max(0, len(rows) - MAX_ROWS),
    }
