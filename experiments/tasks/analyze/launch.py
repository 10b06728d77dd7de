"""One pipeline from its command line to its last printed line."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from cytovox.io.deletion import remove_if_empty
from cytovox.networks.weights import shipped_weights
from datamodules.paths import shard_of
from datamodules.steps import STEPS
from experiments.compose import compose
from experiments.config import to_yaml
from experiments.preflight import require_room
from experiments.progress import Bars, silence_lightning
from experiments.report.page import write_report
from experiments.tasks.analyze.analysis import Analysis, now, tell
from experiments.tasks.analyze.audit import check_analyze
from experiments.tasks.analyze.config import AnalyzeConfig, CellsFromMasksConfig
from experiments.tasks.analyze.given import find_existing
from experiments.tasks.analyze.sources import Source, find_sources
from experiments.tasks.device_defaults import require_compilable
from experiments.tasks.pipelines import resolved_pipeline, typed_pipeline
from training.environment import describe_environment
from training.run_lock import run_lock
from training.rundir import RunFolder, write_json, write_text
from training.signals import Preempted, handle_signals
from training.slurm import launched_by_srun, may_requeue, requeue, step_size

#: What a run ends with where some inputs could not be analysed.
SOME_BROKEN = 3


def launch_pipeline(config: str, overrides: list[str], watch: str | None = None, check: bool = False) -> int:
    """Run a pipeline.

    Returns
    -------
    int
        0, or `SOME_BROKEN`.

    Raises
    ------
    InputError
        Anything the user can mend.
    """
    _require_one_task()
    resumed = next((word.partition("=")[2] for word in overrides if word.startswith("resume=")), None)
    if resumed and not config:
        config = str(RunFolder.existing(Path(resumed)).path / "config.yaml")
    typed = typed_pipeline(compose(config, overrides))
    if isinstance(typed, CellsFromMasksConfig):
        from experiments.tasks.cells_from_masks.task import cells_from_masks

        if watch is not None:
            raise InputError("--watch: only for task analyze; leave it out")
        return cells_from_masks(typed, check)
    assert isinstance(typed, AnalyzeConfig)
    if watch is not None:
        folder = Path(watch)
        if not folder.is_dir():
            raise InputError(f"--watch: {watch}: no such folder; name the one that the microscope writes to")
        typed.inputs = [str(folder.absolute())]
    require_compilable(typed.compile, "auto", "compile")
    sources = [] if watch is not None else find_sources(typed)
    if check:
        check_analyze(typed, sources, _corrections(typed))
        return 0
    if watch is None:
        find_existing(sources, typed, _corrections(typed)).require_clear()
    return _analyze(typed, sources, watch)


def _corrections(config: AnalyzeConfig) -> Path:
    """The folder that corrections are looked for in."""
    if config.corrections is not None:
        return Path(config.corrections)
    return (Path(config.resume) if config.resume is not None else run_path(config)) / "predictions"


def _require_one_task() -> None:
    """Each task of a step would do all of it, into the same files."""
    if launched_by_srun() and step_size() not in (None, (1, 1)):
        raise InputError(
            "SLURM: a step of several tasks, but this pipeline is one process: put srun --ntasks=1 before the command; "
            "slurm.array shares its inputs among jobs"
        )


def _analyze(config: AnalyzeConfig, sources: list[Source], watch: str | None) -> int:
    folder = run_folder(config)
    silence_lightning()
    with handle_signals(), run_lock(folder, _key(config)), Bars() as bars:
        analysis = Analysis(config, folder, bars)
        if config.shard is None:
            _record(config, folder)
        try:
            if watch is None:
                analysis.update(sources)
            else:
                from experiments.tasks.analyze.watch import follow

                follow(analysis, Path(watch), lambda: _close(folder, "running"))
        except BaseException as error:
            _stopped(error, folder, config, watch)
        else:
            if config.shard is None:
                _close(folder, "finished")
    tell(analysis)
    if config.shard is not None:
        print(f"shard {config.shard}: {len(shard_of(sources, config.shard))} files\nrun: {folder.path}", flush=True)
        return SOME_BROKEN if analysis.errors else 0
    metrics = folder.metrics()
    print(
        f"analysed {int(metrics.get('analyze/files', 0))} files, {int(metrics.get('analyze/frames', 0))} frames, "
        f"{int(metrics.get('analyze/tracks', 0))} cells"
    )
    print(f"tables: {folder.tables}")
    print(f"report: {folder.path / 'report.html'}")
    print(f"run: {folder.path}")
    print(f"masks: {folder.predictions}", flush=True)
    return SOME_BROKEN if analysis.errors else 0


def _key(config: AnalyzeConfig) -> str | None:
    return None if config.shard is None else config.shard.replace("/", "of")


def _stopped(error: BaseException, folder: RunFolder, config: AnalyzeConfig, watch: str | None) -> None:
    """After an exception: what the folder says of it, and what the user is told."""
    if isinstance(error, Preempted):
        if config.shard is None:
            _close(folder, "preempted")
        stop = Preempted(f"stopped by {error}; the same command goes on in {folder.path}")
        if may_requeue(error) and (told := requeue(folder)) is not None:
            stop.arranged = True
            print(told, file=sys.stderr)
        raise stop from error
    stopped = isinstance(error, KeyboardInterrupt)
    # a microscope is watched until somebody stops it: that is its end
    if config.shard is None:
        _close(folder, ("finished" if watch else "interrupted") if stopped else "failed")
    if stopped and watch is not None:
        return
    if stopped:
        raise KeyboardInterrupt(f"stopped; the same command goes on in {folder.path}") from error
    raise error


def run_folder(config: AnalyzeConfig) -> RunFolder:
    """The folder of this analysis: the same for the same question, so that the same command goes on in it."""
    folder = RunFolder.existing(Path(config.resume)) if config.resume is not None else RunFolder(run_path(config))
    if config.resume is not None and config.out is not None and Path(config.out).absolute() != folder.path:
        raise InputError(f"out: {config.out}: the resumed analysis lies in {folder.path}: leave one of them out")
    folder.require_writable()
    remove_if_empty(folder.checkpoints)  # nothing is trained here
    return folder


def run_path(config: AnalyzeConfig) -> Path:
    """Where it lies, made or not."""
    if config.out is not None:
        path = Path(config.out)
        require_room(path, "out")
        run = all((path / name).is_file() for name in ("config.yaml", "status.json"))
        if path.is_dir() and not run and (other := _other_file(path)) is not None:
            raise InputError(
                f"out: {path}: holds other files ({other}); choose an empty folder, or one of an earlier analysis"
            )
    else:
        require_room(Path(config.runs_dir) / config.name, "runs_dir")
        path = Path(config.runs_dir) / config.name / STEPS["analyze.folder"].fingerprint(absolute(config)).name[:12]
    return path.absolute()


def _other_file(folder: Path) -> str | None:
    """A file that no analysis which was killed at its very beginning leaves."""
    left = ("status.json", ".lock", ".lock-status", "checkpoints", "tables", "figures")
    return next(
        (p.name for p in sorted(folder.iterdir()) if p.name not in left or (p.is_dir() and any(p.iterdir()))), None
    )


def absolute(config: AnalyzeConfig) -> AnalyzeConfig:
    """The config with its paths as they are from anywhere."""
    changed: dict[str, Any] = {}
    for key in ("inputs", "organelles", "cells", "corrections", "groups", "runs_dir", "out"):
        value = getattr(config, key)
        if isinstance(value, str):
            changed[key] = value if key == "groups" and "{group}" in value else str(Path(value).absolute())
        elif isinstance(value, list):
            changed[key] = [str(Path(one).absolute()) for one in value]
    for key in ("organelle_weights", "cell_weights"):
        value = getattr(config, key)
        if value is not None and value not in shipped_weights():
            changed[key] = str(Path(value).absolute())
    return dataclasses.replace(config, **changed)


def _record(config: AnalyzeConfig, folder: RunFolder) -> None:
    tree = {**resolved_pipeline(absolute(config)), "resume": None, "out": str(folder.path)}
    folder.update_status(status="running", started=folder.status().get("started") or now())
    write_text(folder.path / "config.yaml", to_yaml(tree))
    write_json(folder.path / "environment.json", describe_environment(0))


def _close(folder: RunFolder, status: str) -> None:
    """Status and report; after a failure nothing here may hide it."""
    try:
        folder.update_status(status=status, ended=now())
        write_report(folder.path)
    except (InputError, OSError):
        if status in ("finished", "running"):
            raise
        print(f"the report of {folder.path} could not be written", file=sys.stderr)
