"""What tests read of a run folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

ORGANELLES = ("membrane", "nucleus", "nucleolus", "lipid")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def numbers(run: Path) -> dict[str, float]:
    return json.loads((run / "metrics.json").read_text())


def same_everywhere(run: Path) -> dict[str, float]:
    """metrics.json without what depends on the clock and the machine."""
    return {key: value for key, value in numbers(run).items() if not key.endswith(("seconds", "_mb"))}


def steps(run: Path) -> list[int]:
    return [int(row["step"]) for row in rows(run / "metrics.csv") if row["train/loss"]]
