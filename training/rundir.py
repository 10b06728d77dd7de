"""The run folder: one place for everything a run knows and makes, the same for every rank and every restart."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from pytorch_lightning.utilities import rank_zero_only

from cytovox.errors import InputError
from cytovox.io.atomic import atomic_path
from cytovox.io.deletion import MadeFolder, require_no_links
from cytovox.io.names import safe_name
from training.slurm import in_a_shell

#: Ranks that Lightning starts by itself inherit this, so that all of them use the folder of rank 0.
ENV_RUN_DIR = "CYTOVOX_RUN_DIR"
#: A sweep's agent names its runs by this, so that it finds them again.
ENV_RUN_ID = "CYTOVOX_RUN_ID"
#: Seconds that another process may hold the status.
LOCK_S = 30


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_path(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(values, indent=2, sort_keys=True) + "\n")


class RunFolder:
    """`runs/<name>/<id>/` and the files in it that are not a library's own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.made: MadeFolder | None = None
        """Set where this process made the folder: it may then be removed again."""

    @classmethod
    def create(cls, runs_dir: Path, name: str, dry_run: bool = False, fresh: bool = False) -> RunFolder:
        """Make (or, on any rank but the first, join) the folder of a new run.

        Parameters
        ----------
        runs_dir : Path
            Where runs lie.
        name : str
            Of the run.
        dry_run : bool
            Whether the folder says that it is no run's.
        fresh : bool
            Nobody joins it and no job goes on in it, whatever the environment says: it is for another job.

        Raises
        ------
        InputError
            The folder cannot be made or written to.
        """
        # the first rank makes its own, or a second run in one process would write over the first
        given = os.environ.get(ENV_RUN_DIR) if not (fresh or is_first_rank()) else None
        run_id = safe_name(_by_time() if fresh else _run_id())
        path = Path(given) if given else _new_folder(runs_dir / name, ("dry-" if dry_run else "") + run_id)
        folder = cls(path.absolute())
        with contextlib.suppress(OSError):  # said below
            folder.made = MadeFolder.make(folder.path)
        folder.require_writable()
        os.environ[ENV_RUN_DIR] = str(folder.path)
        return folder

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """The folder of an earlier run.

        Raises
        ------
        InputError
            No folder there, or one that is not a run's.
        """
        for name in ("config.yaml", "status.json"):  # a folder with a config of the user's own is no run's
            if not (path / name).is_file():
                raise InputError(f"resume: {path}: not a run folder (no {name} in it); expected runs/<name>/<id>")
        folder = cls(path.absolute())
        folder.require_writable()
        os.environ[ENV_RUN_DIR] = str(folder.path)
        return folder

    def require_writable(self) -> None:
        """Fail now, in one line, rather than after an hour of training."""
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

    @property
    def checkpoints(self) -> Path:
        """Weights and trainer state."""
        return self.path / "checkpoints"

    @property
    def predictions(self) -> Path:
        """Masks of the predict stage."""
        return self.path / "predictions"

    @property
    def tables(self) -> Path:
        """CSV tables."""
        return self.path / "tables"

    @property
    def figures(self) -> Path:
        """PNG figures and GLB scenes."""
        return self.path / "figures"

    @property
    def last_checkpoint(self) -> Path:
        """What a resumed run goes on from."""
        return self.checkpoints / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """Best by the validation metric."""
        return self.checkpoints / "best.ckpt"

    def weights(self) -> Path | None:
        """The checkpoint to test and predict with: the best, else the last, else None."""
        return next((p for p in (self.best_checkpoint, self.last_checkpoint) if p.is_file()), None)

    def update_metrics(self, values: Mapping[str, float]) -> None:
        """Merge flat numbers into `metrics.json`: of a step when a fit begins, all others when a stage has ended."""
        known = self.metrics()
        known.update({key: float(value) for key, value in values.items()})
        write_json(self.path / "metrics.json", known)

    def metrics(self) -> dict[str, float]:
        """Numbers of the stages that ended."""
        return dict(self._read("metrics.json"))

    def status(self) -> dict[str, Any]:
        """State of the run: `status`, `stages_done`, `started`, `ended`."""
        return {"status": "new", "stages_done": [], **self._read("status.json")}

    def update_status(self, **values: Any) -> None:
        """Change the state, whole or not at all: what another task of an array has just said stays."""
        with contextlib.ExitStack() as stack:
            # some cluster disks have no locks: there, only what two tasks say at the same moment is at risk
            with contextlib.suppress(OSError, NotImplementedError):
                stack.enter_context(FileLock(self.path / ".lock-status", timeout=LOCK_S))
            write_json(self.path / "status.json", {**self.status(), **values})

    def stage_done(self, stage: str) -> None:
        """Note that a stage came to its end, so that a resumed run does not repeat it."""
        done = self.status()["stages_done"]
        self.update_status(stages_done=[*done, *([] if stage in done else [stage])])

    def _read(self, name: str) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError, json.JSONDecodeError):
            values = json.loads((self.path / name).read_text(encoding="utf-8"))
            if isinstance(values, dict):
                return values
        return {}


def _new_folder(parent: Path, run_id: str) -> Path:
    """A restarted job goes on in its folder; a second run in the job of a finished one takes a folder of its own."""
    path, number = parent / run_id, 2
    while RunFolder(path).status()["status"] == "finished":
        path, number = parent / f"{run_id}-{number}", number + 1
    return path


def _run_id() -> str:
    """Unique, sortable by time; the same on every rank that a cluster starts together, and for a sweep's run again."""
    if named := os.environ.get(ENV_RUN_ID):
        return named
    if "WANDB_SWEEP_ID" in os.environ and "WANDB_RUN_ID" in os.environ:
        return f"sweep-{os.environ['WANDB_SWEEP_ID']}-{os.environ['WANDB_RUN_ID']}"
    job, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if job and task:
        return f"slurm-{job}_{task}"
    # a person in a job's shell begins a new run each time; a job is begun again with its number
    if "SLURM_JOB_ID" in os.environ and "SLURM_PROCID" in os.environ and not in_a_shell():
        return f"slurm-{os.environ['SLURM_JOB_ID']}"
    if (elastic := os.environ.get("TORCHELASTIC_RUN_ID")) is not None:
        # torchrun calls a run that nobody named "none": its own process tells it from the next
        return f"elastic-{elastic}" if elastic != "none" else time.strftime("elastic-%Y%m%d-") + str(os.getppid())
    return _by_time()


def _by_time() -> str:
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


def is_first_rank() -> bool:
    """Whether this process writes: before Lightning's trainer exists, the launcher's variables tell."""
    return int(getattr(rank_zero_only, "rank", None) or 0) == 0


def newest_run(runs_dir: Path, name: str) -> RunFolder | None:
    """The newest run of a name that left weights, or None."""
    folders = [p for p in (runs_dir / name).glob("*") if (p / "config.yaml").is_file()]
    for path in sorted(folders, key=lambda p: (p / "config.yaml").stat().st_mtime, reverse=True):
        if RunFolder(path).weights() is not None and not RunFolder(path).status().get("dry_run"):
            return RunFolder(path)
    return None
