"""What a report tells of a run, out of its folder alone. Whatever is missing or torn is left out, and no error."""

import json
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

Row = dict[str, str]
#: A file list longer than this is cut, and says so.
MAX_FILES = 400
#: Validation scores, larger is better, as they are called in a sentence.
VALIDATED = {"val/dice_mean": "Dice", "val/iou": "IoU"}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none to be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def read_text(path: Path) -> str:
    """Text of a file; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def number(text: object) -> float:
    """A number out of a table's cell; nan for anything else."""
    try:
        return float(text) if isinstance(text, str | int | float) and text != "" else math.nan
    except ValueError:
        return math.nan


def shown(value: object, digits: int = 3) -> str:
    """A score as it is printed; a dash where there is none."""
    value = number(value)
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def shown_volume(value: object) -> str:
    """A volume in µm³ with about three digits."""
    value = number(value)
    if not math.isfinite(value):
        return "–"
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}".replace(",", "\u202f")


def seen_line(metrics: Mapping[str, Any], stage: str, what: str, consequence: str) -> str:
    """What is said of inputs that the weights have seen, or may have seen; empty where there is none."""
    seen, unknown = (number(metrics.get(f"{stage}/{SEEN}_{answer}", 0)) for answer in (YES, UNKNOWN))
    parts = [f"{int(seen)} {what} were seen in training by these weights. {consequence}"] if seen > 0 else []
    if unknown > 0:
        parts.append(f"Of {int(unknown)} {what} it is not known whether these weights have seen them.")
    return " ".join(parts)


def config_of(run_folder: Path) -> dict[str, Any]:
    """The saved config; an empty one where it cannot be read."""
    try:
        values = yaml.safe_load(read_text(run_folder / "config.yaml"))
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


#: States of a run that did not come to its end.
NOT_GOOD = ("failed", "interrupted", "preempted", "running", "submitted")


def identity(run_folder: Path, config: dict[str, Any], environment: dict[str, Any]) -> dict[str, Any]:
    """Name, id, task, times and state of the run."""
    status = read_json(run_folder / "status.json")
    started, ended = status.get("started") or environment.get("started"), status.get("ended")
    done = [str(stage) for stage in status.get("stages_done") or []] or _stages_seen(run_folder)
    asked = [str(stage) for stage in config.get("stages") or []] or done
    complete = bool(asked) and all(stage in done for stage in asked)
    dry = " (dry run: one step of each stage)" if status.get("dry_run") else ""
    state = str(status.get("status") or ("finished" if complete else "unfinished"))
    return {
        "name": str(config.get("name") or run_folder.parent.name),
        "id": run_folder.name,
        "task": str(config.get("task") or "unknown"),
        "started": _moment(started),
        "duration": _duration(started, ended),
        "state": state + dry,
        "good": (complete or (not asked and state == "finished")) and state not in NOT_GOOD,
        "stages": [{"name": stage, "done": stage in done} for stage in asked],
    }


def _stages_seen(run_folder: Path) -> list[str]:
    """Stages that have left their result, for a folder without a status."""
    metrics = read_json(run_folder / "metrics.json")
    seen = {
        "fit": bool(metrics) and (run_folder / "metrics.csv").is_file(),
        "test": any(key.startswith("test/") for key in metrics),
        "predict": (run_folder / "tables/predictions.csv").is_file(),
    }
    return [stage for stage, there in seen.items() if there]


def _time(value: object) -> datetime | None:
    try:
        return (
            datetime.fromisoformat(str(value)) if not isinstance(value, int | float) else datetime.fromtimestamp(value)
        )
    except (ValueError, OSError, OverflowError):
        return None


def _moment(value: object) -> str:
    when = _time(value) if value else None
    return f"{when:%Y-%m-%d %H:%M} {when.tzname() or ''}".strip() if when else "unknown"


