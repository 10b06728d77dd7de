"""One run from its command line to its last printed line."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from experiments.build import build_data, build_loggers
from experiments.check import check_run
from experiments.compose import compose
from experiments.config import load_config, resolved, to_yaml
from experiments.preflight import preflight
from experiments.progress import Bars, hush_lightning
from experiments.report import write_report
from experiments.report_data import read_json
from experiments.schema import STAGES, Config
from experiments.stages import Run
from experiments.summary import print_summary
from experiments.tasks import task_of
from formats.atomic import sweep, write_fault
from formats.errors import InputError
from training.environment import describe_environment
from training.metrics_log import MetricsCSV
from training.rundir import ENV_RUN_DIR, RunFolder, is_first_rank, write_json, write_text
from training.trainer import build_trainer, checkpoint_path
from training.wandb_log import finish, log_results


@dataclasses.dataclass
class Order:
    """What the command line asks for."""

    config: Config
    """Of the resumed run, if one is."""
    stages: list[str]
    """Those that are still to be done."""
    folder: RunFolder | None
    """Of a resumed run."""
    dry_run: bool
    """One step of every stage."""


def launch(
    config: str, overrides: list[str], check: bool = False, dry_run: bool = False, plan_only: bool = False
) -> None:
    """Read the config, make or find the run folder, run the stages, write the report.

    Parameters
    ----------
    config : str
        A file, the name of a shipped config, or `resume=RUN`.
    overrides : list of str
        `key=value` words.
    check : bool
        Audit the data and say what the run would do.
    dry_run : bool
        One step of every stage.
    plan_only : bool
        Only measure what the run would take.

    Raises
    ------
    InputError
        Anything the user can mend.
    """
    inherited = os.environ.get(ENV_RUN_DIR)
    try:
        order = read_order(config, overrides, dry_run)
        if check:
            check_run(order.config, order.stages, order.folder, dry_run)
            return
        inputs = preflight(order.config, order.stages, order.folder, dry_run)
        if plan_only:
            if order.folder is not None:
                raise InputError("resume: not with --plan, which measures a run from its start; leave one of them out")
            task_of(order.config).plan(order.config, order.stages, inputs)
        else:
            _launch(order, inputs)
    finally:
        # ranks inherit the folder; the next run of a notebook must not
        if inherited is None:
            os.environ.pop(ENV_RUN_DIR, None)


def read_order(config: str, overrides: list[str], dry_run: bool = False) -> Order:
    """The config, from the run folder for a resumed run, and the stages that are left to do."""
    if "=" in config and not Path(config).is_file():
        config, overrides = "", [config, *overrides]
    resumed = [word.partition("=")[2] for word in overrides if word.startswith("resume=")]
    if not resumed or resumed[-1] in ("", "null"):
        if not config:
            raise InputError(
                "command line: no CONFIG; give a YAML file, the name of a shipped config, or resume=RUN_FOLDER"
            )
        loaded = load_config(config, overrides)
    else:
        loaded = _config_of_run(resumed[-1], config, overrides)
    stages = [stage for stage in STAGES if stage in loaded.stages]  # in the one order that makes sense
    if loaded.resume is None:
        return Order(loaded, stages, None, dry_run)
    if dry_run:
        raise InputError("resume: not with --dry-run, which would train over that run's weights; leave one of them out")
    folder = RunFolder.existing(Path(loaded.resume))
    # stages named on the command line are done again
    named = any(word.startswith("stages=") for word in overrides)
    done = [] if named else folder.status()["stages_done"]
    return Order(loaded, [stage for stage in stages if stage not in done], folder, dry_run)


def _config_of_run(run: str, config: str, overrides: list[str]) -> Config:
    source = RunFolder.existing(Path(run)).path / "config.yaml"
    if config:
        given, kept = compose(config).values, compose(str(source)).values
        for key in ("name", "task"):
            if given.get(key, kept.get(key)) != kept.get(key):
                raise InputError(f"resume: {run} is a run of {key} {kept.get(key)}, but {config} says {given[key]}")
    return load_config(source, overrides)


def _launch(order: Order, inputs: list[Path]) -> None:
    config = order.config
    if order.folder is not None and not order.stages:
        print("nothing is left to do; stages=[...] does a stage again")
        print_summary(order.folder, config)
        return
    hush_lightning()
    pl.seed_everything(config.seed, workers=True, verbose=False)
    with Bars() as bars:
        data = build_data(config, bars, order.dry_run, order.stages)
        if is_first_rank() and {"fit", "test"} & set(order.stages):
            task_of(config).prepare(data, order.stages, bars)
    for note in data.notes():
        print(f"note: {note}", file=sys.stderr)
    folder = order.folder or RunFolder.create(Path(config.runs_dir), config.name, order.dry_run)
    _run(order, folder, data, inputs)


def _run(order: Order, folder: RunFolder, data: Any, inputs: list[Path]) -> None:
    config, first = order.config, is_first_rank()
    tree = resolved(config)
    wandb, begun = None, False
    try:
        if first:
            _record(order, folder, tree, data)
        # a test alone has no step, and would add a row of step 0
        metrics = MetricsCSV(folder.path / "metrics.csv", _last_step(folder)) if "fit" in order.stages else None
        loggers = build_loggers(config, folder, tree, metrics, order.dry_run)
        wandb = next((log for log in loggers if isinstance(log, WandbLogger)), None)
        trainer = build_trainer(config.trainer, folder, loggers, task_of(config).monitor, order.dry_run)
        run = Run(config, folder, trainer, data, inputs)
        begun = True
        for stage in order.stages:
            getattr(run, stage)()
            if first:
                folder.stage_done(stage)
    except BaseException as error:
        if isinstance(error, InputError) and not begun and order.folder is None:
            finish(wandb, ended_well=False)  # or W&B writes into the folder again when Python ends
            _discard(folder)
            raise
        # Lightning turns Ctrl-C into SystemExit
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        _close(folder, wandb, "interrupted" if stopped else "failed")
        if stopped:
            raise KeyboardInterrupt(f"stopped; go on with resume={folder.path}") from error
        if isinstance(error, MisconfigurationException):  # what Lightning sees only when it meets the data
            raise InputError(f"trainer: {' '.join(str(error).split())}") from error
        if (full := write_fault(error, folder.path)) is not None:
            raise InputError(f"{full}, then go on with resume={folder.path}") from error
        raise
    _close(folder, wandb, "finished")
    if first:
        print_summary(folder, config)


def _discard(folder: RunFolder) -> None:
    """Leave nothing of a run that could not begin."""
    if is_first_rank():
        shutil.rmtree(folder.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.path.parent.rmdir()  # of the run's name, if there is no other run in it


def _close(folder: RunFolder, wandb: WandbLogger | None, status: str) -> None:
    """Status, report and W&B. After a failure nothing here may hide what failed."""
    try:
        if is_first_rank():
            folder.update_status(status=status, ended=_now())
            write_report(folder.path)
            log_results(wandb, folder, folder.metrics())
        finish(wandb, status == "finished")
    except (InputError, OSError):
        # such as the full disk that ended the run: it is told once
        if status == "finished":
            raise
    except Exception:
        if status == "finished":
            raise
        logging.getLogger(__name__).exception("the report of the %s run could not be written", status)


def _record(order: Order, folder: RunFolder, tree: dict[str, Any], data: Any) -> None:
    """What the run is, before it begins; a resumed run keeps its first config, and environment_1.json of its start."""
    if (folder.path / "config.yaml").is_file():
        sweep(folder.path)
    else:
        write_text(folder.path / "config.yaml", to_yaml({**tree, "resume": None}))
    digest = data.digest() if {"fit", "test"} & set(order.stages) else None
    earlier = read_json(folder.path / "environment.json")
    environment = describe_environment(order.config.seed, digest or earlier.get("data_digest"))
    if earlier:
        write_json(folder.path / f"environment_{1 + len(list(folder.path.glob('environment_*.json')))}.json", earlier)
    write_json(folder.path / "environment.json", environment)
    folder.update_status(status="running", started=folder.status().get("started") or _now(), dry_run=order.dry_run)


def _last_step(folder: RunFolder) -> int | None:
    """Step of the checkpoint that a resumed fit goes on from."""
    path = checkpoint_path(folder)
    return int(torch.load(path, map_location="cpu", weights_only=True)["global_step"]) if path is not None else None


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
