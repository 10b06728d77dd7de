"""One run from its command line to its last printed line."""

from __future__ import annotations

import datetime as dt
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger
from rich.console import Console
from rich.table import Table

from datamodules.folder import expand
from experiments.build import build_data, build_loggers
from experiments.compose import compose
from experiments.config import Config, load_config, resolved, to_yaml
from experiments.progress import Bars
from experiments.report import write_report
from experiments.stages import Run
from formats import read_volume
from formats.errors import InputError
from lightning_modules.organelle import MONITOR
from training.device import require_supported_gpu
from training.environment import describe_environment
from training.metrics_log import MetricsCSV
from training.rundir import RunFolder, is_first_rank, write_json, write_text
from training.trainer import build_trainer, checkpoint_path
from training.wandb_log import finish, log_results


def launch(config: str, overrides: list[str], check: bool = False, dry_run: bool = False) -> int:
    """Read the config, make or find the run folder, run the stages, write the report.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    InputError
        Anything the user can mend.
    """
    loaded, explicit_stages = _read_config(config, overrides)
    require_supported_gpu(loaded.trainer.accelerator)
    inputs = _check_inputs(loaded)
    if check:
        return _report_check(loaded, inputs)
    _quiet()
    pl.seed_everything(loaded.seed, workers=True, verbose=False)
    folder = RunFolder.existing(Path(loaded.resume)) if loaded.resume else None
    done = [] if folder is None or explicit_stages else folder.status()["stages_done"]
    stages = [stage for stage in loaded.stages if stage not in done]
    with Bars() as bars:
        data = build_data(loaded, bars, dry_run)
        if {"fit", "test"} & set(stages):
            data.find()
        if "fit" in stages and is_first_rank():
            data.prepare_data()
    for note in data.notes():
        warnings.warn(note, stacklevel=1)
    folder = folder or RunFolder.create(Path(loaded.runs_dir), f"{loaded.name}", dry_run)
    return _run(loaded, folder, data, inputs, stages, dry_run)


def _read_config(config: str, overrides: list[str]) -> tuple[Config, bool]:
    """The config, from the run folder for a resumed run; and whether the command line names the stages."""
    if "=" in config:
        config, overrides = "", [config, *overrides]
    resumed = [word.partition("=")[2] for word in overrides if word.startswith("resume=")]
    explicit = any(word.startswith("stages=") for word in overrides)
    if resumed and resumed[-1] not in ("", "null"):
        source = RunFolder.existing(Path(resumed[-1])).path / "config.yaml"
        if config:
            given = compose(config).values
            kept = compose(str(source)).values
            for key in ("name", "task"):
                if given.get(key, kept.get(key)) != kept.get(key):
                    raise InputError(
                        f"resume: {resumed[-1]} is a run of {key} {kept.get(key)}, but {config} says {given[key]}"
                    )
        return load_config(source, overrides), explicit
    if not config:
        raise InputError(
            "command line: no CONFIG; give a YAML file, the name of a shipped config, or resume=RUN_FOLDER"
        )
    return load_config(config, overrides), explicit


def _check_inputs(config: Config) -> list[Path]:
    """Files of the predict stage, each opened once: a broken one is found before anything is computed."""
    if "predict" not in config.stages:
        return []
    inputs = expand(config.predict.inputs, Path(), "predict.inputs")
    spacing: Any = tuple(config.predict.spacing_um) if config.predict.spacing_um is not None else None
    for path in inputs:
        read_volume(path, spacing_um=spacing)
    return inputs


def _report_check(config: Config, inputs: list[Path]) -> int:
    console = Console()
    table = Table("what", "found", title=f"{config.name}: the config is valid")
    table.add_row("task", config.task)
    table.add_row("stages", ", ".join(config.stages))
    table.add_row("network", str(resolved(config)["model"]))
    if config.data.source == "folder" and {"fit", "test"} & set(config.stages):
        for split, cases in build_data(config).find().items():
            table.add_row(f"{split} volumes", str(len(cases)))
    if inputs:
        table.add_row("inputs to predict", str(len(inputs)))
    console.print(table)
    return 0


