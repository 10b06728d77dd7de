"""Weights & Biases logger: one W&B run per run folder, offline without a W&B key."""

import netrc
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from cytovox.errors import InputError
from training.rundir import RunFolder, is_first_rank

#: Seconds to wait for W&B's server before a run continues offline.
INIT_TIMEOUT_S = 40.0
#: Seconds for the upload after a run was stopped: without a network it would take longer than the job has left.
STOPPED_TIMEOUT_S = 30.0


def wandb_mode(wanted: str) -> str:
    """Return the mode of W&B. `auto` is WANDB_MODE (which a sweep's agent sets) or else online with a key.

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


def wandb_logger(settings: Any, folder: RunFolder, name: str, tree: dict[str, Any]) -> WandbLogger | None:
    """Return the logger of a run, or None if W&B is disabled.

    Parameters
    ----------
    settings : LoggingConfig
        Group `logging:` of the config: mode, project, entity, group, tags.
    folder : RunFolder
        Run folder, whose status holds the W&B id: a resumed run continues in the same W&B run.
    name : str
        Name of the run.
    tree : dict
        The resolved config.

    Raises
    ------
    InputError
        `online` without a key.
    """
    mode = wandb_mode(settings.wandb)
    if mode == "disabled":
        return None
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
            id=folder.status().get("wandb_id"),
            resume="allow",
            mode=mode,
            config=tree,
            settings=wandb.Settings(init_timeout=INIT_TIMEOUT_S),
        )
        # Lightning always passes this argument, of which W&B warns
        getattr(logger, "_wandb_init", {}).pop("anonymous", None)
        return logger

    return _begun(build, mode, folder) if is_first_rank() else build(mode)


def _begun(build: Callable[[str], WandbLogger], mode: str, folder: RunFolder) -> WandbLogger:
    """Return a logger whose W&B run has started; offline if the server does not answer or refuses the key.

    Also offline if W&B cannot parse an environment variable, such as WANDB_BASE_URL without https://.
    """
    import wandb

    logger = build(mode)
    try:
        run = logger.experiment
    except (wandb.errors.Error, ValueError) as error:
        reason = _unreadable(error) or str(error).splitlines()[0].rstrip(".")
        print(
            f"note: W&B cannot be reached or refuses ({reason}); the run continues offline; "
            f"afterwards: wandb sync {folder.path}/wandb/offline-run-*",
            file=sys.stderr,
        )
        logger = build("offline")
        run = logger.experiment
    if folder.status().get("wandb_id") is None:
        folder.update_status(wandb_id=str(run.id))
    return logger


def _unreadable(error: Exception) -> str:
    """Delete the environment variables that W&B cannot parse; return their names and the reasons."""
    import wandb

    found = []
    for part in getattr(error, "errors", list)():  # of pydantic, which parses them for W&B
        name = f"WANDB_{part['loc'][0]}".upper() if part["loc"] else ""
        if os.environ.pop(name, None) is not None:
            given = "" if "KEY" in name else f"={part['input']}"  # a key is not printed
            found.append(f"{name}{given}: {part['msg']}")
    if found:
        wandb.teardown()  # otherwise it keeps the settings that it has parsed
    return " ".join("; ".join(found).split())


@rank_zero_only
def log_results(logger: WandbLogger | None, folder: RunFolder, metrics: dict[str, float]) -> None:
    """Log the final numbers, the overlays and the report."""
    if logger is None:
        return
    import wandb

    run = logger.experiment
    run.summary.update(metrics)
    if overlays := {p.stem: wandb.Image(str(p)) for p in sorted(folder.figures.glob("*.png"))}:
        run.log(overlays)
    if (report := folder.path / "report.html").is_file():
        run.save(str(report), base_path=str(folder.path), policy="now")


@rank_zero_only
def finish(logger: WandbLogger | None, ended_well: bool, preempted: bool = False) -> None:
    """Close the W&B run.

    Parameters
    ----------
    logger : WandbLogger or None
        Logger of the run.
    ended_well : bool
        Whether the run is finished. Otherwise the upload is limited to `STOPPED_TIMEOUT_S`.
    preempted : bool
        Whether the run will be resumed: it is marked for the sweep's server, which then starts it again.
    """
    if logger is None:
        return
    import wandb

    if wandb.run is None:
        return
    if preempted:
        wandb.run.mark_preempting()
    if ended_well:
        wandb.finish(exit_code=0)
        return
    # the rest stays on the disk, for `wandb sync`
    upload = threading.Thread(target=wandb.finish, kwargs={"exit_code": 1}, daemon=True)
    upload.start()
    upload.join(STOPPED_TIMEOUT_S)
