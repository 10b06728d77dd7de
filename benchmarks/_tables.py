"""The tables of `benchmarks/inference.py`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks._common import Table, ratio, show_ratio
from benchmarks._engine import Variant

#: (what is said, above, below): how many times longer `above` takes.
CLAIMS = (
    ("ours over MONAI in float32 (aim: 5)", "MONAI, float32", "ours"),
    ("ours over MONAI at equal precision and layout (aim: 1.5)", "MONAI, bfloat16", "ours"),
)
SHARES = (
    ("bfloat16 and channels_last_3d, in MONAI's engine", "MONAI, float32", "MONAI, bfloat16"),
    ("the network's forward pass", "MONAI, bfloat16", "MONAI, bfloat16, our forward pass"),
    ("stitching", "MONAI, bfloat16, our forward pass", "ours, batches of 4, nothing skipped"),
    ("batches of 2 instead of 4", "ours, batches of 4, nothing skipped", "ours, batches of 2, nothing skipped"),
    ("batches of 1 instead of 4", "ours, batches of 4, nothing skipped", "ours, batches of 1, nothing skipped"),
    ("skipping windows of nothing but medium", "ours, batches of 1, nothing skipped", "ours"),
    ("all but skipping, over MONAI in float32", "MONAI, float32", "ours, batches of 1, nothing skipped"),
    ("all but skipping, at equal precision and layout", "MONAI, bfloat16", "ours, batches of 1, nothing skipped"),
    ("float32 in both, nothing skipped", "MONAI, float32", "ours, float32, nothing skipped"),
    ("float32 in both", "MONAI, float32", "ours, float32"),
)


def seconds_of(task: Callable[[], Any]) -> tuple[float, float]:
    """As `benchmarks._engine.Run` tells them: all, and in the network."""
    begun = time.perf_counter()
    task()
    return time.perf_counter() - begun, 0.0


def speed_tables(
    fields: Sequence[str],
    ways: Mapping[str, Variant],
    rows: Mapping[str, Any],
    floors: Mapping[str, float],
    profiled: Mapping[tuple[str, str], float],
    ours: str = "ours",
) -> tuple[dict[str, Any], list[Table]]:
    """The ratios between ways that were measured, and the tables that show them; `ours` was profiled."""
    ratios: dict[str, Any] = {}
    tables = [_ways(field, ways, rows) for field in fields]
    claims = Table("How many times faster", ["what", *fields])
    for name, above, below in (*CLAIMS, *SHARES):
        if above not in ways or below not in ways:
            continue
        shown = []
        for field in fields:
            pair = [rows[f"{field}: {way}"]["seconds"] for way in (above, below)]
            value = ratios[f"{name}: {field}"] = ratio(*pair)
            shown.append(show_ratio(value))
        claims.rows.append([name, *shown])
    return ratios, [*tables, claims, _floor(fields, ways, rows, floors), _profile(fields[0], profiled, ours)]


def _ways(field: str, ways: Mapping[str, Variant], rows: Mapping[str, Any]) -> Table:
    about = rows[f"field: {field}"]
    title = f"{field}: {about['cells']} cells in {'x'.join(map(str, about['voxels']))} voxels"
    table = Table(
        title, ["way", "s", "in the network, s", "around it, s", "windows", "skipped, %", "Dice", "from first"]
    )
    first = rows[f"{field}: {next(iter(ways))}"]
    for way in ways:
        row = rows[f"{field}: {way}"]
        total, inside = median(row["seconds"]), median(row["in_network"])
        skipped = 100 * (1 - row["windows"] / first["windows"])
        times = [f"{total:.2f}", f"{inside:.2f}", f"{total - inside:.2f}"]
        dice = [f"{row['dice_mean']:.4f}", f"{row['dice_mean'] - first['dice_mean']:+.4f}"]
        table.rows.append([way, *times, str(row["windows"]), f"{skipped:.0f}", *dice])
    return table


def _floor(
    fields: Sequence[str], ways: Mapping[str, Variant], rows: Mapping[str, Any], floors: Mapping[str, float]
) -> Table:
    rates = rows["machine"]
    kinds = [kind for kind in ("bfloat16", "float32") if kind in rates]
    speeds = " and ".join(f"{rates[kind] / 1e9:.0f}" for kind in kinds)
    said = f"{speeds} GFLOP/s, {rates['bandwidth'] / 1e9:.0f} GB/s ({', '.join([*kinds, 'copying'])})"
    title = f"The floor: {rows['operations of a window'] / 1e9:.1f} GFLOP a window at {said}"
    columns = ["way", "floor a window, ms"]
    for field in fields:
        columns += [f"share of the floor in the network, % ({field})", f"in all, % ({field})"]
    table = Table(title, columns)
    for name, way in ways.items():
        floor, shown = floors["bfloat16" if way.mixed else "float32"], []
        for field in fields:
            row = rows[f"{field}: {name}"]
            for seconds in (median(row["in_network"]), median(row["seconds"])):
                shown.append(f"{100 * floor * row['windows'] / seconds:.0f}" if seconds else "")
        table.rows.append([name, f"{1e3 * floor:.1f}", *shown])
    return table


def _profile(field: str, profiled: Mapping[tuple[str, str], float], ours: str) -> Table:
    table = Table(
        f"Where the time of '{ours}' goes ({field}; one call under torch's profiler)", ["where", "what", "s", "%"]
    )
    total = sum(profiled.values())
    inside_first = sorted(profiled.items(), key=lambda item: (item[0][0] != "in the network", -item[1]))
    for (place, kind), seconds in inside_first:
        table.rows.append([place, kind, f"{seconds:.2f}", f"{100 * seconds / total:.1f}"])
    return table
