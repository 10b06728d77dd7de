"""Tables of the GPU benchmark: compact for a terminal, and as Markdown for the docs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks._gpu_card import datasheet
from benchmarks._gpu_common import read_json, result_of
from benchmarks._gpu_record import OK

Record = dict[str, Any]
Rows = list[list[str]]

#: Characters of a kernel's name that are printed, and kernels of each profile.
NAME, KERNELS = 44, 4
SHORT = {"channels_last": "last", "contiguous": "cont", "bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def number(value: float | None, digits: int = 3) -> str:
    """A number of so many significant digits, without an exponent; a dash for None."""
    if value is None:
        return "-"
    if value != value or abs(value) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    return f"{value:.{digits}g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.1e}"


def share(value: float, whole: float | None) -> float | None:
    """A value as a part of another; None where that is not known."""
    return None if whole is None else value / whole


def percent(value: float | None) -> str:
    """A share in percent; a dash for None."""
    return "-" if value is None else f"{100 * value:.1f}"


def spread_of(record: Record) -> str:
    """The median in milliseconds, and how far any repeat was from it, such as `12.3 ±5%`."""
    median = record["median_ms"]
    most = max(median - record["low_ms"], record["high_ms"] - median)
    return f"{number(median)} ±{100 * most / median:.0f}%"


def _words(record: Record, *keys: str) -> list[str]:
    return [SHORT.get(str(record.get(key)), str(record.get(key, "-"))) for key in keys]


def _utilisation(record: Record) -> list[str]:
    """Share of the measured rate of matrix products, and of the datasheet's, in percent."""
    return [percent(record["mfu"]), percent(record["of_datasheet"])]


def _memory(record: Record) -> str:
    if record.get("allocated_mb") is None:
        return "-"
    return f"{record['allocated_mb'] / 1e3:.1f}/{record['reserved_mb'] / 1e3:.1f}"


def ceilings(records: Sequence[Record], card: Record) -> list[tuple[str, list[str], Rows]]:
    """Return the peak rates of the card, with those of its datasheet."""
    sheet, rows = datasheet(str(card.get("device"))), []
    for record in records:
        unit = "TFLOP/s" if "tflop_per_s" in record else "us each" if "us_each" in record else "GB/s"
        value = record.get("tflop_per_s") or record.get("us_each") or record.get("gb_per_s")
        rows.append([record["name"], number(value), unit, number(sheet.get(str(record.get("rate_of"))))])
    return [("Ceilings", ["what", "measured", "unit", "datasheet"], rows)]


def inference(records: Sequence[Record], _: Record) -> list[tuple[str, list[str], Rows]]:
    """The network alone, then whole tomograms."""
    engine = next((record for record in records if record.get("kind") == "engine"), {})
    alone = [
        [*_words(record, "precision", "layout", "mode", "batch"), number(record["ms_a_window"]), spread_of(record),
         number(record["tflop_per_s"]), *_utilisation(record), _memory(record)]
        for record in records if record.get("kind") == "network"
    ]  # fmt: skip
    whole = [
        [*_words(record, "engine", "precision", "layout", "mode", "batch"), _notes(record),
         number(record["seconds_a_tomogram"]), f"{number(record['low_ms'] / 1e3)}-{number(record['high_ms'] / 1e3)}",
         number(record.get("most"), 2), _least(record.get("dice")), _memory(record)]
        for record in records if record.get("kind") == "tomogram"
    ]  # fmt: skip
    title = f"A tomogram ({engine['windows']} windows)" if engine else "A tomogram"
    return [
        (
            "The network alone",
            ["precision", "layout", "mode", "b", "ms/window", "ms", "TFLOP/s", "MFU %", "sheet %", "GB"],
            alone,
        ),
        (title, ["engine", "precision", "layout", "mode", "b", "", "s", "range", "diff", "Dice", "GB"], whole),
    ]


def _notes(record: Record) -> str:
    notes = ["skip"] if record.get("skip_below") is not None else []
    return " ".join(notes + ([str(record["stitch"])] if record.get("stitch") else []))


def _least(dice: list[float | None] | None) -> str:
    known = [value for value in dice or [] if value is not None]
    return f"{min(known):.4f}" if known else "-"


def training(records: Sequence[Record], _: Record) -> list[tuple[str, list[str], Rows]]:
    """Steps by config, and the trainer's loop."""
    steps = [
        [record["config"] + (" 2nd" if record["second_stage"] else ""),
         *_words(record, "precision", "layout", "mode", "batch"), spread_of(record), number(record["samples_per_s"]),
         number(record["tflop_per_s"]), *_utilisation(record), _memory(record)]
        for record in records if record.get("kind") == "step"
    ]  # fmt: skip
    loops = [
        [record["config"], "with" if record["averaged_weights"] else "without", number(record["ms_a_step"]),
         number(record["bare"]["median_ms"]), number(record["ms_of_the_loop"])]
        for record in records if record.get("kind") == "loop"
    ]  # fmt: skip
    heads = ["config", "precision", "layout", "mode", "b", "ms", "samples/s", "TFLOP/s", "MFU %", "sheet %", "GB"]
    return [
        ("A training step", heads, steps),
        ("Through the trainer", ["config", "averaged weights", "ms/step", "bare", "loop adds"], loops),
    ]


def profiles(records: Sequence[Record], _: Record) -> list[tuple[str, list[str], Rows]]:
    """The longest kernels of each."""
    rows: Rows = []
    for record in records:
        head = (
            f"{number(record['median_ms'])} ms, {record['launches']} launches, busy {percent(record['device_busy'])} %"
        )
        rows.append([f"{record['name']}: {head}", "", ""])
        rows += [
            [f"  {kernel['kernel'][:NAME]}", str(kernel["calls"]), percent(kernel["share"])]
            for kernel in record["kernels"][:KERNELS]
        ]
    return [("Kernels by device time", ["kernel", "calls", "%"], rows)]


