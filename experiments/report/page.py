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
from cytovox.plots.charts import curves_figure
from cytovox.plots.meshes import packed_scene
from experiments.report import data
from experiments.report.parts import drawn, title

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"
#: A report is something to send to a colleague: what is past these numbers stays in the folder, and the page says so.
MAX_SCENES, MAX_SCENE_BYTES = 3, 4_000_000
MAX_TEXT = 200_000


def write_report(run_folder: str | Path, own: Callable[[Path], dict[str, Any]]) -> Path:
    """Write `report.html` into a run folder, whole or not at all.

    Nothing outside the folder is read. Every part may be missing: a run that only predicted, or one that was killed,
    gets a report that says what is not there. Curves and the plot of Dice are drawn anew into `figures/`.

    Parameters
    ----------
    run_folder : str or Path
        `runs/<name>/<id>/`, with any of config.yaml, environment.json, status.json, metrics.csv, metrics.json,
        tables/{test_cases,test_groups,test_windows,predictions}.csv, figures/{test_best,test_median,test_worst}.png,
        figures/predict_*.png and figures/*.glb.
    own : callable
        From the folder to what the sections of its task show: `Task.report`.

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
    page = _environment().get_template("report.html").render(**_contents(folder, own))
    with atomic_path(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return folder / "report.html"


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _contents(folder: Path, own: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """All that the template shows."""
    config, environment = data.config_of(folder), data.read_json(folder / "environment.json")
    figures = folder / "figures"
    git = environment.get("git") if isinstance(environment.get("git"), dict) else {}
    diff = str(git.pop("diff", "") or "") if git else ""
    style, script = _asset("report.css"), _asset("report.js")
    scenes = sorted(figures.glob("*.glb"))
    return {
        "style": Markup(style),  # noqa: S704
        "script": Markup(script),  # noqa: S704
        "style_hash": _hash(style),
        "script_hash": _hash(script),
        "run": data.identity(folder, config, environment),
        "asked": [str(stage) for stage in config.get("stages") or []],
        "learning": data.learning(folder),
        "step": data.read_json(folder / "metrics.json"),
        "curves": drawn(figures / "curves.png", folder / "metrics.csv", curves_figure),
        "scenes": [scene for path in scenes[:MAX_SCENES] if (scene := _scene(path, folder)) is not None],
        "scenes_left_out": max(0, len(scenes) - MAX_SCENES),
        "config": data.read_text(folder / "config.yaml")[:MAX_TEXT],
        "environment": data.flattened(environment),
        "diff": diff[:MAX_TEXT],
        "files": data.file_list(folder),
        **own(folder),
    }


def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What the page's own security policy knows its style and script by; any other script does not run."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _scene(path: Path, folder: Path) -> dict[str, Any] | None:
    """A scene for the viewer of the page; None where it cannot be read or would make the page too heavy."""
    if path.is_symlink() or path.stat().st_size > MAX_SCENE_BYTES:
        return None
    with contextlib.suppress(Exception):  # a torn file of a killed run can fail in any of trimesh's ways
        packed = packed_scene(path)
        if packed["meshes"]:
            return {"title": title(path), "href": data.link(folder, f"figures/{path.name}"), "packed": packed}
    log.warning("%s: cannot be shown in the report", path)
    return None
