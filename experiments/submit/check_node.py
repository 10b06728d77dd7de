"""`python -m experiments.submit.check_node NEEDS`: check every node at the start of a job.

Each rank checks its GPU, the disk and the data. Then all ranks add up a number within a time limit. Without this check,
a GPU that torch does not support, a node without the data or a closed port would block the other ranks until the job's
time limit.
"""

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
from experiments.program import refuse

#: Seconds within which the ranks must meet.
LIMIT_S = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    """Check this node; return 0, or 2 after one line per error."""
    parser = argparse.ArgumentParser(prog="experiments.submit.check_node", description=__doc__)
    parser.add_argument("needs", type=Path, help="needs.json of a submitted run")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="seconds in which the ranks must meet")
    words = parser.parse_args(argv)
    node, rank, world = _node(), _number("SLURM_PROCID", 0), _number("SLURM_NTASKS", 1)
    try:
        needs = json.loads(words.needs.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return refuse(
            f"node {node}: {words.needs}: cannot be read ({error}); is the run folder on a disk that nodes share?"
        )
    errors = [f"node {node}: {error}" for error in (*_disk_errors(needs), *_gpu_errors(needs))]
    try:
        errors = _gathered(errors, rank, world, words.limit_s, bool(needs["gpus"]))
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split("Exception raised from")[0].split())
        errors.append(
            f"node {node}: rank {rank} of {world} did not meet the others within {words.limit_s:.0f} s at "
            f"{os.environ.get('MASTER_ADDR')}:{_port()} ({reason}); are nodes allowed to talk to each other on it?"
        )
        rank = 0  # every rank prints this error
    return refuse("\n".join(dict.fromkeys(errors)) if rank == 0 else "") if errors else 0


def _node() -> str:
    return os.environ.get("SLURMD_NODENAME", platform.node())


def _number(name: str, otherwise: int) -> int:
    return int(os.environ.get(name, otherwise))


def _port() -> int:
    """Return the port of this check, which differs from the port of the training."""
    return 40000 + _number("SLURM_JOB_ID", 0) % 20000


def _disk_errors(needs: dict[str, Any]) -> list[str]:
    """Return the errors of the run folder and the data."""
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
    """Return the errors of the GPUs of this node."""
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
    """Return the errors of all ranks, on every rank, exchanged over the network connections of the training."""
    if world == 1:
        return errors
    import torch
    import torch.distributed as dist

    # a run on CPUs may have more ranks than the node has GPUs
    nccl = gpus and torch.cuda.is_available() and dist.is_nccl_available()
    limit = dt.timedelta(seconds=limit_s)
    address = f"tcp://{os.environ.get('MASTER_ADDR', '127.0.0.1')}:{_port()}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world, timeout=limit)
    everyone: list[list[str]] = [[] for _ in range(world)]
    dist.all_gather_object(everyone, errors)
    found_errors = [error for of_rank in everyone for error in of_rank]
    if nccl and not found_errors:
        # earlier than torch's watchdog, which ends the process like a kill
        with _refusing_after(0.9 * limit_s, f"rank {rank} of {world}: its GPU did not meet the others'"):
            torch.cuda.set_device(_number("SLURM_LOCALID", 0))
            total = torch.ones(1, device="cuda")
            dist.all_reduce(total, group=dist.new_group(backend="nccl", timeout=limit))
            found = int(total)
        if found != world:
            found_errors.append(f"the GPUs of {world} ranks added up to {found}")
    dist.barrier()
    dist.destroy_process_group()
    return found_errors


@contextmanager
def _refusing_after(limit_s: float, what: str) -> Iterator[None]:
    """End this process with an error if the block takes longer: waiting for a GPU cannot be interrupted."""

    def end() -> None:
        code = refuse(
            f"node {_node()}: {what} within {limit_s:.0f} s (NCCL); are nodes allowed to talk to each other on all "
            "ports? NCCL_DEBUG=INFO and NCCL_SOCKET_IFNAME in slurm.setup give details"
        )
        os._exit(code)

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


if __name__ == "__main__":
    sys.exit(main())
