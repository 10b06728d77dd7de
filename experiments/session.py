"""One run in its folder, from the first file written to the report: the same for every task.

A task gives the session its work (`Work`): a folder, what is recorded in it, and what each stage does. The session
keeps other processes out, records the state of the run, and leaves a status and a report whatever stops it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities.exceptions import MisconfigurationException

from cytovox.errors import InputError
from cytovox.io.atomic import write_error
from cytovox.io.deletion import remove_if_empty
from experiments.report.page import write_report
from training.run_lock import run_lock
from training.rundir import RunFolder, is_first_rank
from training.signals import Preempted
from training.slurm import ended_early


@dataclasses.dataclass
class RunRequest:
    """What the command line asks for."""

    config: Any
    """A `BaseConfig` of the task; of the resumed run, if one is resumed."""
    stages: list[str]
    """Stages that are still to be done."""
    folder: RunFolder | None = None
    """Folder of a resumed run."""
    dry_run: bool = False
    """Do one step of every stage."""
    changed: list[str] = dataclasses.field(default_factory=list)
    """Keys of a resumed run that have another value from now on."""
    watch: Path | None = None
    """Folder whose new files are analysed as they appear."""


class Work(ABC):
    """What a task does in a session."""

    #: Whether Ctrl-C is the usual end, as of a run that watches a folder.
    ends_by_interrupt = False

    def __init__(self, request: RunRequest, folder: RunFolder) -> None:
        self.request, self.folder = request, folder
        self.fresh = request.folder is None and not (folder.path / "config.yaml").is_file()
        """False in a folder that holds a run already, such as that of a restarted job."""

    @property
    def config(self) -> Any:
        """The config of the run."""
        return self.request.config

    @property
    def shard(self) -> str | None:
        """Part of the inputs, such as 3/16; status, report and tables are written by a run without it."""
        return None

    @property
    def how_to_resume(self) -> str:
        """End of the message about a run that was stopped."""
        return f"go on with resume={self.folder.path}"

    @abstractmethod
    def record(self) -> None:
        """Write the config and the environment into the folder; called on the first rank only."""

    def begin(self) -> None:  # noqa: B027 - most tasks have nothing to build
        """Build what the stages share. Where it raises `InputError`, a fresh folder is removed."""

    @abstractmethod
    def report(self, folder: Path) -> dict[str, Any]:
        """Return what the sections of the report show, from the files of the run folder."""

    @abstractmethod
    def run_stage(self, stage: str) -> None:
        """Do a stage, on every rank."""

    def close(self, status: str, resumes: bool = False) -> None:  # noqa: B027 - most tasks log nowhere else
        """End other logs; `status` is that of the run, and `resumes` whether it will be run again."""

    @abstractmethod
    def finished(self) -> int:
        """Print the results; return the exit code."""


def run_session(work: Work) -> int:
    """Do the stages that are left, and leave a status and a report whatever happens.

    Parameters
    ----------
    work : Work
        What the task does, and where.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    InputError
        Another process works in the folder, or invalid input.
    Preempted
        The run was asked to stop, and can be resumed.
    """
    shard, begun = work.shard and work.shard.replace("/", "of"), False
    with run_lock(work.folder, shard):
        try:
            if is_first_rank() and (shard is None or not (work.folder.path / "config.yaml").is_file()):
                work.record()
            work.begin()
            begun = True
            for stage in work.request.stages:
                work.run_stage(stage)
                if is_first_rank() and shard is None:
                    work.folder.stage_done(stage)
        except BaseException as error:
            if isinstance(error, InputError) and not begun and work.fresh:
                work.close("failed")  # or W&B writes into the folder again when Python ends
                _discard(work.folder)
                raise
            if not (work.ends_by_interrupt and isinstance(error, KeyboardInterrupt)):
                _stopped(work, error)
        if shard is None:
            _close(work, "finished")
        return work.finished()


def _discard(folder: RunFolder) -> None:
    """Remove the folder of a run that could not begin, unless it was there before."""
    if is_first_rank() and folder.made is not None:
        folder.made.remove()
        remove_if_empty(folder.path.parent)  # that of the run's name, if there is no other run in it


def _stopped(work: Work, error: BaseException) -> None:
    """Record how the run ended, and raise the message for the user."""
    # Lightning turns Ctrl-C into SystemExit
    stopped, preempted = isinstance(error, KeyboardInterrupt | SystemExit), isinstance(error, Preempted)
    if work.shard is None:
        status = "preempted" if preempted else "interrupted" if stopped else "failed"
        _close(work, status, resumes=preempted and not ended_early(error))
    if preempted:
        raise Preempted(f"stopped by {error}; {work.how_to_resume}") from error
    if stopped:
        raise KeyboardInterrupt(f"stopped; {work.how_to_resume}") from error
    if isinstance(error, MisconfigurationException):  # what Lightning finds only when it meets the data
        raise InputError(f"trainer: {' '.join(str(error).split())}") from error
    if (full := write_error(error, work.folder.path)) is not None:
        raise InputError(f"{full}, then {work.how_to_resume}") from error
    raise error


def _close(work: Work, status: str, resumes: bool = False) -> None:
    """Write status and report, and end other logs. After a failure nothing here may hide what failed."""
    try:
        if is_first_rank():
            work.folder.update_status(status=status, ended=now())
            write_report(work.folder.path, work.report)
        work.close(status, resumes)
    except (InputError, OSError):
        # such as the full disk that ended the run: it is reported once
        if status == "finished":
            raise
    except Exception:
        if status == "finished":
            raise
        logging.getLogger(__name__).exception("the report of the %s run could not be written", status)


def now() -> str:
    """Return the time as it stands in status.json: ISO 8601, UTC."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