def _run(config: Config, folder: RunFolder, data: Any, inputs: list[Path], stages: list[str], dry_run: bool) -> int:
    first = is_first_rank()
    tree = resolved(config)
    if first:
        _record(config, folder, tree, data, stages, dry_run)
    resume_step = _last_step(folder)
    loggers = build_loggers(config, folder, tree, MetricsCSV(folder.path / "metrics.csv", resume_step), dry_run)
    trainer = build_trainer(config.trainer, folder, loggers, MONITOR, dry_run)
    run = Run(config, folder, trainer, data, inputs)
    wandb = next((log for log in loggers if isinstance(log, WandbLogger)), None)
    try:
        for stage in stages:
            getattr(run, stage)()
            if first:
                folder.stage_done(stage)
    except BaseException as error:
        _close(folder, wandb, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    _close(folder, wandb, "finished")
    if first:
        print_summary(folder, config.data.organelles)
    return 0


def _close(folder: RunFolder, wandb: WandbLogger | None, status: str) -> None:
    """Status, report and W&B. After a failure nothing here may hide what failed."""
    try:
        if is_first_rank():
            folder.update_status(status=status, ended=_now())
            write_report(folder.path)
            log_results(wandb, folder, folder.metrics())
        finish(wandb, status == "finished")
    except Exception:
        if status == "finished":
            raise
        logging.getLogger(__name__).exception("the report of the %s run could not be written", status)


def _record(
    config: Config, folder: RunFolder, tree: dict[str, Any], data: Any, stages: list[str], dry_run: bool
) -> None:
    """What the run is, before it begins; a resumed run keeps its first config."""
    if not (folder.path / "config.yaml").is_file():
        write_text(folder.path / "config.yaml", to_yaml({**tree, "resume": None}))
    digest = data.digest() if {"fit", "test"} & set(stages) else None
    write_json(folder.path / "environment.json", describe_environment(config.seed, digest))
    folder.update_status(status="running", started=folder.status().get("started") or _now(), dry_run=dry_run)


def _last_step(folder: RunFolder) -> int | None:
    """Step of the checkpoint that a resumed fit goes on from."""
    path = checkpoint_path(folder)
    return int(torch.load(path, map_location="cpu", weights_only=True)["global_step"]) if path is not None else None


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def _quiet() -> None:
    """Lightning's advice is for programmers; progress bars and our own lines are for the user."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*The ``compute`` method of metric MeanMetric was called before.*",
        ".*recommended to use `self.log.*sync_dist=True.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*find_unused_parameters.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*WeightAveraging callback, but.*",
    ):
        warnings.filterwarnings("ignore", message=text)


def print_summary(folder: RunFolder, organelles: Sequence[str]) -> None:
    """The numbers, and where everything lies; the last line is the run folder."""
    console = Console()
    metrics = folder.metrics()
    per_line = (k.split("/") for k in metrics if k.startswith("test/") and k.endswith("/dice_mean"))
    lines = sorted(parts[1] for parts in per_line if len(parts) == 3)
    scored = [name for name in (*organelles, "mean") if f"test/dice_{name}" in metrics]
    if scored:
        table = Table("Dice", "all", *(lines if len(lines) > 1 else []), "best single RI window", title="test")
        for name in scored:
            keys = [f"test/dice_{name}", *(f"test/{line}/dice_{name}" for line in lines if len(lines) > 1)]
            keys.append(f"test/window_dice_{name}")
            table.add_row(name, *(f"{metrics[key]:.3f}" if key in metrics else "" for key in keys))
        console.print(table)
    if "predict/files" in metrics:
        console.print(f"predictions: {folder.predictions} ({int(metrics['predict/files'])} files)", soft_wrap=True)
    console.print(f"report: {folder.path / 'report.html'}", soft_wrap=True, highlight=False)
    print(f"run: {folder.path}", flush=True)
