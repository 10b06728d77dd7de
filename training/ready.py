"""Ranks that `srun` starts together wait for the first to prepare the data."""

from __future__ import annotations

import glob
import os
import time
from pathlib import Path

from cytovox.io.deletion import remove_file
from training.rundir import RunFolder

#: Seconds between two looks.
LOOK_S = 0.5


def tell_ready(folder: RunFolder) -> None:
    """Of the first rank: the data are prepared."""
    mark = _mark(folder)
    # only this job's: the tasks of an array share the folder, and the ranks of another still look for theirs
    for old in folder.path.glob(f".ready-{glob.escape(_job())}-*"):
        if old.stat().st_size == 0:
            remove_file(old, folder.path)
    mark.touch()


def wait_until_ready(folder: RunFolder) -> None:
    """Of the others. Torch's rendezvous would give up after half an hour, and preparing may take longer.

    Without a limit: where the first rank fails, `srun` ends the others.
    """
    while not _mark(folder).exists():
        time.sleep(LOOK_S)


def _mark(folder: RunFolder) -> Path:
    """Of this start of this job: what an earlier one left says nothing."""
    names = ("SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    return folder.path / ".ready-{}-{}-{}".format(_job(), *(os.environ.get(name, "0") for name in names))


def _job() -> str:
    """Each task of an array has a number of its own."""
    return os.environ.get("SLURM_JOB_ID", "0")
