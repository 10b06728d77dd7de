"""What the benchmarks share: how they are timed, what is said of the machine, how figures are printed and kept.

``benchmarks/__init__.py`` explains how a script finds this module and our packages.
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
from typing import Any, TypeVar

import monai
import torch
from rich.console import Console
from rich.table import Table as RichTable

from cytovox.inference.device import cpu_has_bfloat16
from cytovox.io.atomic import atomic_path
from training.environment import describe_device

RESULTS = Path(__file__).resolve().parent / "results"

#: Cores that other processes may take while we measure: above this the figures are of the crowd, not of the code.
CROWDED = 0.1
#: A crowded round is done again; in all, so many rounds for each that was asked for.
PATIENCE = 4

T = TypeVar("T")


def options(
    name: str, claim: str, repeats: int, more: Callable[[argparse.ArgumentParser], object] | None = None
) -> argparse.Namespace:
    """The command line that every benchmark has.

    Parameters
    ----------
    name : str
        Of the script; names the JSON file.
    claim : str
        What is measured, for ``--help``.
    repeats : int
        Default of ``--repeats``.
    more : callable, optional
        Adds the script's own options.
    """
    parser = argparse.ArgumentParser(prog=f"benchmarks/{name}.py", description=claim)
    parser.add_argument("--repeats", type=int, default=repeats, help=f"rounds over all candidates ({repeats})")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; its figures say nothing")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json", help="where the JSON is written")
    if more is not None:
        more(parser)
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats: expected 1 or more")
    arguments.name = name
    return arguments


@dataclass
class Table:
    """A printed table; the JSON keeps it so that the docs show the very same figures."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)


@dataclass
class Watch:
    """How busy the machine was, and how much of that was not us. Use as a context around all rounds."""

    load_before: list[float] | None = None
    load_after: list[float] | None = None
    seconds: float = 0.0
    other_cores: list[float | None] = field(default_factory=list)
    """Of each round that counts: how many cores other processes kept busy; None where the system does not tell."""
    dropped: int = 0
    """Rounds that were done again, because others took more than `CROWDED` cores in them."""

    def __enter__(self) -> Watch:
        self.load_before, self._begun = _load(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.load_after, self.seconds = _load(), time.perf_counter() - self._begun

    @property
    def crowded(self) -> bool:
        """Whether other processes took so much that the figures should not be quoted."""
        return any(cores is None or cores > CROWDED for cores in self.other_cores)


def say(text: str) -> None:
    """Progress, at once and on stderr: the tables come at the end."""
    print(text, file=sys.stderr, flush=True)


def without_bfloat16() -> bool:
    """Whether bfloat16 is left out here, which is said: without instructions for it a product takes up to 100 times."""
    if cpu_has_bfloat16():
        return False
    say("note: this processor has no instructions for bfloat16: what would be measured in it is left out")
    return True


def quiet_rounds(arguments: argparse.Namespace, watch: Watch, play: Callable[[], T], warm: bool = True) -> list[T]:
    """Return the result of each of ``--repeats`` rounds; a round during which other processes were busy is repeated.

    A round is judged by what others did in it, never by its own times.

    Parameters
    ----------
    arguments : Namespace
        From `options`. A quick run takes every round as it is.
    watch : Watch
        Learns how busy the rounds were.
    play : callable
        One round over all candidates.
    warm : bool
        Play one round before, which does not count: first calls allocate and choose kernels.
    """
    results: list[T] = []
    if warm and not arguments.quick:
        say(f"{arguments.name}: a round that does not count")
        play()
    while len(results) < arguments.repeats:
        begun = time.perf_counter()
        result, others = _beside_others(play)
        say(f"{arguments.name}: round {len(results) + watch.dropped + 1}, {time.perf_counter() - begun:.1f} s")
        if (
            others is not None
            and others > CROWDED
            and not arguments.quick
            and watch.dropped < PATIENCE * arguments.repeats
        ):
            watch.dropped += 1
            continue
        results.append(result)
        watch.other_cores.append(others)
    return results


def watched(watch: Watch, task: Callable[[], T]) -> T:
    """Return the result of a task that takes too long to be repeated, and record how busy other processes were."""
    result, others = _beside_others(task)
    watch.other_cores.append(others)
    return result


def _beside_others(task: Callable[[], T]) -> tuple[T, float | None]:
    """What a task gives, and how many cores others kept busy meanwhile; None where the system does not tell."""
    begun, busy, own = time.perf_counter(), _busy_seconds(), _own_seconds()
    result = task()
    gc.collect()  # loader processes count as ours once they have ended
    if busy is None or (now := _busy_seconds()) is None:
        return result, None
    return result, max(0.0, (now - busy - (_own_seconds() - own)) / (time.perf_counter() - begun))


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


def interleaved(
    arguments: argparse.Namespace, watch: Watch, tasks: Mapping[str, Callable[[], Any]]
) -> dict[str, list[float]]:
    """Seconds of each task in each round: every round runs all of them in turn, so that a slow minute hits all.

    Parameters
    ----------
    arguments, watch
        As in `quiet_rounds`.
    tasks : mapping of names to callables
        What is timed.
    """

    def play() -> dict[str, float]:
        return {name: _seconds(task) for name, task in tasks.items()}

    rounds = quiet_rounds(arguments, watch, play)
    return {name: [seconds[name] for seconds in rounds] for name in tasks}


def _seconds(task: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    task()
    return time.perf_counter() - begun


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


def show_others(watch: Mapping[str, Any]) -> str:
    """Such as ``others kept at most 0.03 cores busy; 2 crowded rounds were done again``."""
    known = [cores for cores in watch["other_cores"] if cores is not None]
    most = f"{max(known):.2f}" if known else "an unknown number of"
    return f"others kept at most {most} cores busy; {watch['dropped']} crowded rounds were done again"


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
    arguments: argparse.Namespace, rows: dict[str, Any], ratios: dict[str, Any], tables: list[Table], watch: Watch
) -> None:
    """Print the tables and write the JSON, whole or not at all.

    Parameters
    ----------
    arguments : Namespace
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
    console.print(f"load {watch.load_before} before, {watch.load_after} after; {show_others(asdict(watch))}")
    if arguments.quick or watch.crowded:
        reason = "a quick run" if arguments.quick else "other processes were busy"
        console.print(f"[bold red]{reason}: do not quote these figures[/bold red]")
    result = {
        "benchmark": arguments.name,
        "measured": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "quick": arguments.quick,
        "crowded": watch.crowded,
        "repeats": arguments.repeats,
        "machine": machine,
        "watch": asdict(watch),
        "rows": rows,
        "ratios": ratios,
        "tables": [asdict(table) for table in tables],
    }
    with atomic_path(arguments.out) as temporary:
        Path(temporary).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    console.print(f"written: {arguments.out}", soft_wrap=True)
