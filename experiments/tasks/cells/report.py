"""What the report of a cells run shows."""

from pathlib import Path
from typing import Any

from cytovox.plots.charts import read_rows
from experiments.report.data import shown_number
from experiments.report.parts import sections

#: Scores of a cells run that the page shows, and their headings.
_SCORES = (("dice", "Dice"), ("dice_matched", "matched only"), ("ap_50", "AP 0.5"), ("pq", "PQ"))
_WAYS = {"true": "true nuclei", "rule": "nuclei by the rule", "watershed": "seeded watershed"}


def scores(rows: list[dict[str, str]]) -> dict[str, Any]:
    """Means of a cells run's test by line and way, with their intervals."""
    return {
        "heads": [head for _, head in _SCORES],
        "rows": [
            {
                "cell_line": row.get("cell_line", ""),
                "way": _WAYS.get(row.get("seeds", ""), ""), "n": row.get("n", ""),
                "values": [
                    "{} [{}, {}]".format(*(shown_number(row.get(key + end), 3) for end in ("", "_low", "_high")))
                    for key, _ in _SCORES
                ],
            }
            for row in rows
        ],
    }  # fmt: skip


def cells_report(folder: Path) -> dict[str, Any]:
    """Return what the sections of the page show."""
    parts = [("scores", "Scores"), ("cases", "Cases"), ("training", "Training")]
    return {
        "sections": {**sections("cells", "Cells", "µm"), "parts": parts},
        "lines": scores(read_rows(folder / "tables" / "test_cell_lines.csv")),
        "cases": read_rows(folder / "tables" / "test_cells.csv"),
    }
