"""Run folder: all files of a run, in the same layout for every rank and every restart."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from pytorch_lightning.utilities import rank_zero_only

from cytovox.errors import InputError
from cytovox.io.atomic import atomic_path
from cytovox.io.deletion import MadeFolder, require_no_links
from cytovox.io.names import safe_name
from training.slurm import in_a_shell

#: Environment variable with the run folder of rank 0, for ranks that Lightning starts.
ENV_RUN_DIR = "CYTOVOX_RUN_DIR"
#: Environment variable with the run id that a sweep's agent chose.
ENV_RUN_ID = "CYTOVOX_RUN_ID"
#: Seconds to wait for the lock of `status.json`.
LOCK_S = 30


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(values, indent=2, sort_keys=True) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV table atomically; missing values are empty cells."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=columns, lineterminator="\n", restval="")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if there is no file or it holds no JSON object."""
    with contextlib.suppress(OSError, ValueError):
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict):
            return values
    return {}


class RunFolder:
    """The folder `runs/<name>/<id>/` and the files in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.made: MadeFolder | None = None
        """Set if this process created the folder: only then may it be removed."""
        self.checkpoints = path / "checkpoints"
        """Weights and trainer state."""
        self.predictions = path / "predictions"
        """Masks or shapes of the predict stage."""
        self.tables = path / "tables"
        """CSV tables."""
        self.figures = path / "figures"
        """PNG figures and GLB scenes."""
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        """Checkpoint that a resumed training starts from."""
        self.best_checkpoint = self.checkpoints / "best.ckpt"
        """Checkpoint with the best validation metric."""

    @classmethod
    def create(cls, runs_dir: Path, name: str, dry_run: bool = False, fresh: bool = False) -> RunFolder:
        """Create the folder of a new run; on ranks other than the first, use the folder of the first.

        Parameters
        ----------
        runs_dir : Path
            Parent folder of all runs.
        name : str
            Name of the run.
        dry_run : bool
            Mark the folder's name as that of a dry run.
        fresh : bool
            Ignore the run ids in the environment: the folder is for another job.

        Raises
        ------
        InputError
            The folder cannot be created or written to.
        """
        # rank 0 ignores ENV_RUN_DIR: otherwise a second run in the same process would overwrite the first
        given = os.environ.get(ENV_RUN_DIR) if not (fresh or is_first_rank()) else None
        run_id = safe_name(_by_time() if fresh else _run_id())
        path = Path(given) if given else _new_folder(runs_dir / name, ("dry-" if dry_run else "") + run_id)
        made = None
        with contextlib.suppress(OSError):  # reported by require_writable
            made = MadeFolder.make(path.absolute())
        folder = cls._opened(path)
        folder.made = made
        return folder

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Return the folder of an earlier run.

        Raises
        ------
        InputError
            There is no such folder, or it is not a run folder.
        """
        for name in ("config.yaml", "status.json"):  # a folder with only a config.yaml may be the user's own
            if not (path / name).is_file():
                raise InputError(f"resume: {path}: not a run folder (no {name} in it); expected runs/<name>/<id>")
        return cls._opened(path)

    @classmethod
    def _opened(cls, path: Path) -> RunFolder:
        folder = cls(path.absolute())
        folder.require_writable()
        os.environ[ENV_RUN_DIR] = str(folder.path)
        return folder

    def require_writable(self) -> None:
        """Raise `InputError` if the folder cannot be written to: before the training, not after it."""
        require_no_links(self.path)
        try:
            for part in (self.path, self.checkpoints, self.tables, self.figures):
                part.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise InputError(
                f"run folder {self.path}: cannot be written ({error.strerror or error}); choose another with runs_dir="
            ) from None

    def weights(self) -> Path | None:
        """Return the checkpoint for test and predict: the best one, else the last one, else None."""
        return next((p for p in (self.best_checkpoint, self.last_checkpoint) if p.is_file()), None)

    def update_metrics(self, values: Mapping[str, float]) -> None:
        """Merge numbers into `metrics.json`."""
        write_json(self.path / "metrics.json", {**self.metrics(), **{key: float(v) for key, v in values.items()}})

    def metrics(self) -> dict[str, float]:
        """Return the numbers of `metrics.json`."""
        return read_json(self.path / "metrics.json")

    def status(self) -> dict[str, Any]:
        """Return the state of the run: `status`, `stages_done`, `started`, `ended`."""
        return {"status": "new", "stages_done": [], **read_json(self.path / "status.json")}

    def update_status(self, **values: Any) -> None:
        """Merge values into `status.json` under a lock: tasks of an array may write at the same time."""
        with contextlib.ExitStack() as stack:
            # some cluster file systems have no locks: there, simultaneous updates of two tasks may overwrite each other
            with contextlib.suppress(OSError, NotImplementedError):
                stack.enter_context(FileLock(self.path / ".lock-status", timeout=LOCK_S))
            write_json(self.path / "status.json", {**self.status(), **values})

    def stage_done(self, stage: str) -> None:
        """Record that a stage is complete, so that a resumed run does not repeat it."""
        self.update_status(stages_done=list(dict.fromkeys([*self.status()["stages_done"], stage])))


def _new_folder(parent: Path, run_id: str) -> Path:
    """Return the folder of this run id; a second run of the same job gets a numbered folder.

    A restarted job continues in its folder, unless the run in it is finished.
    """
    path, number = parent / run_id, 2
    while RunFolder(path).status()["status"] == "finished":
        path, number = parent / f"{run_id}-{number}", number + 1
    return path


def _run_id() -> str:
    """Return a unique id, sortable by time; equal on all ranks of a job and after a restart of the job."""
    if named := os.environ.get(ENV_RUN_ID):
        return named
    if "WANDB_SWEEP_ID" in os.environ and "WANDB_RUN_ID" in os.environ:
        return f"sweep-{os.environ['WANDB_SWEEP_ID']}-{os.environ['WANDB_RUN_ID']}"
    job, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if job and task:
        return f"slurm-{job}_{task}"
    # each run in an interactive job is a new one; a batch job that is requeued keeps its id
    if "SLURM_JOB_ID" in os.environ and "SLURM_PROCID" in os.environ and not in_a_shell():
        return f"slurm-{os.environ['SLURM_JOB_ID']}"
    if (elastic := os.environ.get("TORCHELASTIC_RUN_ID")) is not None:
        # torchrun's default run id is "none": the process id of torchrun makes it unique
        return f"elastic-{elastic}" if elastic != "none" else time.strftime("elastic-%Y%m%d-") + str(os.getppid())
    return _by_time()


def _by_time() -> str:
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


def is_first_rank() -> bool:
    """Return whether this process is rank 0; before a trainer exists, by the launcher's environment variables."""
    return int(getattr(rank_zero_only, "rank", None) or 0) == 0


def newest_run(runs_dir: Path, name: str) -> RunFolder | None:
    """Return the newest run of a name that has weights and is no dry run, or None."""
    configs = sorted((runs_dir / name).glob("*/config.yaml"), key=lambda p: p.stat().st_mtime, reverse=True)
    folders = (RunFolder(config.parent) for config in configs if config.is_file())
    return next((run for run in folders if run.weights() is not None and not run.status().get("dry_run")), None)
