"""What the studies share: training in parts of some minutes, progress lines, results, and weights in small files."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import datetime as dt
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import monai
import torch
from rich.console import Console
from rich.table import Table

from cytovox.errors import InputError
from cytovox.io.deletion import remove_file
from cytovox.models.metadata import read_checkpoint
from cytovox.models.weights_file import SUFFIX, write_weights
from experiments.launch import launch
from training.environment import describe_device
from training.rundir import RunFolder, write_json
from training.signals import Preempted, exit_code

#: Largest file of weights in bytes, below the 16 MiB that some machines return.
FILE_BYTES = 15 * 2**20
#: Steps that the length of a schedule is measured with.
CALIBRATION_STEPS = 60
#: Share of the minutes that a schedule's steps take; the rest is for validation and checkpoints.
FOR_STEPS = 0.85
#: Seconds between two progress lines.
LINE_S = 30.0


def run_study(study: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> int:
    """Run a study and return its exit code: 0, that of an error (one line each on stderr), or 130 on Ctrl-C.

    An input error has the exit code 2, and a training that diverged has 1.
    """
    try:
        study(arguments)
    except InputError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except Preempted as stop:
        return exit_code(stop)
    except KeyboardInterrupt:
        print("stopped; start the same command again to continue", file=sys.stderr)
        return 130
    return 0


def add_shared_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options that every study has.

    Parameters
    ----------
    parser : ArgumentParser
        Of the study.
    name : str
        Of the study; names its default folder.
    """
    parser.add_argument("--work", type=Path, default=Path("runs/studies") / name, help="run folders (%(default)s)")
    parser.add_argument("--out", type=Path, default=None, help="folder of the results; default: that of --work")
    parser.add_argument("--minutes", type=_positive, default=9.0, help="of training in this call (%(default)s)")
    parser.add_argument("--steps", type=int, default=None, help="end training after this many steps in all")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys of the studied config to change")


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def require_folder(path: Path, option: str, *parts: str) -> None:
    """Refuse a data folder that lacks a part.

    Raises
    ------
    InputError
        The folder, or one of its parts, is not there.
    """
    for part in (path, *(path / name for name in parts)):
        if not part.is_dir():
            raise InputError(f"{option}: {part}: no such folder; expected a folder with {', '.join(parts) or 'data'}")


def existing_run(runs_dir: Path, name: str) -> RunFolder | None:
    """Return the newest run folder of this name, with or without a checkpoint; None where there is none."""
    found = [path.parent for path in (runs_dir / name).glob("*/config.yaml")]
    return RunFolder(max(found, key=lambda path: path.name).absolute()) if found else None


def train_for(config: str, overrides: Sequence[str], runs_dir: Path, name: str, minutes: float) -> RunFolder:
    """Train a config for some minutes through `experiments.run`; a second call continues the same run.

    Parameters
    ----------
    config : str
        Name of a shipped config.
    overrides : sequence of str
        `key=value`; the same in every call.
    runs_dir : Path
        Parent of `name/`.
    name : str
        Of the run.
    minutes : float
        Of training in this call. It ends earlier at `trainer.max_steps` or `trainer.max_epochs`.

    Returns
    -------
    RunFolder
        With a checkpoint.

    Raises
    ------
    InputError
        A key or a value of the config is invalid, or the run folder belongs to another config.
    """
    folder = existing_run(runs_dir, name)
    done = trained_seconds(folder) if folder is not None else 0.0
    words = [
        *overrides, f"name={name}", f"runs_dir={runs_dir}", "stages=[fit]", "logging.wandb=disabled",
        "trainer.enable_progress_bar=false", "trainer.save_every_minutes=2",
        f"trainer.max_time={_as_time(done + 60 * minutes)}",
    ]  # fmt: skip
    print(f"training {name}: {minutes:g} min, after {done / 60:.1f} min before", flush=True)
    with ProgressLines(runs_dir, name):
        if folder is None:
            launch(config, words)
        else:
            launch("", [f"resume={folder.path}", *words])
    trained = existing_run(runs_dir, name)
    assert trained is not None
    return trained


def planned_steps(
    config: str, overrides: Sequence[str], runs_dir: Path, name: str, minutes: float, epoch_steps: int
) -> int:
    """Return how many steps a schedule may have to end within some minutes; measured once, then read from a file.

    Parameters
    ----------
    config, overrides, runs_dir, name
        As in `train_for`.
    minutes : float
        Of the whole training, all parts together.
    epoch_steps : int
        Steps of an epoch; the result is a multiple, so that the last step is validated.

    Returns
    -------
    int
        At least one epoch.
    """
    note = runs_dir / f"{name}_schedule.json"
    if note.is_file():
        return int(json.loads(note.read_text(encoding="utf-8"))["steps"])
    words = [
        *overrides, f"name={name}_calibration", f"runs_dir={runs_dir}", "stages=[fit]", "logging.wandb=disabled",
        "trainer.enable_progress_bar=false", f"trainer.max_steps={min(CALIBRATION_STEPS, epoch_steps)}",
        "trainer.max_epochs=null", "trainer.limit_val_batches=0",
    ]  # fmt: skip
    launch(config, words)
    measured = existing_run(runs_dir, f"{name}_calibration")
    assert measured is not None
    seconds = measured.metrics()["fit/batch_seconds"]
    steps = max(1, int(FOR_STEPS * 60 * minutes / seconds / epoch_steps)) * epoch_steps
    write_json(note, {"steps": steps, "minutes": minutes, "step_seconds": seconds})
    print(f"{name}: {1000 * seconds:.0f} ms a step, so {steps} steps in {minutes:g} min", flush=True)
    return steps


