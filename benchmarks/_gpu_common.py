"""What the parts of the GPU benchmark share: precisions, timing, peak memory, files, and shares of the card's rates."""

from __future__ import annotations

import gc
import json
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks._gpu_card import datasheet
from cytovox.io.atomic import atomic_path

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


class NotHere(RuntimeError):
    """A figure that cannot be measured on this machine or with this version; the text is the reason."""


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