def _duration(started: object, ended: object) -> str:
    begin, end = _time(started) if started else None, _time(ended) if ended else None
    if begin is None or end is None or (begin.tzinfo is None) != (end.tzinfo is None) or end < begin:
        return ""
    minutes, seconds = divmod(round((end - begin).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def headline(run_folder: Path) -> list[dict[str, Any]]:
    """Test Dice of every organelle and of their mean, with the best single window of refractive index beside it."""
    metrics, cases = read_json(run_folder / "metrics.json"), read_rows(run_folder / "tables/test_cases.csv")
    windows = {row.get("organelle"): row for row in read_rows(run_folder / "tables/test_windows.csv")}
    result = []
    columns = [*metrics, *(f"test/{column}" for row in cases[:1] for column in row)]
    for name in scored(columns, "test/dice_"):
        over_cases = spread(number(row.get(f"dice_{name}")) for row in cases)
        dice = number(metrics.get(f"test/dice_{name}"))
        dice = dice if math.isfinite(dice) else over_cases.mean
        if not math.isfinite(dice):
            continue
        window = windows.get(name, {})
        baseline = number(window.get("dice"))
        result.append(
            {
                "name": name,
                "colour": COLOURS.get(name, OTHER_COLOUR),
                "dice": shown(dice),
                "percent": _percent(dice),
                "spread": over_cases,
                "cells": [shown(v) for v in (over_cases.mean, over_cases.sd, over_cases.minimum, over_cases.q1)]
                + [shown(v) for v in (over_cases.median, over_cases.q3, over_cases.maximum)],
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
    if math.isinf(low) or math.isinf(high):
        return (
            "any RI"
            if math.isinf(low) and math.isinf(high)
            else f"RI < {high:.4f}"
            if math.isinf(low)
            else f"RI ≥ {low:.4f}"
        )
    return f"RI {low:.4f}–{high:.4f}"


def learning(run_folder: Path) -> dict[str, Any] | None:
    """How long was trained, and the best epoch by the validation score."""
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


def score_table(rows: list[Row], first: Iterable[str]) -> dict[str, Any] | None:
    """A table of Dice by case or by group, its columns in the order of the organelles."""
    if not rows:
        return None
    scores = [f"dice_{name}" for name in scored(column for row in rows for column in row)]
    labels = [name for name in first if any(name in row for row in rows)]
    return {
        "labels": labels,
        "scores": [name.removeprefix("dice_") for name in scores],
        "rows": [([row.get(n, "") for n in labels], [shown(row.get(n)) for n in scores]) for row in rows],
    }


def predictions(run_folder: Path) -> dict[str, Any] | None:
    """One row a predicted frame: volume of each organelle in µm³, and where the masks lie."""
    rows = read_rows(run_folder / "tables/predictions.csv")
    frames: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        frames.setdefault((row.get("input", ""), row.get("frame", "")), {})[row.get("organelle", "")] = row
    if not frames:
        return None
    names = in_order(name for by_name in frames.values() for name in by_name)
    table = []
    for (source, frame), by_name in frames.items():
        output = next((row.get("output", "") for row in by_name.values()), "")
        table.append(
            {
                "input": source.replace("\\", "/").rsplit("/", 1)[-1],
                "path": source,
                "frame": frame,
                "volumes": [shown_volume(by_name.get(name, {}).get("volume_um3")) for name in names],
                "output": output,
                "outside": next((row.get("outside_training", "") for row in by_name.values()), ""),
                "href": link(run_folder, output),
            }
        )
    return {"organelles": names, "rows": table}


def link(run_folder: Path, target: str) -> str:
    """A link from the report to a file of the run folder or its predictions; empty for one elsewhere or not there."""
    if not target or "\0" in target:
        return ""
    root = run_folder.resolve()
    for candidate in (root / target, root / "predictions" / target):
        try:
            path = candidate.resolve()
            if path.is_relative_to(root) and path.exists():
                return "./" + quote(path.relative_to(root).as_posix())
        except OSError:
            continue
    return ""


def flattened(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as (dotted key, text) pairs, for a table."""
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
    """Every file with its size and a link. A Zarr store is one entry; symbolic links are not followed."""
    found: list[tuple[str, int]] = []
    for folder, folders, files in os.walk(run_folder):
        here = Path(folder)
        stores = [name for name in folders if name.endswith(".zarr")]
        found += [(_relative(here / name, run_folder) + "/", _tree_size(here / name)) for name in stores]
        folders[:] = sorted(name for name in folders if name not in stores and not name.startswith("."))
        paths = [here / name for name in files if not name.startswith(".") and name != "report.html"]
        found += [
            (_relative(path, run_folder), path.stat().st_size)
            for path in paths
            if path.is_file() and not path.is_symlink()
        ]
    found.sort(key=lambda entry: (entry[0].count("/") > 0, entry[0]))
    entries = [{"name": name, "href": "./" + quote(name), "size": _size(size)} for name, size in found[:MAX_FILES]]
    return {"entries": entries, "more": max(0, len(found) - MAX_FILES)}


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


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
    """Return a number of a table with so many decimals, or as volumes are shown; a dash where there is none."""
    value = number(text)
    if value != value:
        return "–"
    return shown_volume(value) if digits is None else f"{value:.{digits}f}"
