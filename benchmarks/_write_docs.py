"""Puts the figures of benchmarks/results/*.json between their marks in docs/*.md.

Run as ``python benchmarks/_write_docs.py`` after ``make bench`` on a quiet machine.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

from benchmarks import _gpu_tables
from benchmarks._common import show_others
from cytovox.io.atomic import atomic_path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
PAGES = (PAGE, *(HERE.parent / "docs" / name for name in ("cluster.md", "independent.md", "search.md")))
NOT_YET = "Not measured yet.\n"
MARKS = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def figures(result: dict[str, Any]) -> str:
    """Tables and the machine of one result as Markdown.

    Raises
    ------
    SystemExit
        The figures are of a quick run or of a crowded machine.
    """
    if result["quick"] or result["crowded"]:
        raise SystemExit(f"{result['benchmark']}: quick or crowded figures are not quoted: run it again, alone")
    machine, watch = result["machine"], result["watch"]
    bfloat16 = "with" if machine["cpu_bfloat16"] else "without"
    load = ", ".join(
        "unknown" if load is None else f"{load[0]:.2f}" for load in (watch["load_before"], watch["load_after"])
    )
    lines = [
        f"{machine['cpu']} ({machine['cpu_capability']}, {bfloat16} bfloat16 in hardware), {machine['cores']} cores, "
        f"{machine['threads']} threads, torch {machine['torch']}, MONAI {machine['monai']}; "
        f"{result['repeats']} rounds, {watch['seconds']:.0f} s, {result['measured'][:10]}; load average before and "
        f"after: {load}; {show_others(watch)}.",
    ]
    for table in result["tables"]:
        head = "| " + " | ".join(table["columns"]) + " |"
        rows = ["| " + " | ".join(row) + " |" for row in table["rows"]]
        lines += ["", f"**{table['title']}**", "", head, "|---" * len(table["columns"]) + "|", *rows]
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page with the figures of the results that there are."""

    def filled(found: re.Match[str]) -> str:
        if found[2] == "gpu":  # a file a part
            return f"{found[1]}{_gpu_tables.markdown(HERE / 'results' / 'gpu') or NOT_YET}{found[3]}"
        path = HERE / "results" / f"{found[2]}.json"
        inside = figures(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else NOT_YET
        return f"{found[1]}{inside}{found[3]}"

    return MARKS.sub(filled, text)


if __name__ == "__main__":
    for path in PAGES:
        written = page(path.read_text(encoding="utf-8"))
        with atomic_path(path) as temporary:
            Path(temporary).write_text(written, encoding="utf-8")
        sys.stdout.write(f"written: {path}\n")
