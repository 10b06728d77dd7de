"""Parts of report pages that several tasks use."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Pictures of a page, and bytes of one: what exceeds these stays in the folder, and the page says so.
MAX_OVERLAYS, MAX_PICTURE_BYTES = 12, 1_000_000


def sections(task: str, surfaces: str, unit: str) -> dict[str, Any]:
    """The templates of a task, its parts, what its surfaces are, and what they are measured in."""
    return {
        "trained": True,
        "parts": [("scores", "Scores"), ("cases", "Cases"), ("training", "Training"), ("predictions", "Predictions")],
        "scores": f"{task}_scores.html",
        "predictions": f"{task}_predictions.html",
        "surfaces": surfaces,
        "unit": unit,
    }


def drawn(png: Path, table: Path, draw: Callable[[Path, Path], Path | None]) -> str:
    """A figure drawn now from a table of the folder, as a data URI; empty where there is nothing to draw."""
    if not table.is_file() or draw(png, table) is None:
        return ""
    return picture(png)


def picture(path: Path) -> str:
    """A PNG file as a data URI; empty where it is missing, a link, too large, or no PNG."""
    if not path.is_file() or path.is_symlink() or path.stat().st_size > MAX_PICTURE_BYTES:
        return ""
    content = path.read_bytes()
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return ""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def title(path: Path) -> str:
    """A figure's file name as a caption: predict_hl60_t001 -> hl60, frame 1; test_median -> median test case."""
    if path.stem in ("test_best", "test_median", "test_worst"):
        return f"{path.stem.removeprefix('test_')} test case"
    name = path.stem.removeprefix("predict_")
    stem, mark, frame = name.rpartition("_t")
    return f"{stem}, frame {int(frame)}" if mark and frame.isdecimal() else name
