"""What the benchmarks share: how they are timed, what is said of the machine, how figures are printed and kept.

A script run as ``python benchmarks/name.py`` finds this module beside it. For the same reason no script may bear the
name of a package: ``benchmarks/networks.py`` would hide `networks`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import monai
import torch
from rich.console import Console
from rich.table import Table as RichTable

from formats.atomic import atomic_path
from training.device import cpu_has_bfloat16
from training.environment import describe_device

RESULTS = Path(__file__).resolve().parent / "results"

#: Cores that other processes may take while we measure: above this the figures are of the crowd, not of the code.
CROWDED = 0.1


def options(name: str, claim: str, repeats: int) -> argparse.Namespace:
    """The command line that every benchmark has.

    Parameters
    ----------
    name : str
        Of the script; names the JSON file.
    claim : str
        What is measured, for ``--help``.
    repeats : int
        Default of ``--repeats``.
    """
    parser = argparse.ArgumentParser(prog=f"benchmarks/{name}.py", description=claim)
    parser.add_argument("--repeats", type=int, default=repeats, help=f"rounds over all candidates ({repeats})")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; its figures say nothing")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json", help="where the JSON is written")
    told = parser.parse_args()
    if told.repeats < 1:
        parser.error("--repeats: expected 1 or more")
    told.name = name
    return told


@dataclass
class Table:
    """A printed table; the JSON keeps it so that the docs show the very same figures."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)


@dataclass
class Watch:
    """How busy the machine was, and how much of that was not us. Use as a context around what is timed."""

    load_before: list[float] | None = None
    load_after: list[float] | None = None
    other_cores: float | None = None
    """Mean number of cores that other processes kept busy; None where the system does not tell."""
    seconds: float = 0.0

    def __enter__(self) -> Watch:
        self.load_before = _load()
        self._begun, self._busy, self._own = time.perf_counter(), _busy_seconds(), _own_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        gc.collect()  # loader processes count as ours once they have ended
        self.seconds = time.perf_counter() - self._begun
        busy = _busy_seconds()
        if busy is not None and self._busy is not None:
            self.other_cores = max(0.0, (busy - self._busy - (_own_seconds() - self._own)) / self.seconds)
        self.load_after = _load()

    @property
    def crowded(self) -> bool:
        """Whether other processes took so much that the figures should not be quoted."""
        return self.other_cores is not None and self.other_cores > CROWDED


def _load() -> list[float] | None:
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def _busy_seconds() -> float | None:
    """CPU seconds of all processes since the start of the machine, and what its host took away."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, stat.read_text().splitlines()[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    return sum(os.times()[:4])


def interleaved(tasks: Mapping[str, Callable[[], Any]], repeats: int, warm: bool = True) -> dict[str, list[float]]:
    """Seconds of each task in each round: every round runs all of them in turn, so that a slow minute hits all.

    Parameters
    ----------
    tasks : mapping of names to callables
        What is timed.
    repeats : int
        Rounds.
    warm : bool
        Run each once before, untimed: first calls allocate and choose kernels.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for round_ in range(-1 if warm else 0, repeats):
        for name, task in tasks.items():
            begun = time.perf_counter()
            task()
            if round_ >= 0:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """How many times larger one series is than another: of the medians, and the range over the rounds."""
    rounds = [a / b for a, b in zip(above, below, strict=True)]
    return {
        "of_medians": statistics.median(above) / statistics.median(below),
        "low": min(rounds),
        "high": max(rounds),
    }


def show_ratio(value: Mapping[str, float]) -> str:
    """Such as ``5.2 (5.0 to 5.3)``."""
    return f"{value['of_medians']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def describe_machine() -> dict[str, Any]:
    """Processor, threads and versions."""
    return {
        **describe_device(),
        "cores": os.cpu_count(),
        "cpu_bfloat16": cpu_has_bfloat16(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "monai": monai.__version__,
    }


def finish(
    told: argparse.Namespace, rows: dict[str, Any], ratios: dict[str, Any], tables: list[Table], watch: Watch
) -> None:
    """Print the tables and write the JSON, whole or not at all.

    Parameters
    ----------
    told : Namespace
        From `options`.
    rows : dict
        Figures by the name of what was measured.
    ratios : dict
        The claims: see `ratio`.
    tables : list of Table
        What a reader sees.
    watch : Watch
        Of the timed part.
    """
    machine = describe_machine()
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, torch {machine['torch']}")
    for table in tables:
        shown = RichTable(*table.columns, title=table.title)
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    others = "unknown" if watch.other_cores is None else f"{watch.other_cores:.2f}"
    console.print(f"load {watch.load_before} before, {watch.load_after} after; cores kept busy by others: {others}")
    if told.quick or watch.crowded:
        reason = "a quick run" if told.quick else "other processes were busy"
        console.print(f"[bold red]{reason}: do not quote these figures[/bold red]")
    result = {
        "benchmark": told.name,
        "measured": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "quick": told.quick,
        "crowded": watch.crowded,
        "repeats": told.repeats,
        "machine": machine,
        "watch": asdict(watch),
        "rows": rows,
        "ratios": ratios,
        "tables": [asdict(table) for table in tables],
    }
    with atomic_path(told.out) as temporary:
        Path(temporary).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    console.print(f"written: {told.out}", soft_wrap=True)
