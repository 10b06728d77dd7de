"""What a run has to run on: the device, its memory, and how many ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from cytovox.inference.device import choose_precision, cpu_has_bfloat16, require_supported_gpu, uses_cuda
from training.environment import describe_device
from training.trainer import TrainerConfig


@dataclass(frozen=True)
class Machine:
    """The device of a rank, and its neighbours."""

    kind: str
    """cuda, mps or cpu."""
    device: str
    """Its name."""
    memory_bytes: int
    """Of the GPU, or of this machine as far as this job may use it."""
    free_bytes: int
    """Now."""
    precision: str
    """As the trainer would take it."""
    note: str
    """What the device is good at."""
    ranks: int
    """Over all machines."""
    local_ranks: int
    """On this one."""


def find_machine(trainer: TrainerConfig) -> Machine:
    """The device that a run with this config would take.

    Raises
    ------
    InputError
        A GPU that this build of torch has no code for.
    """
    require_supported_gpu(trainer.accelerator)
    local = local_ranks(trainer)
    precision = choose_precision(trainer.precision, trainer.accelerator)
    if uses_cuda(trainer.accelerator):
        free, total = torch.cuda.mem_get_info()
        major, minor = torch.cuda.get_device_capability()
        bf16 = "bf16" if major >= 8 else "no bf16, so 16-mixed"
        note = f"sm_{major}{minor} is in this torch {torch.__version__} ({bf16})"
        return Machine(
            "cuda", torch.cuda.get_device_name(), total, free, precision, note, local * trainer.num_nodes, local
        )
    kind = "mps" if trainer.accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available() else "cpu"
    about = describe_device()
    note = f"{'bf16' if cpu_has_bfloat16() else 'no bf16'} in hardware, {about['threads']} threads"
    free = min(memory_limit(), psutil.virtual_memory().available)
    return Machine(kind, str(about["cpu"]), memory_limit(), free, precision, note, local * trainer.num_nodes, local)


def local_ranks(trainer: TrainerConfig) -> int:
    """Processes on each machine, read as Lightning reads `devices`."""
    devices, there = trainer.devices, torch.cuda.device_count() if uses_cuda(trainer.accelerator) else 1
    if isinstance(devices, str) and "," in devices:
        return max(1, len([part for part in devices.split(",") if part.strip()]))
    if devices in (None, "auto", -1, "-1"):
        return max(1, there)
    return max(1, int(devices or 1))


def one_device(trainer: TrainerConfig) -> str | int:
    """The first of the devices that a config names."""
    devices = trainer.devices
    if isinstance(devices, str) and "," in devices:
        return devices.split(",")[0].strip() + ","
    return 1


def launched_ranks() -> int:
    """How many processes a launcher (torchrun, srun) started for this command."""
    return max(int(os.environ.get(name) or 1) for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"))


def memory_limit() -> int:
    """Main memory that this job may use: the machine's, or less where its control group says so."""
    total = int(psutil.virtual_memory().total)
    return min([total, *_cgroup_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _cgroup_limits(own: Path, root: Path) -> Iterator[int]:
    """Limits of the job's group and of those above it, as both versions of control groups write them."""
    if not own.is_file():
        return
    for line in own.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            base, name = root / "memory", "memory.limit_in_bytes"
        elif controllers == "":
            base, name = root, "memory.max"
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder != base and base not in folder.parents:
                break
            limit = folder / name
            if limit.is_file() and (text := limit.read_text(encoding="ascii").strip()).isdigit():
                yield int(text)
