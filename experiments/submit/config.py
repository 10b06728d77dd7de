"""`slurm:` what a job asks of the cluster, and the site's own defaults."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from cytovox.errors import InputError
from datamodules.config import TEXTS

#: Names a file of the site's defaults, instead of the user's own.
ENV_SITE = "CYTOVOX_SITE"


@dataclass
class SlurmConfig:
    """Names are `sbatch`'s, with underscores. What is null is left to the site."""

    nodes: int = 1
    """Number of nodes."""
    gpus_per_node: int = 1
    """GPUs per node; one rank per GPU. 0 for a run on CPUs."""
    gpu_type: str | None = None
    """Such as v100, where a site has several."""
    tasks_per_node: int | None = None
    """Ranks per node of a run on CPUs; null for one. With GPUs there is one rank per GPU."""
    cpus_per_task: int = 4
    """Cores per rank, for the workers of its data loader."""
    time: str = "24:00:00"
    """Longest run of one job: D-HH:MM:SS, HH:MM:SS or minutes. A run that is not finished goes on in the next."""
    mem: str | None = None
    """Memory per node, such as 64G; 0 for all of it."""
    account: str | None = None
    """Account to charge."""
    partition: str | None = None
    """Queue."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that nodes must have."""
    options: Any = field(default_factory=list, metadata=TEXTS)
    """More of sbatch's options as it reads them, such as --exclude=n3."""
    setup: Any = field(default_factory=list, metadata=TEXTS)
    """Lines of shell before anything runs: modules, the environment."""
    python: str | None = None
    """Interpreter of the job; null for the one that submits."""
    wrap: str | None = None
    """Put before the interpreter, such as `apptainer exec --nv cytovox.sif`."""
    signal_s: int = 120
    """Seconds before the time limit at which the run is asked to save itself and is requeued."""
    retries: int = 3
    """How often a job is run again after one of its ranks was killed: by an error of the node, or for its memory."""
    array: int | None = None
    """Of a prediction or an analysis: so many jobs share its inputs; null for one job. Of a sweep: so many agents; null
    for 4, or `--count` if that is less."""
    at_once: int | None = None
    """Jobs of an array that run at the same time; null for as many as there is room for."""

    @property
    def ranks_per_node(self) -> int:
        """Tasks of each node."""
        return self.gpus_per_node or self.tasks_per_node or 1


def slurm_errors(config: SlurmConfig) -> list[str]:
    """What no cluster could take, one line each, beginning with the key."""
    errors = []
    for key, least in (("nodes", 1), ("gpus_per_node", 0), ("cpus_per_task", 1), ("signal_s", 1), ("retries", 0)):
        if getattr(config, key) < least:
            errors.append(f"{key}: expected {least} or more, got {getattr(config, key)}")
    for key in ("tasks_per_node", "array", "at_once"):
        value = getattr(config, key)
        if value is not None and value < 1:
            errors.append(f"{key}: expected 1 or more, or null, got {value}")
    if config.gpus_per_node and config.tasks_per_node not in (None, config.gpus_per_node):
        errors.append("tasks_per_node: there is one rank a GPU; leave it out, or set gpus_per_node to 0")
    if not re.fullmatch(r"\d+|(\d+-)?\d+(:\d{2}){1,2}|\d+-\d+", config.time):
        errors.append(f"time: expected D-HH:MM:SS, HH:MM:SS or minutes, got {config.time!r}")
    if config.at_once is not None and config.array is None:
        errors.append("at_once: only with array")
    for key in ("gpu_type", "mem", "account", "partition", "qos", "constraint", "python", "wrap"):
        if "\n" in (getattr(config, key) or ""):
            errors.append(f"{key}: expected one line")
    for option in [config.options] if isinstance(config.options, str) else config.options or []:
        if not re.fullmatch(r"--?[A-Za-z][^\n]*", str(option)):
            errors.append(f"options: expected an option of sbatch such as --exclude=n3, got {option!r}")
    return errors


def site_file() -> Path | None:
    """The site's defaults: the file that CYTOVOX_SITE names, else `site.yaml` in the user's configuration folder.

    Raises
    ------
    InputError
        The variable names no file.
    """
    named = os.environ.get(ENV_SITE)
    if named:
        if not Path(named).is_file():
            raise InputError(f"{ENV_SITE}: {named}: no such file; expected a YAML file with a group `slurm:`")
        return Path(named)
    path = Path(platformdirs.user_config_dir("cytovox")) / "site.yaml"
    return path if path.is_file() else None
