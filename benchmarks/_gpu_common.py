"""What the parts of the GPU benchmark share: precisions, timing, peak memory, and records that survive an interruption.

A part is a function of a `Recorder`. It calls `Recorder.measure` for one figure, or `Recorder.interleave` for several
that are compared with each other. A figure that fails is recorded with its error in one line, and the others go on.
"""

from __future__ import annotations

import gc
import json
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks._gpu_card import datasheet
from formats.atomic import atomic_path

#: Precision of a record to the type that autocast computes in, and whether float32 products may use TF32.
PRECISIONS: dict[str, tuple[torch.dtype | None, bool]] = {
    "float32": (None, False),
    "tf32": (None, True),
    "float16": (torch.float16, True),
    "bfloat16": (torch.bfloat16, True),
}
#: The same in Lightning's words.
LIGHTNING = {"float32": "32-true", "tf32": "32-true", "float16": "16-mixed", "bfloat16": "bf16-mixed"}
LAST = torch.channels_last_3d

#: A record holds figures, an error in one line, or why nothing was measured.
OK, FAILED, SKIPPED = "ok", "failed", "not measured"
OUT_OF_TIME = "out of time"

#: Words of an error after which CUDA refuses all further work of the process.
FATAL = ("illegal memory access", "device-side assert", "unspecified launch failure", "misaligned address")


class PartAborted(RuntimeError):
    """The device accepts no further work from this process."""


class NotHere(RuntimeError):
    """A figure that this machine or this version of the package cannot have; the text says why."""


@dataclass(frozen=True)
class Settings:
    """What all parts are given."""

    device: str
    """`cuda` or `cpu`."""
    quick: bool
    """Tiny sizes and one repeat, to see that everything runs."""
    out: Path
    """Folder of the results."""
    card: str = ""
    """Name of the device."""

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a CUDA device."""
        return self.device == "cuda"


def layout_word(channels_last: bool) -> str:
    """`channels_last` or `contiguous`, as records have it."""
    return "channels_last" if channels_last else "contiguous"


def autocast_of(device: str, precision: str) -> AbstractContextManager:
    """The autocast context of a precision; none for float32 and TF32."""
    dtype = PRECISIONS[precision][0]
    return nullcontext() if dtype is None else torch.autocast(device, dtype=dtype)


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Let float32 products of matrices and convolutions use TF32, or not, for the time of the context."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark)
    tf32 = PRECISIONS[precision][1]
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = tf32, tf32, True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


def synchronise(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(task: Callable[[], Any], device: str) -> float:
    """Wall-clock seconds of one call, the work that it queued on the device included."""
    synchronise(device)
    begun = time.perf_counter()
    task()
    synchronise(device)
    return time.perf_counter() - begun


def repeated(task: Callable[[], Any], settings: Settings, budget_s: float = 0.6, most: int = 30) -> list[float]:
    """Seconds of some calls after warm-up calls that do not count.

    Parameters
    ----------
    task : callable
        What is timed.
    settings : Settings
        A quick run calls it once, without a warm-up.
    budget_s : float
        About how long the counted calls may take; three calls are made in any case.
    most : int
        Calls at most.
    """
    if settings.quick:
        return [seconds_of(task, settings.device)]
    seconds_of(task, settings.device)  # the first call chooses kernels and allocates
    rough = seconds_of(task, settings.device)
    calls = max(3, min(most, int(budget_s / max(rough, 1e-6))))
    return [seconds_of(task, settings.device) for _ in range(calls)]


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Median, least and largest in milliseconds, and the number of repeats."""
    return {
        "median_ms": 1e3 * statistics.median(seconds),
        "low_ms": 1e3 * min(seconds),
        "high_ms": 1e3 * max(seconds),
        "repeats": len(seconds),
    }


@contextmanager
def peak_memory(settings: Settings) -> Iterator[dict[str, Any]]:
    """A dict that holds, when the context has ended, the device's peak memory in MB beyond what was in use before.

    The values are None on a CPU.
    """
    found: dict[str, Any] = {"allocated_mb": None, "reserved_mb": None}
    if not settings.on_gpu:
        yield found
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = (torch.cuda.memory_allocated(), torch.cuda.memory_reserved())
    yield found
    torch.cuda.synchronize()
    found["allocated_mb"] = (torch.cuda.max_memory_allocated() - before[0]) / 1e6
    found["reserved_mb"] = (torch.cuda.max_memory_reserved() - before[1]) / 1e6


