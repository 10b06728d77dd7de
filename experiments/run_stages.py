"""A run from its folder to its report, whatever stops it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import logging
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from cytovox.errors import InputError
from cytovox.io.atomic import write_error
from cytovox.io.deletion import remove_if_empty, sweep
from experiments.build import build_loggers
from experiments.config import resolved, to_yaml
from experiments.report.data import read_json
from experiments.report.page import write_report
from experiments.schema import Config
from experiments.stages import Run
from experiments.summary import print_summary
from experiments.tasks import task_of
from training.environment import describe_environment
from training.exact import ExactResume
from training.metrics_log import MetricsCSV
from training.preemption import Preemption
from training.run_lock import run_lock
from training.rundir import RunFolder, is_first_rank, write_json, write_text
from training.signals import Preempted, StopSignals
from training.slurm import ended_early
from training.trainer import build_trainer, checkpoint_path
from training.wandb_log import finish, log_results


@dataclasses.dataclass
class RunRequest:
    """What the command line asks for."""

    config: Config
    """Of the resumed run, if one is."""
    stages: list[str]
    """Those that are still to be done."""
    folder: RunFolder | None
    """Of a resumed run."""
    dry_run: bool
    """One step of every stage."""
    changed: list[str] = dataclasses.field(default_factory=list)
    """Keys of a resumed run that are another from now on."""

    @property
    def shard(self) -> str | None:
        """Part of a prediction that several processes share: its status, report and table are of whoever gathers."""
        shard: str | None = getattr(self.config.predict, "shard", None)
        return shard


def run_stages(request: RunRequest, folder: RunFolder, data: Any, inputs: list[Path], signals: StopSignals) -> None:
    """Do the stages that are left, and leave a status and a report whatever happens.

    Raises
    ------
    InputError
        Another process is at work in the folder, or what the user can mend.
    Preempted
        The run was asked to stop, and can be gone on with.
    """
    with run_lock(folder, request.shard and request.shard.replace("/", "of")):
        _run(request, folder, data, inputs, signals)


def _run(request: RunRequest, folder: RunFolder, data: Any, inputs: list[Path], signals: StopSignals) -> None:
    config, first = request.config, is_first_rank()
    tree = resolved(config)
    whole = first and request.shard is None
    wandb, begun = None, False
    # a restarted job finds the folder that it made before, with all that is in it
    fresh = request.folder is None and not (folder.path / "config.yaml").is_file()
    try:
        if whole or (first and not (folder.path / "config.yaml").is_file()):
            _record(request, folder, tree, data)
        # a test alone has no step, and would add a row of step 0
        metrics = MetricsCSV(folder.path / "metrics.csv", _last_step(folder)) if "fit" in request.stages else None
        loggers = build_loggers(config, folder, tree, metrics, request.dry_run or request.shard is not None)
        wandb = next((log for log in loggers if isinstance(log, WandbLogger)), None)
        stopper = Preemption(signals, folder.last_checkpoint, config.trainer.save_every_minutes)
        trainer = build_trainer(
            config.trainer, folder, loggers, task_of(config).monitor, request.dry_run,
            [ExactResume(config.seed), stopper], config.data.batch_size,
        )  # fmt: skip
        run = Run(config, folder, trainer, data, inputs, signals, request.dry_run)
        begun = True
        for stage in request.stages:
            getattr(run, stage)()
            if whole:
                folder.stage_done(stage)
    except BaseException as error:
        if isinstance(error, InputError) and not begun and fresh:
            finish(wandb, ended_well=False)  # or W&B writes into the folder again when Python ends
            _discard(folder)
            raise
        # Lightning turns Ctrl-C into SystemExit
        stopped, preempted = isinstance(error, KeyboardInterrupt | SystemExit), isinstance(error, Preempted)
        if request.shard is None:
            status = "preempted" if preempted else "interrupted" if stopped else "failed"
            _close(folder, wandb, status, goes_on=preempted and not ended_early(error))
        if preempted:
            raise Preempted(f"stopped by {error}; go on with resume={folder.path}") from error
        if stopped:
            raise KeyboardInterrupt(f"stopped; go on with resume={folder.path}") from error
        if isinstance(error, MisconfigurationException):  # what Lightning sees only when it meets the data
            raise InputError(f"trainer: {' '.join(str(error).split())}") from error
        if (full := write_error(error, folder.path)) is not None:
            raise InputError(f"{full}, then go on with resume={folder.path}") from error
        raise
    if request.shard is None:
        _close(folder, wandb, "finished")
        if first:
            print_summary(folder, config)
    elif first:
        print(f"shard {request.shard} is done\nrun: {folder.path}", flush=True)


def _discard(folder: RunFolder) -> None:
    """Leave nothing of a run that could not begin."""
    if is_first_rank() and folder.made is not None:  # a folder that was there before is not this run's to remove
        folder.made.remove()
        remove_if_empty(folder.path.parent)  # of the run's name, if there is no other run in it


def _close(folder: RunFolder, wandb: WandbLogger | None, status: str, goes_on: bool = False) -> None:
    """Status, report and W&B. After a failure nothing here may hide what failed."""
    try:
        if is_first_rank():
            folder.update_status(status=status, ended=_now())
            write_report(folder.path)
            log_results(wandb, folder, folder.metrics())
        finish(wandb, status == "finished", goes_on)
    except (InputError, OSError):
        # such as the full disk that ended the run: it is told once
        if status == "finished":
            raise
    except Exception:
        if status == "finished":
            raise
        logging.getLogger(__name__).exception("the report of the %s run could not be written", status)


def _record(request: RunRequest, folder: RunFolder, tree: dict[str, Any], data: Any) -> None:
    """What the run is, before it begins; a resumed run keeps environment_1.json of its start, and changed configs."""
    if (folder.path / "config.yaml").is_file():
        sweep(folder.path)
        left = [stage for stage in folder.status()["stages_done"] if stage not in request.stages]
        folder.update_status(stages_done=left)  # what is done again is not done until it is
        if request.changed:
            _record_changes(folder, tree)
    else:
        folder.update_status(status="running", started=_now())
        predict = {**tree["predict"], **({"shard": None} if request.shard else {})}
        write_text(folder.path / "config.yaml", to_yaml({**tree, "predict": predict, "resume": None}))
    digest = data.digest() if {"fit", "test"} & set(request.stages) else None
    earlier = read_json(folder.path / "environment.json")
    environment = describe_environment(request.config.seed, digest or earlier.get("data_digest"))
    if earlier:
        write_json(folder.path / f"environment_{1 + len(list(folder.path.glob('environment_*.json')))}.json", earlier)
    write_json(folder.path / "environment.json", environment)
    folder.update_status(status="running", started=folder.status().get("started") or _now(), dry_run=request.dry_run)


def _record_changes(folder: RunFolder, tree: dict[str, Any]) -> None:
    """Let config.yaml say what the run is from now on; the one before is kept as config_1.yaml and so on."""
    path = folder.path / "config.yaml"
    text = path.read_text(encoding="utf-8")
    earlier = yaml.safe_load(text)
    number = next(n for n in itertools.count(1) if not (folder.path / f"config_{n}.yaml").exists())
    write_text(folder.path / f"config_{number}.yaml", text)
    of_the_call = {key: earlier[key] for key in ("stages", "predict") if key in earlier}
    write_text(path, to_yaml({**tree, **of_the_call, "resume": None}))


def _last_step(folder: RunFolder) -> int | None:
    """Step of the checkpoint that a resumed fit goes on from."""
    path = checkpoint_path(folder)
    return int(torch.load(path, map_location="cpu", weights_only=True)["global_step"]) if path is not None else None


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
