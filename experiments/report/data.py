"""Read the contents of a report from a run folder. Missing or incomplete files are left out without an error."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from cytovox.metrics.overlap import spread
from cytovox.organelles import COLOURS, OTHER_COLOUR, in_order
from cytovox.plots.charts import read_curves, read_rows, scored
from cytovox.statistics.feature_tables import SEEN, UNKNOWN, YES
from training.rundir import read_json

Row = dict[str, str]
#: Longest list of files; the page states how many more there are.
MAX_FILES = 400
#: Names of the validation scores; larger is better.
VALIDATED = {"val/dice_mean": "Dice", "val/iou": "IoU"}


def read_text(path: Path) -> str:
    """Return the text of a file; empty if it cannot be read."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def number(text: object) -> float:
    """Return the number in a cell of a table; nan for anything else."""
    with contextlib.suppress(ValueError):
        return float(text) if isinstance(text, str | int | float) else math.nan
    return math.nan


def shown(value: object, digits: int = 3) -> str:
    """Return a score as text; a dash if there is none."""
    value = number(value)
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def shown_volume(value: object) -> str:
    """Return a volume in µm³ with about three digits; a dash if there is none."""
    value = number(value)
    if not math.isfinite(value):
        return "–"
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}".replace(",", "\u202f")


def seen_line(metrics: Mapping[str, Any], stage: str, what: str, consequence: str) -> str:
    """Return a text about inputs that were or may have been in the training data; empty if there are none."""
    seen, unknown = (number(metrics.get(f"{stage}/{SEEN}_{answer}", 0)) for answer in (YES, UNKNOWN))
    parts = [f"{int(seen)} {what} were seen in training by these weights. {consequence}"] if seen > 0 else []
    if unknown > 0:
        parts.append(f"Of {int(unknown)} {what} it is not known whether these weights have seen them.")
    return " ".join(parts)


def config_of(run_folder: Path) -> dict[str, Any]:
    """Return the stored config; empty if it cannot be read."""
    with contextlib.suppress(yaml.YAMLError):
        values = yaml.safe_load(read_text(run_folder / "config.yaml"))
        return values if isinstance(values, dict) else {}
    return {}


#: States of a run that is not complete.
NOT_GOOD = ("failed", "interrupted", "preempted", "running", "submitted")


def identity(run_folder: Path, config: dict[str, Any], environment: dict[str, Any]) -> dict[str, Any]:
    """Return name, id, task, times and state of the run."""
    status = read_json(run_folder / "status.json")
    started, ended = status.get("started") or environment.get("started"), status.get("ended")
    when = _time(started)
    done = [str(stage) for stage in status.get("stages_done") or []] or _stages_seen(run_folder)
    wanted = [str(stage) for stage in config.get("stages") or []] or done
    complete = bool(wanted) and set(wanted) <= set(done)
    dry = " (dry run: one step of each stage)" if status.get("dry_run") else ""
    state = str(status.get("status") or ("finished" if complete else "unfinished"))
    return {
        "name": str(config.get("name") or run_folder.parent.name),
        "id": run_folder.name,
        "task": str(config.get("task") or "unknown"),
        "started": f"{when:%Y-%m-%d %H:%M} {when.tzname() or ''}".strip() if when else "unknown",
        "duration": _duration(started, ended),
        "state": state + dry,
        "good": (complete or (not wanted and state == "finished")) and state not in NOT_GOOD,
        "stages": [{"name": stage, "done": stage in done} for stage in wanted],
    }


def _stages_seen(run_folder: Path) -> list[str]:
    """Return the stages whose results exist, for a folder without a status."""
    metrics = read_json(run_folder / "metrics.json")
    seen = {
        "fit": bool(metrics) and (run_folder / "metrics.csv").is_file(),
        "test": any(key.startswith("test/") for key in metrics),
        "predict": (run_folder / "tables/predictions.csv").is_file(),
    }
    return [stage for stage, exists in seen.items() if exists]


def _time(value: object) -> datetime | None:
    """Return the time of an ISO text or of seconds since 1970; None for anything else."""
    with contextlib.suppress(ValueError, OSError, OverflowError):
        if value:
            return (
                datetime.fromtimestamp(value) if isinstance(value, int | float) else datetime.fromisoformat(str(value))
            )
    return None


