"""Agents of a sweep as an array of jobs, each of which starts its runs with `srun`."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

from cytovox.errors import InputError
from experiments.compose import Composed, compose
from experiments.config import typed_config
from experiments.preflight import require_room
from experiments.schema import Config
from experiments.submit.config import SlurmConfig
from experiments.submit.script import Job, script_of
from experiments.submit.site import add_site
from experiments.submit.submit_job import require_slurm, submit_job
from experiments.sweeps.sweep_file import read_sweep
from experiments.tasks import known_keys

#: Agents, unless `slurm.array` says how many.
AGENTS = 4


def submit_sweep(sweep: Path | str, words: list[str], count: int | None, dry_run: bool) -> None:
    """Hand in the agents.

    Parameters
    ----------
    sweep : Path or str
        A sweep file, run by our own engine, or ENTITY/PROJECT/ID of a W&B server.
    words : list of str
        `slurm.key=value`.
    count : int or None
        Runs of the sweep in all, or of each agent of a server's sweep.
    dry_run : bool
        Print the script, and leave everything as it is.

    Raises
    ------
    InputError
        Errors of sweep or words, no SLURM, or SLURM's own refusal.
    """
    if other := [word for word in words if not word.startswith("slurm.")]:
        raise InputError(f"{other[0]}: only slurm.key=value with --submit; the sweep itself says what is varied")
    limit = [] if count is None else ["--count", str(count)]
    if isinstance(sweep, Path):
        read = read_sweep(sweep)
        slurm = _typed(compose(read.config, [*read.fixed, *words], known_keys))
        _require_wrap(slurm, "srun" in read.values["command"])
        require_room(read.folder, "runs_dir")
        folder, name = read.folder / "slurm", read.id
        command = shlex.join(["experiments.sweep", str(sweep.absolute()), *limit])
    else:
        slurm = _typed(compose("organelle_demo", words, known_keys))
        _require_wrap(slurm, True)
        name = sweep.rpartition("/")[2]
        folder = Path("runs").absolute() / "sweeps" / name / f"slurm-{time.strftime('%Y%m%d-%H%M%S')}"
        _require_here(folder)
        command = shlex.join(["wandb", "agent", *limit, sweep])
    agents = slurm.array or min(AGENTS, count or AGENTS)
    job = Job(name, folder, [command], steps=False, array=agents)
    text = script_of(job, slurm, Path.cwd(), sys.executable)
    if dry_run:
        print(text, end="")
        return
    require_slurm()
    number = submit_job(job, text)
    print(f"job {number}: squeue --job {number}\nlog: {folder}\nsweep: {folder.parent}", flush=True)


def _require_wrap(slurm: SlurmConfig, srun: bool) -> None:
    """Refuse to put a container around runs that are not ours to start."""
    if slurm.wrap and srun:
        raise InputError(
            "slurm.wrap: the sweep's own command starts its runs with srun; put the container into it, after srun, and "
            "add slurm.wrap=null"
        )


def _require_here(folder: Path) -> None:
    """Refuse to submit a server's sweep from where the script and the logs of its agents cannot lie."""
    try:
        require_room(folder, "runs_dir")
    except InputError:
        raise InputError(
            f"--submit: {folder}: cannot be written, for the script and logs of a server's sweep lie in runs/ of the "
            "current folder; submit from another"
        ) from None


def _typed(composed: Composed) -> SlurmConfig:
    add_site(composed)
    config: Config = typed_config(composed)
    return config.slurm
