"""What the report of a search shows: the genotype found, and the scores of its training from scratch."""

from pathlib import Path
from typing import Any

from cytovox.plots.genotype import search_figure
from experiments.report import data
from experiments.report.parts import drawn, picture, sections
from experiments.tasks.organelle.report import organelle_report


def search_report(folder: Path) -> dict[str, Any]:
    """Return what the sections of the page show."""
    parts = [("genotype", "Genotype"), ("scores", "Scores"), ("cases", "Cases"), ("training", "Training")]
    return {
        **organelle_report(folder / "retrained"),
        "sections": {**sections("organelle", "Masks", "µm"), "scores": "search_scores.html", "parts": parts},
        "genotype": picture(folder / "figures" / "genotype.png"),
        "course": drawn(folder / "figures" / "search.png", folder / "metrics.csv", search_figure),
        "found": data.read_json(folder / "metrics.json"),
    }
