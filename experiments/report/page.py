"""Write `report.html`, a self-contained page with the results of a run."""

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
from training.rundir import read_json

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"
#: Limits of the size of a page. Scenes above them remain in the folder, and the page states how many.
MAX_SCENES, MAX_SCENE_BYTES = 3, 4_000_000
MAX_TEXT = 200_000


def write_report(run_folder: str | Path, own: Callable[[Path], dict[str, Any]]) -> Path:
    """Write `report.html` into a run folder atomically, and return its path.

    Only files in the folder are read. Any of them may be missing, as after a prediction alone or a killed run; the
    report names the missing parts. Curves and the plot of Dice are drawn again into `figures/`.

    Parameters
    ----------
    run_folder : str or Path
        `runs/<name>/<id>/`, with any of config.yaml, environment.json, status.json, metrics.csv, metrics.json,
        tables/{test_cases,test_groups,test_windows,predictions}.csv, figures/{test_best,test_median,test_worst}.png,
        figures/predict_*.png and figures/*.glb.
    own : callable
        Function that returns the contents of the sections of the task from the folder: `Task.report`.

    Returns
    -------
    Path
        Path of the report.

    Raises
    ------
    InputError
        There is no such folder, or it is not writable.
    """
    folder = Path(run_folder).resolve()
    if not folder.is_dir():
        raise InputError(f"{run_folder}: no such run folder; expected runs/<name>/<id>")
    page = templates().get_template("report.html").render(**_contents(folder, own))
    with atomic_path(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return folder / "report.html"


def templates() -> jinja2.Environment:
    """Return the environment of the report's templates, which escapes HTML."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def _contents(folder: Path, own: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Return the contents of the template."""
    config, environment = data.config_of(folder), read_json(folder / "environment.json")
    figures, git = folder / "figures", environment.get("git")
    diff = str(git.pop("diff", "") or "") if isinstance(git, dict) else ""
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    scenes = sorted(figures.glob("*.glb"))
    return {
        "style": Markup(style),  # noqa: S704
        "script": Markup(script),  # noqa: S704
        "style_hash": _hash(style),
        "script_hash": _hash(script),
        "run": data.identity(folder, config, environment),
        "stages": [str(stage) for stage in config.get("stages") or []],
        "learning": data.learning(folder),
        "step": read_json(folder / "metrics.json"),
        "curves": drawn(figures / "curves.png", folder / "metrics.csv", curves_figure),
        "scenes": [scene for path in scenes[:MAX_SCENES] if (scene := _scene(path, folder)) is not None],
        "scenes_left_out": max(0, len(scenes) - MAX_SCENES),
        "config": data.read_text(folder / "config.yaml")[:MAX_TEXT],
        "environment": data.flattened(environment),
        "diff": diff[:MAX_TEXT],
        "files": data.file_list(folder),
        **own(folder),
    }


def _hash(text: str) -> str:
    """Return the hash that allows the style or script in the page's security policy; other scripts do not run."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _scene(path: Path, folder: Path) -> dict[str, Any] | None:
    """Return a scene for the viewer of the page; None if it cannot be read or is too large."""
    if path.is_symlink() or path.stat().st_size > MAX_SCENE_BYTES:
        return None
    with contextlib.suppress(Exception):  # trimesh raises various errors for an incomplete file of a killed run
        packed = packed_scene(path)
        if packed["meshes"]:
            return {"title": title(path), "href": data.link(folder, f"figures/{path.name}"), "packed": packed}
    log.warning("%s: cannot be shown in the report", path)
    return None
