"""Weights & Biases: the same run after every restart, offline where there is no key."""

from __future__ import annotations

import importlib.util
import netrc
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from cytovox.errors import InputError
from training.rundir import RunFolder, is_first_rank

#: Seconds that W&B's server may take to answer before a run goes on offline.
INIT_TIMEOUT_S = 40.0
#: Seconds that the upload has when a run was stopped: a network that is gone must not outlast what the job has left.
STOPPED_TIMEOUT_S = 30.0


class WandbSettings(Protocol):
    """The part of the config this needs."""

    wandb: Any
    project: str
    entity: str | None
    group: str | None
    tags: list[str]


def wandb_mode(wanted: str) -> str:
    """`auto` is online with a key and offline without; a sweep's agent or WANDB_MODE decides before it.

    Raises
    ------
    InputError
        `online` without a key.
    """
    if wanted == "auto":
        return os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
    if wanted == "online" and not _has_key():
        raise InputError("logging.wandb: online needs a W&B key; run `wandb login`, or choose offline")
    return wanted


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0].split(":")[0]
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def wandb_logger(settings: WandbSettings, folder: RunFolder, name: str, tree: dict[str, Any]) -> WandbLogger | None:
    """The logger of this run, or None where W&B is disabled or not installed.

    Parameters
    ----------
    settings : WandbSettings
        Mode, project, entity, group, tags.
    folder : RunFolder
        Holds the W&B id, so that a resumed run goes on in the same one.
    name : str
        The run's name.
    tree : dict
        The resolved config.
    """
    mode = wandb_mode(settings.wandb)
    if mode == "disabled":
        return None
    if importlib.util.find_spec("wandb") is None:
        if settings.wandb == "auto":
            return None
        raise InputError(
            f"logging.wandb: {settings.wandb}: W&B is not installed; pip install wandb, or choose disabled"
        )
    known = folder.status().get("wandb_id")
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    def build(mode: str) -> WandbLogger:
        logger = WandbLogger(
            name=f"{name}/{folder.path.name}",
            save_dir=str(folder.path),
            project=settings.project,
            entity=settings.entity,
            group=settings.group,
            tags=list(settings.tags),
            id=known,
            resume="allow",
            mode=mode,
            config=tree,
            settings=wandb.Settings(init_timeout=INIT_TIMEOUT_S),
        )
        # Lightning always passes this one on, and W&B warns of it
        getattr(logger, "_wandb_init", {}).pop("anonymous", None)
        return logger

    logger = build(mode)
    return _begun(logger, folder, known, lambda: build("offline")) if is_first_rank() else logger


def _begun(
    logger: WandbLogger, folder: RunFolder, known: str | None, offline: Callable[[], WandbLogger]
) -> WandbLogger:
    """A logger whose run has begun: a server that does not answer, or refuses the key, does not stop a training.

    Nor does a variable that W&B cannot read, such as WANDB_BASE_URL without https://.
    """
    import wandb

    try:
        run = logger.experiment
    except (wandb.errors.Error, ValueError) as error:
        reason = _unreadable(error) or str(error).splitlines()[0].rstrip(".")
        print(
            f"note: W&B cannot be reached or refuses ({reason}); the run goes on offline; "
            f"afterwards: wandb sync {folder.path}/wandb/offline-run-*",
            file=sys.stderr,
        )
        logger = offline()
        run = logger.experiment
    if known is None:
        folder.update_status(wandb_id=str(run.id))
    return logger


def _unreadable(error: Exception) -> str:
    """Take the variables that W&B cannot read from the environment, where it would read them again; what they were."""
    import wandb

    found = []
    for part in getattr(error, "errors", list)():  # of pydantic, which reads them for W&B
        name = f"WANDB_{part['loc'][0]}".upper() if part["loc"] else ""
        if os.environ.pop(name, None) is not None:
            given = "" if "KEY" in name else f"={part['input']}"  # a key is nobody's to read
            found.append(f"{name}{given}: {part['msg']}")
    if found:
        wandb.teardown()  # it has begun to read them, and would heed no change
    return " ".join("; ".join(found).split())


@rank_zero_only
def log_results(logger: WandbLogger | None, folder: RunFolder, metrics: dict[str, float]) -> None:
    """Final numbers, overlays, and the report among the run's files."""
    if logger is None:
        return
    import wandb

    run = logger.experiment
    run.summary.update(metrics)
    overlays = {p.stem: wandb.Image(str(p)) for p in sorted(folder.figures.glob("*.png"))}
    if overlays:
        run.log(overlays)
    report = folder.path / "report.html"
    if report.is_file():
        run.save(str(report), base_path=str(folder.path), policy="now")


@rank_zero_only
def finish(logger: WandbLogger | None, ended_well: bool, preempted: bool = False) -> None:
    """Close the W&B run; if it will be resumed, mark it for the sweep's server, which then hands it out again."""
    if logger is not None:
        import wandb

        if wandb.run is not None:
            if preempted:
                wandb.run.mark_preempting()
            if ended_well:
                wandb.finish(exit_code=0)
                return
            # what is not uploaded in time lies on the disk, for wandb sync
            upload = threading.Thread(target=wandb.finish, kwargs={"exit_code": 1}, daemon=True)
            upload.start()
            upload.join(STOPPED_TIMEOUT_S)
