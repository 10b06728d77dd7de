"""Find the device of a run, its memory, and the number of ranks."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from cytovox.errors import InputError
from cytovox.inference.device import choose_precision, cpu_has_bfloat16, require_supported_gpu, uses_cuda
from training.environment import describe_device
from training.trainer import TrainerConfig


@dataclass(frozen=True)
class Machine:
    """Device of one rank, and the number of ranks."""

    kind: str
    """cuda, mps or cpu."""
    device: str
    """Name of the device."""
    memory_bytes: int
    """Memory of the GPU, or main memory that this job may use."""
    free_bytes: int
    """Memory that is free now."""
    precision: str
    """Precision that the trainer would use."""
    note: str
    """Support of bfloat16, and the number of threads of a CPU."""
    ranks: int
    """Ranks over all machines."""
    local_ranks: int
    """Ranks on each machine."""


def find_machine(trainer: TrainerConfig) -> Machine:
    """Return the device that a run with this config would use.

    Raises
    ------
    InputError
        A GPU that this build of torch does not support.
    """
    require_supported_gpu(trainer.accelerator)
    local = local_ranks(trainer)
    if uses_cuda(trainer.accelerator):
        kind, device = "cuda", torch.cuda.get_device_name()
        free, total = torch.cuda.mem_get_info()
        major, minor = torch.cuda.get_device_capability()
        bf16 = "bf16" if major >= 8 else "no bf16, so 16-mixed"
        note = f"sm_{major}{minor} is in this torch {torch.__version__} ({bf16})"
    else:
        kind = "mps" if trainer.accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available() else "cpu"
        about, total = describe_device(), memory_limit()
        device, free = str(about["cpu"]), min(total, psutil.virtual_memory().available)
        note = f"{'bf16' if cpu_has_bfloat16() else 'no bf16'} in hardware, {about['threads']} threads"
    precision = choose_precision(trainer.precision, trainer.accelerator)
    return Machine(kind, device, total, free, precision, note, local * trainer.num_nodes, local)


def device_count(devices: int | str | None) -> int | None:
    """Return the number of devices per machine that a value of `trainer.devices` selects.

    Parameters
    ----------
    devices : int, str or None
        As in Lightning: a text with a comma lists indices ("1," is the device of index 1, "0,2" are two devices), and
        any other number is a number of devices.

    Returns
    -------
    int or None
        None for "auto", -1 and None: all devices of the machine.

    Raises
    ------
    InputError
        A text that is neither a number nor a list of numbers.
    """
    if devices in (None, "auto", -1, "-1"):
        return None
    indices = _indices(devices)
    return int(devices or 1) if indices is None else len(indices)


def local_ranks(trainer: TrainerConfig) -> int:
    """Return the number of processes on each machine; see `device_count`."""
    count = device_count(trainer.devices)
    if count is None:
        count = torch.cuda.device_count() if uses_cuda(trainer.accelerator) else 1
    return max(1, count)


def one_device(trainer: TrainerConfig) -> str | int:
    """Return the value of `devices` that selects the first device of a config; "1," is the device of index 1."""
    indices = None if trainer.devices == "auto" else _indices(trainer.devices)
    return f"{indices[0]}," if indices else 1


def _indices(devices: int | str | None) -> list[int] | None:
    """Return the device indices of a list such as "0,2" or "1,"; None for a number of devices."""
    try:
        indices = [int(part) for part in str(devices or 0).split(",") if part.strip()]
    except ValueError:
        raise InputError(
            f"trainer.devices: expected a number of devices, a list of indices such as '0,2', or auto; got {devices!r}"
        ) from None
    return indices if "," in str(devices) else None


def launched_ranks() -> int:
    """Return the number of processes that a launcher (torchrun, srun) started for this command."""
    return max(int(os.environ.get(name) or 1) for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"))


def memory_limit() -> int:
    """Return the main memory that this job may use: that of the machine, or the lower limit of its control group."""
    total = int(psutil.virtual_memory().total)
    return min([total, *_cgroup_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _cgroup_limits(own: Path, root: Path) -> Iterator[int]:
    """Yield the limits of the job's control group and of its parents, for both versions of control groups."""
    files = {"memory": (root / "memory", "memory.limit_in_bytes"), "": (root, "memory.max")}
    for line in own.read_text(encoding="utf-8").splitlines() if own.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers in files:
            base, name = files[controllers]
            group = base / path.lstrip("/")
            for folder in (group, *group.parents):
                limit = folder / name
                if folder.is_relative_to(base) and limit.is_file():
                    text = limit.read_text(encoding="ascii").strip()
                    if text.isdigit():
                        yield int(text)
