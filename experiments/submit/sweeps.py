"""Agents of a sweep as an array of jobs, which start their runs with `srun`."""

import shlex
import sys
import time
from pathlib import Path

from cytovox.errors import InputError
from experiments.compose import Composed, compose
from experiments.config import typed_config
from experiments.preflight import require_room
from experiments.submit.config import SlurmConfig
from experiments.submit.job import Job, require_slurm, script_of, submit_job
from experiments.submit.site import add_site
from experiments.sweeps.sweep_file import read_sweep
from experiments.tasks import known_keys

#: Number of agents if `slurm.array` is null.
AGENTS = 4


def submit_sweep(sweep: Path | str, words: list[str], count: int | None, dry_run: bool) -> None:
    """Submit the agents.

    Parameters
    ----------
    sweep : Path or str
        A sweep file, for the local engine, or ENTITY/PROJECT/ID of a W&B server.
    words : list of str
        `slurm.key=value` arguments.
    count : int or None
        Number of runs of the sweep; for a sweep of a server, of each agent.
    dry_run : bool
        Only print the script.

    Raises
    ------
    InputError
        Errors of the sweep or the arguments; no SLURM on this machine; or SLURM refuses the job.
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
    job = Job(name, folder, [command], steps=False, array=slurm.array or min(AGENTS, count or AGENTS))
    text = script_of(job, slurm, Path.cwd(), sys.executable)
    if dry_run:
        print(text, end="")
        return
    require_slurm()
    number = submit_job(job, text)
    print(f"job {number}: squeue --job {number}\nlog: {folder}\nsweep: {folder.parent}", flush=True)


def _require_wrap(slurm: SlurmConfig, srun: bool) -> None:
    """Refuse a container around runs that the sweep's own command starts."""
    if slurm.wrap and srun:
        raise InputError(
            "slurm.wrap: the sweep's own command starts its runs with srun; put the container into it, after srun, and "
            "add slurm.wrap=null"
        )


def _require_here(folder: Path) -> None:
    """Refuse to submit a server's sweep from a folder in which scripts and logs cannot be written."""
    try:
        require_room(folder, "runs_dir")
    except InputError:
        raise InputError(
            f"--submit: {folder}: cannot be written, for the script and logs of a server's sweep lie in runs/ of the "
            "current folder; submit from another"
        ) from None


def _typed(composed: Composed) -> SlurmConfig:
    """Return the group `slurm:` with the site's defaults."""
    add_site(composed)
    return typed_config(composed).slurm
