"""Parts of reports that several tasks use."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Most pictures of a page, and most bytes of one. The others remain in the folder, and the page states it.
MAX_OVERLAYS, MAX_PICTURE_BYTES = 12, 1_000_000


def sections(task: str, surfaces: str, unit: str) -> dict[str, Any]:
    """Return the templates and parts of a task's report, and the name and length unit of its surfaces."""
    return {
        "trained": True,
        "parts": [("scores", "Scores"), ("cases", "Cases"), ("training", "Training"), ("predictions", "Predictions")],
        "scores": f"{task}_scores.html",
        "predictions": f"{task}_predictions.html",
        "surfaces": surfaces,
        "unit": unit,
    }


def drawn(png: Path, table: Path, draw: Callable[[Path, Path], Path | None]) -> str:
    """Draw a figure from a table of the folder, and return it as a data URI; empty if there is nothing to draw."""
    return picture(png) if table.is_file() and draw(png, table) is not None else ""


def picture(path: Path) -> str:
    """Return a PNG file as a data URI; empty if it is missing, a link, too large, or no PNG."""
    if not path.is_file() or path.is_symlink() or path.stat().st_size > MAX_PICTURE_BYTES:
        return ""
    content = path.read_bytes()
    is_png = content.startswith(b"\x89PNG\r\n\x1a\n")
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii") if is_png else ""


def title(path: Path) -> str:
    """Return a caption from a figure's file name: predict_hl60_t001 -> hl60, frame 1; test_best -> best test case."""
    if path.stem in ("test_best", "test_median", "test_worst"):
        return f"{path.stem.removeprefix('test_')} test case"
    name = path.stem.removeprefix("predict_")
    stem, mark, frame = name.rpartition("_t")
    return f"{stem}, frame {int(frame)}" if mark and frame.isdecimal() else name
