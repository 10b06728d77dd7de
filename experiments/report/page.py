"""One page that says what a run did: `report.html`, a single file that needs nothing else, not even a network."""

import base64
import contextlib
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from cytovox.errors import InputError
from cytovox.io.atomic import atomic_path
from cytovox.plots.charts import curves_figure, dice_figure, read_rows
from cytovox.plots.genotype import search_figure
from cytovox.plots.meshes import packed_scene
from experiments.report import data
from experiments.tasks.analyze import report as analysed
from experiments.tasks.shape import report as shapes

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"
#: A report is something to send to a colleague: what is past these numbers stays in the folder, and the page says so.
MAX_SCENES, MAX_SCENE_BYTES = 3, 4_000_000
MAX_OVERLAYS, MAX_PICTURE_BYTES = 12, 1_000_000
MAX_TEXT = 200_000


def write_report(run_folder: str | Path) -> Path:
    """Write `report.html` into a run folder, whole or not at all.

    Nothing outside the folder is read. Every part may be missing: a run that only predicted, or one that was killed,
    gets a report that says what is not there. Curves and the plot of Dice are drawn anew into `figures/`.

    Parameters
    ----------
    run_folder : str or Path
        `runs/<name>/<id>/`, with any of config.yaml, environment.json, status.json, metrics.csv, metrics.json,
        tables/{test_cases,test_groups,test_windows,predictions}.csv, figures/{test_best,test_median,test_worst}.png,
        figures/predict_*.png and figures/*.glb.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    InputError
        There is no such folder, or it may not be written to.
    """
    folder = Path(run_folder).resolve()
    if not folder.is_dir():
        raise InputError(f"{run_folder}: no such run folder; expected runs/<name>/<id>")
    page = _environment().get_template("report.html").render(**_contents(folder))
    with atomic_path(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return folder / "report.html"


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _contents(folder: Path) -> dict[str, Any]:
    """All that the template shows."""
    config, environment = data.config_of(folder), data.read_json(folder / "environment.json")
    figures = folder / "figures"
    git = environment.get("git") if isinstance(environment.get("git"), dict) else {}
    diff = str(git.pop("diff", "") or "") if git else ""
    style, script = _asset("report.css"), _asset("report.js")
    scenes = sorted(figures.glob("*.glb"))
    own = OWN.get(str(config.get("task")), _organelle)
    return {
        "style": Markup(style),  # noqa: S704
        "script": Markup(script),  # noqa: S704
        "style_hash": _hash(style),
        "script_hash": _hash(script),
        "run": data.identity(folder, config, environment),
        "asked": [str(stage) for stage in config.get("stages") or []],
        "learning": data.learning(folder),
        "step": data.read_json(folder / "metrics.json"),
        "curves": _drawn(figures / "curves.png", folder / "metrics.csv", curves_figure),
        "scenes": [scene for path in scenes[:MAX_SCENES] if (scene := _scene(path, folder)) is not None],
        "scenes_left_out": max(0, len(scenes) - MAX_SCENES),
        "config": data.read_text(folder / "config.yaml")[:MAX_TEXT],
        "environment": data.flattened(environment),
        "diff": diff[:MAX_TEXT],
        "files": data.file_list(folder),
        **own(folder),
    }


def _organelle(folder: Path) -> dict[str, Any]:
    """What the sections of an organelle run show."""
    tables, figures = folder / "tables", folder / "figures"
    overlays = sorted(figures.glob("predict_*.png"))
    return {
        "sections": _sections("organelle", "Masks", "µm"),
        "headline": data.headline(folder),
        "seen_line": data.seen_line(
            data.read_json(folder / "metrics.json"), "test", "test cases", "Their scores say nothing about new ones."
        ),
        "dice": _drawn(
            figures / "dice.png",
            tables / "test_cases.csv",
            lambda png, table: dice_figure(png, table, tables / "test_windows.csv"),
        ),
        "groups": data.score_table(read_rows(tables / "test_groups.csv"), ("group", "n")),
        "cases": data.score_table(read_rows(tables / "test_cases.csv"), ("case", "group")),
        "test_overlays": [(rank, _picture(figures / f"test_{rank}.png")) for rank in ("best", "median", "worst")],
        "predictions": data.predictions(folder),
        "overlays": [(_title(path), _picture(path)) for path in overlays[:MAX_OVERLAYS]],
        "overlays_left_out": max(0, len(overlays) - MAX_OVERLAYS),
    }


def _shape(folder: Path) -> dict[str, Any]:
    """What the sections of a shape run show."""
    tables, figures = folder / "tables", folder / "figures"
    return {
        "sections": _sections("shape", "Shapes", "voxels"),
        "shape_scores": shapes.scores(folder),
        "groups": shapes.error_table(read_rows(tables / "test_classes.csv"), ("class", "n")),
        "cases": shapes.error_table(read_rows(tables / "test_cells.csv"), ("cell", "class")),
        "gallery": _picture(figures / "test_gallery.png"),
        "reliability": _picture(figures / "test_reliability.png"),
        "predictions": shapes.predictions(folder),
        "predicted_gallery": _picture(figures / "predict_gallery.png"),
    }


def _cells(folder: Path) -> dict[str, Any]:
    """What the sections of a cells run show."""
    parts = [("scores", "Scores"), ("cases", "Cases"), ("training", "Training")]
    return {
        "sections": {**_sections("cells", "Cells", "µm"), "parts": parts},
        "lines": analysed.scores(read_rows(folder / "tables" / "test_lines.csv")),
        "cases": read_rows(folder / "tables" / "test_cells.csv"),
    }


def _search(folder: Path) -> dict[str, Any]:
    """What the sections of a search show: what was found, and the scores of its training from scratch."""
    parts = [("genotype", "Genotype"), ("scores", "Scores"), ("cases", "Cases"), ("training", "Training")]
    return {
        **_organelle(folder / "retrained"),
        "sections": {**_sections("organelle", "Masks", "µm"), "scores": "search_scores.html", "parts": parts},
        "genotype": _picture(folder / "figures" / "genotype.png"),
        "course": _drawn(folder / "figures" / "search.png", folder / "metrics.csv", search_figure),
        "found": data.read_json(folder / "metrics.json"),
    }


def _analysis(folder: Path) -> dict[str, Any]:
    """What the sections of an analysis show."""
    figures, shown = folder / "figures", analysed.contents(folder)
    parts = [("quality", "Quality"), ("scores", "Results"), ("groups", "Groups"), ("predictions", "Cells")]
    parts += [("lineages", "Lineages")]
    return {
        **shown,
        "sections": {**_sections("analyze", "Cells", "µm"), "trained": False, "parts": parts},
        "course": _picture(figures / "curves_cells.png"),
        "boxes": _picture(figures / "boxes_cells.png"),
        "overlays": [(_title(path).removeprefix("cells_"), _picture(path)) for path in shown["overlay_paths"]],
        "lineages": [(path.stem.removeprefix("lineage_"), _picture(path)) for path in shown["lineage_paths"]],
    }


def _sections(task: str, surfaces: str, unit: str) -> dict[str, Any]:
    """The templates of a task, its parts, what its surfaces are, and what they are measured in."""
    return {
        "trained": True,
        "parts": [("scores", "Scores"), ("cases", "Cases"), ("training", "Training"), ("predictions", "Predictions")],
        "scores": f"{task}_scores.html",
        "predictions": f"{task}_predictions.html",
        "surfaces": surfaces,
        "unit": unit,
    }


#: What each task shows of its own; all others as an organelle run.
OWN: dict[str, Callable[[Path], dict[str, Any]]] = {
    "shape": _shape,
    "shapr": _shape,
    "cells": _cells,
    "analyze": _analysis,
    "search": _search,
}


def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What the page's own security policy knows its style and script by; any other script does not run."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _drawn(png: Path, table: Path, draw: Callable[[Path, Path], Path | None]) -> str:
    """A figure drawn now from a table of the folder, as a data URI; empty where there is nothing to draw."""
    if not table.is_file() or draw(png, table) is None:
        return ""
    return _picture(png)


def _picture(path: Path) -> str:
    """A PNG file as a data URI; empty where it is missing, a link, too large, or no PNG."""
    if not path.is_file() or path.is_symlink() or path.stat().st_size > MAX_PICTURE_BYTES:
        return ""
    content = path.read_bytes()
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return ""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def _scene(path: Path, folder: Path) -> dict[str, Any] | None:
    """A scene for the viewer of the page; None where it cannot be read or would make the page too heavy."""
    if path.is_symlink() or path.stat().st_size > MAX_SCENE_BYTES:
        return None
    with contextlib.suppress(Exception):  # a torn file of a killed run can fail in any of trimesh's ways
        packed = packed_scene(path)
        if packed["meshes"]:
            return {"title": _title(path), "href": data.link(folder, f"figures/{path.name}"), "packed": packed}
    log.warning("%s: cannot be shown in the report", path)
    return None


def _title(path: Path) -> str:
    """A figure's file name as a caption: predict_hl60_t001 -> hl60, frame 1; test_median -> median test case."""
    if path.stem in ("test_best", "test_median", "test_worst"):
        return f"{path.stem.removeprefix('test_')} test case"
    name = path.stem.removeprefix("predict_")
    stem, mark, frame = name.rpartition("_t")
    return f"{stem}, frame {int(frame)}" if mark and frame.isdecimal() else name
