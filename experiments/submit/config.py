"""Group `slurm:` of a config: the resources of a job."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from datamodules.config import TEXTS


@dataclass
class SlurmConfig:
    """Options of `sbatch`, with underscores in their names. Null means the default of the site."""

    nodes: int = 1
    """Number of nodes."""
    gpus_per_node: int = 1
    """GPUs per node; one rank per GPU. 0 for a run on CPUs."""
    gpu_type: str | None = None
    """GPU type such as v100, if the site has several."""
    tasks_per_node: int | None = None
    """Ranks per node of a run on CPUs; null for one. With GPUs there is one rank per GPU."""
    cpus_per_task: int = 4
    """CPU cores per rank, for the workers of its data loader."""
    time: str = "24:00:00"
    """Time limit of one job: D-HH:MM:SS, HH:MM:SS or minutes. An unfinished run is resumed in another job."""
    mem: str | None = None
    """Memory per node, such as 64G; 0 for all of it."""
    account: str | None = None
    """Account to charge."""
    partition: str | None = None
    """Partition (queue)."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Required features of the nodes."""
    options: Any = field(default_factory=list, metadata=TEXTS)
    """Further options of sbatch, such as --exclude=n3."""
    setup: Any = field(default_factory=list, metadata=TEXTS)
    """Shell commands at the start of the job, such as loading modules."""
    python: str | None = None
    """Python interpreter of the job; null for the one that submits."""
    wrap: str | None = None
    """Command before the interpreter, such as `apptainer exec --nv cytovox.sif`."""
    signal_s: int = 120
    """Seconds before the time limit at which the run receives a signal, saves its state and is requeued."""
    retries: int = 3
    """How often a job is run again after one of its ranks was killed, by a failure of the node or for its memory."""
    array: int | None = None
    """For a prediction or an analysis: number of jobs that share its inputs; null for one job. For a sweep: number of
    agents; null for 4, or `--count` if that is less."""
    at_once: int | None = None
    """Largest number of jobs of an array that run at the same time; null for no limit."""

    @property
    def ranks_per_node(self) -> int:
        """Number of ranks per node."""
        return self.gpus_per_node or self.tasks_per_node or 1


def slurm_errors(config: SlurmConfig) -> list[str]:
    """Return the errors in the values of `slurm:`, one line each that starts with the key."""
    least = {"nodes": 1, "gpus_per_node": 0, "cpus_per_task": 1, "signal_s": 1, "retries": 0}
    errors = [
        f"{key}: expected {number} or more, got {getattr(config, key)}"
        for key, number in least.items()
        if getattr(config, key) < number
    ]
    errors += [
        f"{key}: expected 1 or more, or null, got {value}"
        for key in ("tasks_per_node", "array", "at_once")
        if (value := getattr(config, key)) is not None and value < 1
    ]
    if config.gpus_per_node and config.tasks_per_node not in (None, config.gpus_per_node):
        errors.append("tasks_per_node: there is one rank per GPU; leave it out, or set gpus_per_node to 0")
    if not re.fullmatch(r"\d+|(\d+-)?\d+(:\d{2}){1,2}|\d+-\d+", config.time):
        errors.append(f"time: expected D-HH:MM:SS, HH:MM:SS or minutes, got {config.time!r}")
    if config.at_once is not None and config.array is None:
        errors.append("at_once: only with array")
    lines = ("gpu_type", "mem", "account", "partition", "qos", "constraint", "python", "wrap")
    errors += [f"{key}: expected one line" for key in lines if "\n" in (getattr(config, key) or "")]
    return errors + [
        f"options: expected an option of sbatch such as --exclude=n3, got {option!r}"
        for option in lines_of(config.options)
        if not re.fullmatch(r"--?[A-Za-z][^\n]*", str(option))
    ]


def lines_of(value: str | Sequence[str] | None) -> list[str]:
    """Return a text, a list of texts or null as a list."""
    return [value] if isinstance(value, str) else list(value or [])
