"""Session of one run in its folder, from the first file to the report; the same for every task.

A task provides the work (`Work`): a folder, the files that describe the run, and the stages. The session locks the
folder, records the state of the run, and writes status and report even if the run fails.
"""

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
    """A run as the command line requests it."""

    config: Any
    """Config of the task (a `BaseConfig`), with that of a resumed run merged into it."""
    stages: list[str]
    """Stages to do."""
    folder: RunFolder | None = None
    """Folder of a resumed run."""
    dry_run: bool = False
    """Do one step of every stage."""
    changed: list[str] = dataclasses.field(default_factory=list)
    """Keys of a resumed run with a new value."""
    watch: Path | None = None
    """Folder whose new files are analysed as they appear."""


class Work(ABC):
    """The work of a task in a session."""

    #: Whether Ctrl-C is the normal end, as for a run that watches a folder.
    ends_by_interrupt = False

    def __init__(self, request: RunRequest, folder: RunFolder) -> None:
        self.request, self.folder = request, folder
        self.config: Any = request.config
        """Config of the run."""
        self.fresh = request.folder is None and not (folder.path / "config.yaml").is_file()
        """Whether the folder holds no run yet; False for a restarted job."""

    @property
    def shard(self) -> str | None:
        """Part of the inputs, such as 3/16; None for a run that writes status, report and tables itself."""
        return getattr(getattr(self.config, "predict", self.config), "shard", None)

    @property
    def how_to_resume(self) -> str:
        """Advice in the message about a stopped run."""
        return f"continue with resume={self.folder.path}"

    @abstractmethod
    def record(self) -> None:
        """Write config and environment to the folder; called on the first rank only."""

    def begin(self) -> None:  # noqa: B027 - most tasks have nothing to build
        """Build objects that the stages share. If it raises `InputError`, a fresh folder is removed."""

    @abstractmethod
    def report(self, folder: Path) -> dict[str, Any]:
        """Return the content of the report's sections, read from the files of the run folder."""

    @abstractmethod
    def run_stage(self, stage: str) -> None:
        """Run a stage; called on every rank."""

    def close(self, status: str, resumes: bool = False) -> None:  # noqa: B027 - most tasks log nowhere else
        """Close other logs.

        Parameters
        ----------
        status : str
            Final status of the run.
        resumes : bool
            Whether the run will be resumed.
        """

    @abstractmethod
    def finished(self) -> int:
        """Print the results; return the exit code."""


def run_session(work: Work) -> int:
    """Run the stages, and write status and report in any case.

    Parameters
    ----------
    work : Work
        Work of the task.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    InputError
        Another process is working in the folder, or the input is invalid.
    Preempted
        The run was stopped by a signal and can be resumed.
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
                work.close("failed")  # otherwise W&B would write to the folder at the end of Python
                if is_first_rank() and work.folder.made is not None:
                    work.folder.made.remove()
                    remove_if_empty(work.folder.path.parent)
                raise
            if not (work.ends_by_interrupt and isinstance(error, KeyboardInterrupt)):
                _stopped(work, error)
        if shard is None:
            _close(work, "finished")
        return work.finished()


def _stopped(work: Work, error: BaseException) -> None:
    """Record how the run ended, and raise the error for the user."""
    # Lightning raises SystemExit after Ctrl-C
    stopped, preempted = isinstance(error, KeyboardInterrupt | SystemExit), isinstance(error, Preempted)
    if work.shard is None:
        status = "preempted" if preempted else "interrupted" if stopped else "failed"
        _close(work, status, resumes=preempted and not ended_early(error))
    if preempted:
        raise Preempted(f"stopped by {error}; {work.how_to_resume}") from error
    if stopped:
        raise KeyboardInterrupt(f"stopped; {work.how_to_resume}") from error
    if isinstance(error, MisconfigurationException):  # such as an error that Lightning finds in the data
        raise InputError(f"trainer: {' '.join(str(error).split())}") from error
    if (full := write_error(error, work.folder.path)) is not None:
        raise InputError(f"{full}, then {work.how_to_resume}") from error
    raise error


def _close(work: Work, status: str, resumes: bool = False) -> None:
    """Write status and report, and close other logs; after a failure, errors in doing so do not replace it."""
    try:
        if is_first_rank():
            work.folder.update_status(status=status, ended=now())
            write_report(work.folder.path, work.report)
        work.close(status, resumes)
    except Exception as error:
        if status == "finished":
            raise
        if not isinstance(error, InputError | OSError):  # such as a full disk, which is reported already
            logging.getLogger(__name__).exception("the report of the %s run could not be written", status)


def now() -> str:
    """Return the current time as in status.json: ISO 8601, UTC."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