def trained_seconds(folder: RunFolder) -> float:
    """Return how long a run was trained up to its last checkpoint, in seconds; 0 without a checkpoint."""
    if not folder.last_checkpoint.is_file():
        return 0.0
    state = torch.load(folder.last_checkpoint, map_location="cpu", weights_only=True)
    return float(state["callbacks"].get("Timer", {}).get("time_elapsed", {}).get("train", 0.0))


def trained_steps(folder: RunFolder) -> int:
    """Return the optimiser steps of a run's last checkpoint."""
    return int(torch.load(folder.last_checkpoint, map_location="cpu", weights_only=True)["global_step"])


def _as_time(seconds: float) -> str:
    """DD:HH:MM:SS, rounded up, at least a second."""
    whole = max(1, int(-(-seconds // 1)))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours // 24:02d}:{hours % 24:02d}:{minute:02d}:{second:02d}"


class ProgressLines:
    """Print the last row of a run's `metrics.csv` every half minute, while the run is trained in this process."""

    def __init__(self, runs_dir: Path, name: str, every_s: float = LINE_S) -> None:
        self._runs_dir, self._name, self._every_s = runs_dir, name, every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._print_lines, daemon=True)

    def __enter__(self) -> ProgressLines:
        self._begun = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _print_lines(self) -> None:
        while not self._ended.wait(self._every_s):
            print(f"{time.perf_counter() - self._begun:.0f} s: {self.line()}", flush=True)

    def line(self) -> str:
        """Return the newest figures of the run, such as `step 120, train/loss 0.31`."""
        folder = existing_run(self._runs_dir, self._name)
        rows = metric_rows(folder) if folder is not None else []
        if not rows:
            return "no step logged yet"
        newest = {key: value for row in rows for key, value in row.items() if value}
        shown = [f"{key} {float(newest[key]):.4g}" for key in sorted(newest) if key.endswith(("loss", "mean", "iou"))]
        return ", ".join([f"step {rows[-1]['step']}", *shown])


def metric_rows(folder: RunFolder) -> list[dict[str, str]]:
    """Return the rows of a run's `metrics.csv`; empty where it is not written yet."""
    path = folder.path / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_half_weights(checkpoint: Path, out: Path, limit: int = FILE_BYTES) -> list[Path]:
    """Write a run's network in float16, over as many files as the limit asks for.

    A tensor with values beyond float16 (above 65504) is written in float32. Files of an earlier call are removed after
    the new ones are written.

    Parameters
    ----------
    checkpoint : Path
        A `.ckpt` file; with EMA it holds the averaged weights.
    out : Path
        Ends in `.safetensors`. Several files are named `NAME-1-of-2.safetensors`; `python -m studies.join_weights`
        joins them.
    limit : int
        Bytes of the tensors in one file.

    Returns
    -------
    list of Path
        The files.
    """
    weights = read_checkpoint(checkpoint, None, "checkpoint")
    parts: list[dict[str, torch.Tensor]] = [{}]
    used = 0
    for name, value in weights.network_state.items():
        half = _halved(value) if value.is_floating_point() else value
        size = half.numel() * half.element_size()
        if parts[-1] and used + size > limit:
            parts.append({})
            used = 0
        parts[-1][name] = half
        used += size
    metadata = dataclasses.asdict(weights.metadata)
    names = [out.with_stem(f"{out.stem}-{number}-of-{len(parts)}") for number in range(1, len(parts) + 1)]
    names = names if len(parts) > 1 else [out]
    written = [write_weights(path, part, metadata) for path, part in zip(names, parts, strict=True)]
    part_of = re.compile(rf"{re.escape(out.stem)}-\d+-of-\d+{re.escape(SUFFIX)}")
    earlier = {path for path in out.parent.iterdir() if part_of.fullmatch(path.name)} | {out}
    for old in earlier.difference(written):
        remove_file(old, out.parent)
    return written


def _halved(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float16, or in float32 where float16 cannot hold it."""
    half = value.half()
    return half if bool(half.isfinite().all()) else value.float()


def device_of(choice: str) -> torch.device:
    """Return the device for `auto`, `cpu` or `cuda`.

    Raises
    ------
    InputError
        `cuda` where torch finds no GPU.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise InputError("--device: cuda: torch finds no GPU on this machine; choose cpu")
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")


def synchronised_seconds(device: torch.device, task: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a task returns and the seconds that it took on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begun = time.perf_counter()
    result = task()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - begun


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table that a log file keeps readable."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def write_result(path: Path, study: str, values: Mapping[str, Any]) -> None:
    """Write the JSON of a study atomically, with the machine that gave the figures."""
    machine = {**describe_device(), "torch": torch.__version__, "monai": monai.__version__}
    measured = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    write_json(path, {"study": study, "measured": measured, "machine": machine, **values})
    print(f"written: {path}", flush=True)
