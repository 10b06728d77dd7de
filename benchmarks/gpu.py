"""What runs on a GPU, measured in one command of at most ten minutes: ``python -m benchmarks.gpu``.

Each part runs in a process of its own and leaves `DIR/<part>.json`; a part that ended on the same card with the same
torch is not measured again, unless ``--again`` asks for it, and an interrupted part continues with what is missing.
``--quick`` shows on a CPU that every part runs; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import importlib
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

# torch asks NVML whether there is a GPU: CUDA itself would no longer start in the processes of the parts
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

import psutil

from benchmarks._common import RESULTS
from benchmarks._gpu_card import describe_card
from benchmarks._gpu_common import Settings, journal_of, one_line, read_json, result_of, write_json
from benchmarks._gpu_record import FAILED, OUT_OF_TIME, SKIPPED, PartAborted, Recorder
from benchmarks._gpu_tables import PARTS_SHOWN, show_tables

#: Parts in the order they run: module, function, and the part's share of the time in seconds of nine minutes.
PARTS: dict[str, tuple[str, str, float]] = {
    "ceilings": ("_gpu_ceilings", "measure_ceilings", 25),
    "inference": ("_gpu_inference", "measure_inference", 140),
    "published": ("_gpu_inference", "measure_published", 55),
    "training": ("_gpu_training", "measure_training", 140),
    "profile": ("_gpu_profile", "measure_profile", 25),
    "shapes": ("_gpu_shapes", "measure_shapes", 50),
    "analyze": ("_gpu_analyze", "measure_analyze", 60),
    "ddp": ("_gpu_ddp", "measure_ddp", 25),
    "memory": ("_gpu_inference", "measure_memory", 20),
}
#: Seconds after its deadline in which a part may end the figure that it is at, before it is stopped.
GRACE_S = 45.0
#: Seconds after the time limit of all parts in which the last one is stopped.
LAST_S = 15.0
#: Seconds of a part of a quick run, which has no other limit.
QUICK_S = 240.0
#: How a part ended.
COMPLETE, CUT_SHORT = "complete", "cut short"


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with 2 and one line where it cannot be met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--part", nargs="+", metavar="NAME", help=f"only these parts of: {', '.join(PARTS)}")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda where there is one")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; on a CPU under a minute")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu", metavar="DIR", help="folder of the results")
    parser.add_argument("--minutes", type=float, default=9.0, help="time limit of all parts together (9)")
    parser.add_argument("--again", action="store_true", help="measure parts again that are there")
    parser.add_argument("--show", action="store_true", help="print the tables of the results that are there; no more")
    chosen = parser.parse_args(words)
    unknown = sorted(set(chosen.part or ()) - set(PARTS))
    if unknown:
        _refuse(f"--part: {', '.join(unknown)}: no such part; expected some of {', '.join(PARTS)}")
    if not chosen.minutes > 0:
        _refuse(f"--minutes: expected a number above 0, got {chosen.minutes}")
    return chosen


def _refuse(text: str) -> NoReturn:
    print(text, file=sys.stderr)
    raise SystemExit(2)


def main(words: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the tables; the exit code is 1 where a part could not run at all."""
    chosen = arguments(words)
    parts = [part for part in PARTS if part in (chosen.part or PARTS)]
    if chosen.show:
        show_tables(chosen.out, parts)
        return 0
    begun = time.monotonic()
    if words is None:  # a command's time counts from its start, imports included
        begun -= time.time() - psutil.Process().create_time()
    _import_parts(parts)
    context, card = _card(chosen.device)
    if card["kind"] == "cpu" and chosen.device == "cuda":
        _refuse("--device cuda: torch finds no CUDA device here")
    if card["kind"] == "cpu" and not chosen.quick and chosen.device is None:
        print("gpu: no CUDA device here: not measured (--quick shows on the CPU that it runs)")
        return 0
    settings = Settings(card["kind"], chosen.quick, chosen.out, card["device"])
    print(
        f"[{time.monotonic() - begun:6.1f} s] {card['device']}, torch {card['torch']}, driver {card['driver']}",
        flush=True,
    )
    ends, broken = begun + 60 * chosen.minutes, 0
    for place, part in enumerate(parts):
        kept = _kept(settings, part, card, chosen.again)
        if kept is None:
            print(f"[{time.monotonic() - begun:6.1f} s] {part}: there already (--again measures it again)", flush=True)
            continue
        share = PARTS[part][2] / sum(PARTS[later][2] for later in parts[place:])
        budget = QUICK_S if chosen.quick else share * max(0.0, ends - time.monotonic())
        deadline = time.monotonic() + budget
        last = deadline + GRACE_S if chosen.quick else min(deadline + GRACE_S, ends + LAST_S)
        broken += _run_part(context, settings, part, card, kept, (begun, deadline, last))
    show_tables(chosen.out, parts)
    print(f"[{time.monotonic() - begun:6.1f} s] written: {chosen.out}")
    return 1 if broken else 0