def free_memory(settings: Settings) -> None:
    """Give back what the last figure kept on the device, compiled code included."""
    torch.compiler.reset()
    gc.collect()
    if settings.on_gpu:
        torch.cuda.empty_cache()


def one_line(error: BaseException) -> str:
    """An exception in one line: out of memory, or its type and the first line of its text."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "out of memory"
    if isinstance(error, NotHere):
        return str(error)
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}"[:240].rstrip(": ")


@contextmanager
def log_lines() -> Iterator[list[str]]:
    """A list of the first line of every message of Python's `logging` in the context, from INFO upwards."""
    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage().split("\n", 1)[0])

    root, handler = logging.getLogger(), Collect(logging.INFO)
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


@dataclass
class Candidate:
    """One of several figures that are compared with each other."""

    name: str
    prepare: Callable[[], Callable[[], Any]]
    """Builds what is timed; called once."""
    labels: dict[str, Any] = field(default_factory=dict)
    """Precision, layout, mode and batch of the record."""
    figures: Callable[[float, Any], dict[str, Any]] | None = None
    """From the median in seconds and what the last call returned to further figures of the record."""
    needs_s: float = 10.0
    """Seconds that must be left for it to begin."""


@dataclass
class Recorder:
    """The records of one part, written to its journal as they come.

    Parameters
    ----------
    part : str
        Name of the part.
    settings : Settings
        Of the run.
    deadline : float
        `time.monotonic()` after which no further figure begins.
    kept : list of dict
        Records of an earlier run that are not measured again.
    begun : float
        `time.monotonic()` at the start of the run, for progress lines.
    """

    part: str
    settings: Settings
    deadline: float
    kept: list[dict[str, Any]] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.records: list[dict[str, Any]] = list(self.kept)
        self._write(None)

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def has(self, name: str) -> bool:
        """Whether there is a figure, or an error, of this name."""
        return any(record["name"] == name and record["status"] != SKIPPED for record in self.records)

    def say(self, text: str) -> None:
        """Print a progress line with the time since the start of the run."""
        print(f"[{time.monotonic() - self.begun:6.1f} s] {self.part}: {text}", flush=True)

    def skip(self, name: str, reason: str, **labels: Any) -> None:
        """Record that something is not measured, and why."""
        self.add({"name": name, "status": SKIPPED, "error": reason, **labels})

    def add(self, record: Mapping[str, Any]) -> None:
        """Keep a record in place of an earlier one of its name; the journal is written anew."""
        self.records = [one for one in self.records if one["name"] != record["name"]]
        self.records.append(dict(record))
        self._write(None)

    def measure(
        self, name: str, task: Callable[[], dict[str, Any]], needs_s: float = 5.0, **labels: Any
    ) -> dict[str, Any] | None:
        """Record the figures that a task returns; None where it fails or no time is left.

        Parameters
        ----------
        name : str
            Of the record, unique in its part.
        task : callable
            Returns the figures.
        needs_s : float
            Seconds that must be left for it to begin.
        **labels
            Precision, layout, mode and batch of the record.

        Raises
        ------
        PartAborted
            The device accepts no further work.
        """
        if self.has(name):
            return next(record for record in self.records if record["name"] == name)
        if not self._may_begin(name, needs_s, labels):
            return None
        try:
            with peak_memory(self.settings) as peak:
                figures = task()
        except Exception as error:  # any failure is a result of the benchmark, and the others go on
            self._fail(name, error, labels)
            return None
        finally:
            free_memory(self.settings)
        self.add({"name": name, "status": OK, **labels, **peak, **figures})
        return self.records[-1]

    def interleave(self, candidates: Sequence[Candidate], budget_s: float, most: int = 5) -> None:
        """Record several figures, each timed in every round, so that a slow minute concerns all of them.

        Parameters
        ----------
        candidates : sequence of Candidate
            Those that are recorded already are left out.
        budget_s : float
            About how long the counted rounds may take; one round is played in any case.
        most : int
            Rounds at most.
        """
        ready: list[tuple[Candidate, Callable[[], Any], float, dict[str, Any]]] = []
        for candidate in candidates:
            if self.has(candidate.name) or not self._may_begin(candidate.name, candidate.needs_s, candidate.labels):
                continue
            try:
                with peak_memory(self.settings) as peak:
                    task = candidate.prepare()
                    first = seconds_of(task, self.settings.device)
                again = first if self.settings.quick else seconds_of(task, self.settings.device)
            except Exception as error:  # as in `measure`
                self._fail(candidate.name, error, candidate.labels)
                continue
            ready.append((candidate, task, again, {**peak, "first_call_ms": 1e3 * first}))
        rounds = max(1, min(most, int(min(budget_s, max(self.left_s, 0)) / max(sum(r[2] for r in ready), 1e-6))))
        self._play(ready, 1 if self.settings.quick else rounds)
        free_memory(self.settings)

    def _play(self, ready: list[tuple[Candidate, Callable[[], Any], float, dict[str, Any]]], rounds: int) -> None:
        """Time what is ready, round after round; a candidate that fails takes no further part."""
        seconds: dict[str, list[float]] = {candidate.name: [] for candidate, *_ in ready}
        results: dict[str, Any] = {}
        for _ in range(rounds):
            for candidate, task, _, _ in ready:
                if candidate.name in results and results[candidate.name] is FAILED:
                    continue

                def call(candidate: Candidate = candidate, task: Callable[[], Any] = task) -> None:
                    results[candidate.name] = task()

                try:
                    results.pop(candidate.name, None)
                    seconds[candidate.name].append(seconds_of(call, self.settings.device))
                except Exception as error:  # as in `measure`
                    results[candidate.name] = FAILED
                    self._fail(candidate.name, error, candidate.labels)
        for candidate, _, _, peak in ready:
            result = results.pop(candidate.name)
            if result is FAILED:
                continue
            timed = spread(seconds[candidate.name])
            more = candidate.figures(timed["median_ms"] / 1e3, result) if candidate.figures else {}
            self.add({"name": candidate.name, "status": OK, **candidate.labels, **timed, **peak, **more})

    def _may_begin(self, name: str, needs_s: float, labels: dict[str, Any]) -> bool:
        if not self.settings.quick and self.left_s < needs_s:
            self.skip(name, OUT_OF_TIME, **labels)
            return False
        if not self.settings.on_gpu and labels.get("precision") == "float16" and labels.get("kind") != "step":
            self.skip(name, "CPUs compute float16 too slowly", **labels)
            return False
        self.say(name)
        self._write({"name": name, **labels})
        return True

    def _fail(self, name: str, error: Exception, labels: dict[str, Any]) -> None:
        text = one_line(error)
        status = SKIPPED if isinstance(error, NotHere) else FAILED
        self.say(f"{name}: {status}: {text}")
        self.add({"name": name, "status": status, "error": text, **labels})
        if any(word in str(error) for word in FATAL):
            raise PartAborted(text) from error

    def _write(self, running: dict[str, Any] | None) -> None:
        write_json(journal_of(self.settings.out, self.part), {"records": self.records, "running": running})