def shapes(records: Sequence[Record], _: Record) -> list[tuple[str, list[str], Rows]]:
    """Shapes a second, and DISPR's evaluations."""
    drawn = [
        [str(record["kind"]), *_words(record, "precision", "batch"), spread_of(record), number(record["shapes_per_s"]),
         _memory(record)]
        for record in records if record.get("kind") in ("whole", "sampler")
    ]  # fmt: skip
    evaluated = [
        [*_words(record, "precision", "mode", "batch"), spread_of(record), number(record["ms_a_sample"]),
         number(record["seconds_a_shape"]), _memory(record)]
        for record in records if record.get("kind") == "evaluation"
    ]  # fmt: skip
    return [
        ("shape_rbc", ["path", "precision", "b", "ms", "shapes/s", "GB"], drawn),
        ("DISPR", ["precision", "mode", "b", "ms", "ms/sample", "s/shape of 1000 steps", "GB"], evaluated),
    ]


def analyses(records: Sequence[Record], _: Record) -> list[tuple[str, list[str], Rows]]:
    """Seconds a frame."""
    rows = [
        [record["method"], number(record["seconds_a_frame"]), f"{record['cells_device']} {record['cells_precision']}",
         ", ".join(f"{name} {number(spent)}" for name, spent in record["stages_s_a_frame"].items())]
        for record in records if record.get("kind") == "analyze"
    ]  # fmt: skip
    return [("analyze", ["method", "s/frame", "cells on", "stages, s/frame"], rows)]


def ddp(records: Sequence[Record], _: Record) -> list[tuple[str, list[str], Rows]]:
    """Steps with and without DDP."""
    bare = {record["batches"]: record["median_ms"] for record in records if not record.get("wrapped")}
    rows = [
        ["DDP" if record["wrapped"] else "bare", str(record["batches"]), spread_of(record),
         number(record["ms_a_batch"]),
         number(share(record["median_ms"], bare.get(record["batches"])))]
        for record in records
    ]  # fmt: skip
    return [("DDP and accumulation", ["", "batches", "ms/step", "ms/batch", "over bare"], rows)]


def memory(records: Sequence[Record], _: Record) -> list[tuple[str, list[str], Rows]]:
    """What the engine does in too little memory."""
    rows = [
        [str(record["limit_mb"]), str(record["finished"]), number(record.get("seconds_a_tomogram")),
         _least(record.get("dice")), "; ".join(record.get("reported", [])) or str(record.get("engine_error", "-"))]
        for record in records
    ]  # fmt: skip
    return [("512 windows a batch in little memory", ["limit, MB", "finished", "s", "Dice", "reported"], rows)]


Tables = Callable[[Sequence[Record], Record], list[tuple[str, list[str], Rows]]]

#: Tables of each part.
PARTS_SHOWN: dict[str, Tables] = {
    "ceilings": ceilings,
    "inference": inference,
    "published": inference,
    "training": training,
    "profile": profiles,
    "shapes": shapes,
    "analyze": analyses,
    "ddp": ddp,
    "memory": memory,
}


def tables_of(out: Path, part: str) -> tuple[dict[str, Any], list[tuple[str, list[str], Rows]]]:
    """Result and tables of a part, those without a row left out; an empty result where there is none."""
    result = read_json(result_of(out, part))
    if not result:
        return {}, []
    good = [record for record in result["records"] if record["status"] == OK]
    found = PARTS_SHOWN[part](good, result["card"])
    lacking: dict[tuple[str, str], list[str]] = {}
    for record in result["records"]:
        if record["status"] != OK:
            lacking.setdefault((record["status"], str(record.get("error"))), []).append(record["name"])
    rest = [["; ".join(names), status, error] for (status, error), names in lacking.items()]
    return result, [table for table in [*found, ("Without a figure", ["what", "", "why"], rest)] if table[2]]


def show_tables(out: Path, parts: Sequence[str]) -> None:
    """Print the tables of the parts that are there."""
    for part in parts:
        result, tables = tables_of(out, part)
        if not result:
            print(f"\n== {part}: not measured")
            continue
        quick = ", A QUICK RUN: NO FIGURES" if result["quick"] else ""
        print(f"\n== {part} on {result['card']['device']}: {result['status']}, {result['seconds']} s{quick}")
        for title, heads, rows in tables:
            print(f"-- {title}")
            widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
            if part == "profile":
                widths[0] = NAME + 2
            for row in [heads, *rows]:
                print(" ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def markdown(out: Path) -> str:
    """All parts for the docs: the card, the tables, and what has no figure.

    Raises
    ------
    SystemExit
        A result is of a quick run.
    """
    lines: list[str] = []
    for part in PARTS_SHOWN:
        result, tables = tables_of(out, part)
        if not result:
            continue
        if result["quick"]:
            raise SystemExit(f"gpu: {part}: quick figures are not quoted: run it again on a GPU")
        card = result["card"]
        lines += [""] if lines else []
        lines.append(
            f"**{part}**: {card['device']} (compute capability {card['compute_capability']}, {card['memory_gb']} GB), "
            f"driver {card['driver']}, CUDA {card['cuda']}, cuDNN {card['cudnn']}, torch {card['torch']}, "
            f"MONAI {card['monai']}; {result['measured'][:10]}."
        )
        for title, heads, rows in tables:
            lines += ["", f"*{title}*", "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
            lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n" if lines else ""
