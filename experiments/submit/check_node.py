"""`python -m experiments.submit.check_node NEEDS`: a minute at the start of a job, on every rank, that saves hours.

Each rank looks at its GPU, the disk and the data; then all of them add up a number, within a time limit. A run that met
a GPU without code for it, a node without the data or a closed port by itself would wait for the others until the job's
time is over.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from training.refusal import note_refusal

#: Seconds in which the ranks must have found each other.
LIMIT_S = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    """Check; 0, or 2 with a line for each error."""
    parser = argparse.ArgumentParser(prog="experiments.submit.check_node", description=__doc__)
    parser.add_argument("needs", type=Path, help="needs.json of a submitted run")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="seconds in which the ranks must meet")
    words = parser.parse_args(argv)
    node, rank, world = platform.node(), _number("SLURM_PROCID", 0), _number("SLURM_NTASKS", 1)
    node = os.environ.get("SLURMD_NODENAME", node)
    try:
        needs = json.loads(words.needs.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(
            f"node {node}: {words.needs}: cannot be read ({error}); is the run folder on a disk that nodes share?",
            file=sys.stderr,
        )
        note_refusal()
        return 2
    errors = [f"node {node}: {found_errors}" for found_errors in [*_disk_errors(needs), *_gpu_errors(needs)]]
    try:
        errors = _gathered(errors, rank, world, words.limit_s, bool(needs["gpus"]))
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split("Exception raised from")[0].split())
        errors.append(
            f"node {node}: rank {rank} of {world} did not meet the others within {words.limit_s:.0f} s at "
            f"{os.environ.get('MASTER_ADDR')}:{_port()} ({reason}); are nodes allowed to talk to each other on it?"
        )
        rank = 0  # each says so by itself
    if rank == 0:
        for line in dict.fromkeys(errors):
            print(line, file=sys.stderr)
    if not errors:
        return 0
    note_refusal()
    return 2


def _number(name: str, otherwise: int) -> int:
    return int(os.environ.get(name, otherwise))


def _port() -> int:
    """Not the training's own: that one begins when this has ended."""
    return 40000 + _number("SLURM_JOB_ID", 0) % 20000


def _disk_errors(needs: dict[str, Any]) -> list[str]:
    run, errors = Path(needs["run"]), []
    try:
        with tempfile.TemporaryFile(dir=run):
            pass
        free = shutil.disk_usage(run).free / 1e9
        if free < needs["free_gb"]:
            errors.append(f"{run}: {free:.1f} GB are free, expected {needs['free_gb']:.0f}; free some space")
    except OSError as error:
        errors.append(f"run folder {run}: cannot be written ({error.strerror}); it must lie on a disk that nodes share")
    errors += [
        f"{path}: is not there; the data must lie on a disk that nodes share"
        for path in needs["paths"]
        if not Path(path).exists()
    ]
    return errors


def _gpu_errors(needs: dict[str, Any]) -> list[str]:
    if not needs["gpus"]:
        return []
    import torch

    from cytovox.inference.device import require_supported_gpu

    found = torch.cuda.device_count()
    if found < needs["gpus"]:
        return [
            f"torch {torch.__version__} sees {found} GPUs, expected {needs['gpus']}; a build without CUDA, a driver "
            "that is too old for it, or GPUs that are hidden (--gpus-per-task does that)"
        ]
    try:
        require_supported_gpu("gpu")
    except InputError as error:
        return [str(error)]
    return []


def _gathered(errors: list[str], rank: int, world: int, limit_s: float, gpus: bool) -> list[str]:
    """All ranks' errors on every rank, over the wires that the training will use."""
    if world == 1:
        return errors
    import torch
    import torch.distributed as dist

    # a run on CPUs may have more ranks than its node has GPUs
    nccl = gpus and torch.cuda.is_available() and dist.is_nccl_available()
    limit = dt.timedelta(seconds=limit_s)
    address = f"tcp://{os.environ.get('MASTER_ADDR', '127.0.0.1')}:{_port()}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world, timeout=limit)
    everyone: list[list[str]] = [[] for _ in range(world)]
    dist.all_gather_object(everyone, errors)
    found_errors = [error for said in everyone for error in said]
    if nccl and not found_errors:
        # before torch's own watchdog, which ends the process as a kill would
        with _refusing_after(0.9 * limit_s, f"rank {rank} of {world}: its GPU did not meet the others'"):
            torch.cuda.set_device(_number("SLURM_LOCALID", 0))
            group = dist.new_group(backend="nccl", timeout=limit)
            one = torch.ones(1, device="cuda")
            dist.all_reduce(one, group=group)
            found = int(one)
        if found != world:
            found_errors.append(f"the GPUs of {world} ranks added up to {found}")
    dist.barrier()
    dist.destroy_process_group()
    return found_errors


@contextmanager
def _refusing_after(limit_s: float, what: str) -> Iterator[None]:
    """End this process in one line where the block takes longer: nothing that waits for a GPU can be called off."""

    def end() -> None:
        node = os.environ.get("SLURMD_NODENAME", platform.node())
        print(
            f"node {node}: {what} within {limit_s:.0f} s (NCCL); are nodes allowed to talk to each other on all ports? "
            "NCCL_DEBUG=INFO and NCCL_SOCKET_IFNAME in slurm.setup tell more",
            file=sys.stderr,
            flush=True,
        )
        note_refusal()
        os._exit(2)

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


if __name__ == "__main__":
    sys.exit(main())
