"""Submission of jobs to SLURM."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from cytovox.errors import InputError
from cytovox.io.deletion import remove_file
from experiments.submit.config import SlurmConfig
from experiments.submit.script import Job, script_of
from training.rundir import write_text
from training.slurm import SCRIPT, job_number, run_slurm


class Refused(InputError):
    """SLURM accepted no job: its folder may be removed."""


def require_slurm() -> None:
    """Raise `InputError` if `sbatch` is not installed."""
    if shutil.which("sbatch") is None:
        raise InputError(
            "--submit: no SLURM on this machine (sbatch is not found); run it on a login node of the cluster, or see "
            "the script with --submit --dry-run"
        )


def submit_job(job: Job, text: str) -> str:
    """Write the script of a job, submit it, and return its id.

    Raises
    ------
    Refused
        SLURM refuses the job; the message is SLURM's.
    InputError
        SLURM accepted the job but returned no job id.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    script = job.folder / SCRIPT.name
    write_text(script, text)
    for old in job.folder.glob("killed*"):  # `retries` count from the submission
        if re.fullmatch(r"killed(_?\d+)?", old.name):
            remove_file(old, job.folder)
    try:
        done = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    except OSError as error:
        raise Refused(f"--submit: sbatch cannot be run: {error}") from None
    if done.returncode != 0:
        raise Refused(f"--submit: SLURM refuses: {' '.join((done.stderr or done.stdout).split())}")
    if (number := job_number(done.stdout)) is None:
        raise InputError(
            f"--submit: sbatch printed {' '.join(done.stdout.split())!r}, expected a job's number in the last line; "
            f"see squeue --me for what it began, whose script is {script}"
        )
    return number


def submit_array(array: Job, text: str, gather: Job, config: SlurmConfig) -> str:
    """Submit an array and the job that gathers its results; return the id of the array.

    Raises
    ------
    InputError
        See `submit_job`. If the second job is refused, the array is cancelled.
    """
    gather.after = number = submit_job(array, text)
    try:
        submit_job(gather, script_of(gather, config, Path.cwd(), sys.executable))
    except Refused as error:
        if run_slurm(["scancel", number]) is None:
            raise InputError(f"{error}; job {number}, which it would gather, could not be cancelled: do that") from None
        raise
    return number