def journal_of(out: Path, part: str) -> Path:
    """File of a part that has not ended."""
    return out / f"{part}.partial.json"


def result_of(out: Path, part: str) -> Path:
    """File of a part that has ended."""
    return out / f"{part}.json"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file; empty where there is none, or where it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    with atomic_path(path) as temporary:
        Path(temporary).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def rates_of(out: Path) -> dict[str, float]:
    """What the part `ceilings` measured: FLOP/s of matrix products by precision, and `copy` in bytes/s."""
    records = read_json(result_of(out, "ceilings")).get("records", [])
    return {record["rate_of"]: record["rate"] for record in records if record.get("rate_of")}


def utilisation(flop: float, seconds: float, precision: str, settings: Settings) -> dict[str, Any]:
    """Rate of a computation, and its share of what the card does at most in the same precision.

    Parameters
    ----------
    flop : float
        Operations, 2 a multiply-add.
    seconds : float
        Median time.
    precision : str
        One of `PRECISIONS`.
    settings : Settings
        Names the card, and the folder where `ceilings` lies.

    Returns
    -------
    dict
        `mfu` is the share of the measured rate of matrix products, `of_datasheet` that of the maker's figure; each is
        None where the rate is not known.
    """
    rate = flop / seconds
    matrix, sheet = rates_of(settings.out).get(precision), datasheet(settings.card).get(precision)
    return {
        "gflop": flop / 1e9,
        "tflop_per_s": rate / 1e12,
        "mfu": None if matrix is None else rate / matrix,
        "of_datasheet": None if sheet is None else rate / (1e12 * sheet),
    }