def _import_parts(parts: Sequence[str]) -> None:
    """Import the modules of the parts before any process begins; one that cannot be fails in its own process."""
    for part in parts:
        with contextlib.suppress(Exception):
            importlib.import_module(f"benchmarks.{PARTS[part][0]}")


def _card(wanted: str | None) -> tuple[Any, dict[str, Any]]:
    """How processes are to be started, and the description of the device from one: this process must not start CUDA.

    Forked processes have what is imported here. Where an import has called CUDA already, it starts in fresh ones only.
    """
    reason = "its process ended without a message"
    for way in ("fork", "spawn"):
        context: Any = multiprocessing.get_context(way)
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_send_card, args=(sender, wanted))
        process.start()
        sender.close()
        try:
            found = receiver.recv()
        except EOFError:
            found = reason
        process.join()
        if isinstance(found, dict):
            return context, found
        reason = found
    _refuse(f"the device cannot be used: {reason}")


def _send_card(sender: Any, wanted: str | None) -> None:
    try:
        sender.send(describe_card(wanted))
    except RuntimeError as error:
        sender.send(one_line(error))


def _kept(settings: Settings, part: str, card: dict[str, Any], again: bool) -> list[dict[str, Any]] | None:
    """Records of an earlier run that count still; None where the part is complete."""
    if again:
        return []
    found = read_json(result_of(settings.out, part))
    same = all(found.get("card", {}).get(key) == card[key] for key in ("device", "torch"))
    if not same or found.get("quick") != settings.quick:
        return []
    if found["status"] == COMPLETE:
        return None
    return [record for record in found["records"] if record["status"] != SKIPPED]


def _run_part(
    context: Any,
    settings: Settings,
    part: str,
    card: dict[str, Any],
    kept: list[dict[str, Any]],
    times: tuple[float, float, float],
) -> int:
    """Run a part in a process of its own and write its result; 1 where it could not run at all, else 0.

    `times` are when the run began, when the part may begin no further figure, and when it is stopped.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    write_json(journal_of(settings.out, part), {"records": kept, "running": None})
    since = time.monotonic()
    process = context.Process(target=_play, args=(settings, part, kept, times[1], times[0]))
    process.start()
    try:
        process.join(max(1.0, times[2] - since))
        stopped = process.is_alive()
    finally:  # Ctrl-C does not reach a process of another group
        _stop(process)
    journal = read_json(journal_of(settings.out, part))
    records, running = list(journal.get("records", [])), journal.get("running")
    if process.exitcode and running:
        reason = "stopped: it did not end in time" if stopped else f"the process ended with {process.exitcode}"
        records.append({**running, "status": FAILED, "error": reason})
    cut = bool(process.exitcode) or any(record.get("error") == OUT_OF_TIME for record in records)
    write_json(
        result_of(settings.out, part),
        {
            "part": part,
            "status": CUT_SHORT if cut else COMPLETE,
            "quick": settings.quick,
            "measured": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - since, 1),
            "card": card,
            "records": records,
        },
    )
    journal_of(settings.out, part).unlink(missing_ok=True)
    return int(bool(process.exitcode) and not records)


def _stop(process: Any) -> None:
    """End a process and those that it started, such as compilers."""
    if process.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.join()


def _play(settings: Settings, part: str, kept: list[dict[str, Any]], deadline: float, begun: float) -> None:
    """The process of a part."""
    os.setsid()
    warnings.filterwarnings("ignore")
    bench = Recorder(part, settings, deadline, kept, begun)
    module, function, _ = PARTS[part]
    try:
        getattr(importlib.import_module(f"benchmarks.{module}"), function)(bench)
    except PartAborted as error:
        bench.say(f"no further figures of this part: {error}")
        bench.skip("the rest of the part", f"the device failed: {error}")
    except Exception as error:
        bench.say(f"the part failed: {one_line(error)}")
        bench.add({"name": part, "status": FAILED, "error": one_line(error)})


assert set(PARTS) == set(PARTS_SHOWN)

if __name__ == "__main__":
    sys.exit(main())