def _duration(started: object, ended: object) -> str:
    begin, end = _time(started), _time(ended)
    if begin is None or end is None or (begin.tzinfo is None) != (end.tzinfo is None) or end < begin:
        return ""
    minutes, seconds = divmod(round((end - begin).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def headline(run_folder: Path) -> list[dict[str, Any]]:
    """Return the test Dice of every organelle and of their mean, and that of the best window of refractive index."""
    metrics, cases = read_json(run_folder / "metrics.json"), read_rows(run_folder / "tables/test_cases.csv")
    windows = {row.get("organelle"): row for row in read_rows(run_folder / "tables/test_windows.csv")}
    result = []
    columns = [*metrics, *(f"test/{column}" for row in cases[:1] for column in row)]
    for name in scored(columns, "test/dice_"):
        over_cases = spread(number(row.get(f"dice_{name}")) for row in cases)
        dice = number(metrics.get(f"test/dice_{name}"))
        dice = dice if math.isfinite(dice) else over_cases.mean
        if math.isfinite(dice):
            window = windows.get(name, {})
            baseline = number(window.get("dice"))
            result.append(
                {
                    "name": name,
                    "colour": COLOURS.get(name, OTHER_COLOUR),
                    "dice": shown(dice),
                    "percent": _percent(dice),
                    "spread": over_cases,
                    "cells": [shown(v) for v in dataclasses.astuple(over_cases)[1:]],
                    "sd": shown(over_cases.sd),
                    "baseline": shown(baseline) if math.isfinite(baseline) else "",
                    "baseline_percent": _percent(baseline),
                    "window": _window(window),
                }
            )
    return result


def _percent(share: float) -> float:
    return round(100 * min(max(share, 0.0), 1.0), 2) if math.isfinite(share) else 0.0


def _window(row: Row) -> str:
    low, high = number(row.get("ri_low")), number(row.get("ri_high"))
    if math.isnan(low) or math.isnan(high):
        return ""
    if math.isinf(low):
        return "any RI" if math.isinf(high) else f"RI < {high:.4f}"
    return f"RI ≥ {low:.4f}" if math.isinf(high) else f"RI {low:.4f}–{high:.4f}"


def learning(run_folder: Path) -> dict[str, Any] | None:
    """Return the number of epochs, and the best epoch by the validation score; None without curves."""
    curves = read_curves(run_folder / "metrics.csv")
    epochs = [epoch for name, points in curves.items() if name.startswith(("train/", "val/")) for epoch, _ in points]
    if not epochs:
        return None
    score, points = next(((s, curves[key]) for key, s in VALIDATED.items() if curves.get(key)), ("", []))
    best = max(points, key=lambda point: point[1]) if points else None
    return {
        "epochs": int(max(epochs)) + 1,
        "score": score,
        "best_epoch": int(best[0]) if best else None,
        "best": shown(best[1]) if best else None,
    }


def score_table(
    rows: list[Row], first: Iterable[str], columns: Mapping[str, str] | None = None
) -> dict[str, Any] | None:
    """Return a table of scores by case or by group; None without rows.

    Parameters
    ----------
    rows : list of Row
        Rows of a table of the run folder.
    first : iterable of str
        Columns before the scores.
    columns : mapping, optional
        Columns of the scores, with their headings; by default the Dice of every organelle.
    """
    if not rows:
        return None
    if columns is None:
        columns = {f"dice_{name}": name for name in scored(column for row in rows for column in row)}
    labels = [name for name in first if any(name in row for row in rows)]
    return {
        "labels": labels,
        "scores": list(columns.values()),
        "rows": [([row.get(n, "") for n in labels], [shown(row.get(n)) for n in columns]) for row in rows],
    }


def predictions(run_folder: Path) -> dict[str, Any] | None:
    """Return one row per predicted frame, with volumes in µm³ and the path of the masks; None without rows."""
    frames: dict[tuple[str, str], dict[str, Row]] = {}
    for row in read_rows(run_folder / "tables/predictions.csv"):
        frames.setdefault((row.get("input", ""), row.get("frame", "")), {})[row.get("organelle", "")] = row
    if not frames:
        return None
    names = in_order(name for by_name in frames.values() for name in by_name)
    table = []
    for (source, frame), by_name in frames.items():
        first = next(iter(by_name.values()))
        table.append(
            {
                "input": source.replace("\\", "/").rsplit("/", 1)[-1],
                "path": source,
                "frame": frame,
                "volumes": [shown_volume(by_name.get(name, {}).get("volume_um3")) for name in names],
                "output": first.get("output", ""),
                "outside": first.get("outside_training", ""),
                "href": link(run_folder, first.get("output", "")),
            }
        )
    return {"organelles": names, "rows": table}


def link(run_folder: Path, target: str) -> str:
    """Return a link to a file of the run folder or its predictions; empty for any other path."""
    if not target or "\0" in target:
        return ""
    root = run_folder.resolve()
    for candidate in (root / target, root / "predictions" / target):
        with contextlib.suppress(OSError):
            path = candidate.resolve()
            if path.is_relative_to(root) and path.exists():
                return "./" + quote(path.relative_to(root).as_posix())
    return ""


def flattened(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested values as pairs of a dotted key and a text."""
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            pairs += flattened(value, f"{name}.")
        elif isinstance(value, list):
            pairs.append((name, " ".join(str(v) for v in value) or "none"))
        else:
            pairs.append((name, "none" if value is None else str(value)))
    return pairs


def file_list(run_folder: Path) -> dict[str, Any]:
    """Return every file with its size and a link. A Zarr store is one entry; symbolic links are not followed."""
    found: list[tuple[str, int]] = []
    for folder, folders, files in os.walk(run_folder):
        here = Path(folder)
        stores = [here / name for name in folders if name.endswith(".zarr")]
        found += [(f"{store.relative_to(run_folder).as_posix()}/", _tree_size(store)) for store in stores]
        folders[:] = sorted(name for name in folders if here / name not in stores and not name.startswith("."))
        found += [
            (path.relative_to(run_folder).as_posix(), path.stat().st_size)
            for path in (here / name for name in files if not name.startswith(".") and name != "report.html")
            if path.is_file() and not path.is_symlink()
        ]
    found.sort(key=lambda entry: (entry[0].count("/") > 0, entry[0]))
    entries = [{"name": name, "href": "./" + quote(name), "size": _size(size)} for name, size in found[:MAX_FILES]]
    return {"entries": entries, "more": max(0, len(found) - MAX_FILES)}


def _tree_size(folder: Path) -> int:
    return sum((Path(f) / name).stat().st_size for f, _, names in os.walk(folder) for name in names)


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def shown_number(text: object, digits: int | None) -> str:
    """Return a number of a table with so many decimals, or formatted as a volume; a dash if there is none."""
    value = number(text)
    return "–" if value != value else shown_volume(value) if digits is None else f"{value:.{digits}f}"
