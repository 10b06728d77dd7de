"""The analyze task: organelles, cells, tracks, measurements, figures and a report from tomograms."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

from cytovox.errors import InputError
from cytovox.io.deletion import remove_if_empty
from cytovox.networks.weights import shipped_weights
from datamodules.paths import shard_of
from datamodules.steps import STEPS
from experiments.preflight import require_room
from experiments.progress import Bars
from experiments.report.page import write_report
from experiments.schema import to_yaml
from experiments.session import RunRequest, Work, now
from experiments.tasks.analyze.analysis import Analysis, print_notes
from experiments.tasks.analyze.audit import check_analyze
from experiments.tasks.analyze.config import AnalyzeConfig, analyze_errors
from experiments.tasks.analyze.given import find_existing
from experiments.tasks.analyze.report import analysis_report
from experiments.tasks.analyze.sources import Source, find_sources
from experiments.tasks.analyze.watch import follow
from experiments.tasks.base import Submits, Task, Watches
from experiments.tasks.device_defaults import require_compilable
from training.environment import describe_environment
from training.rundir import RunFolder, write_json, write_text
from training.signals import StopSignals
from training.slurm import launched_by_srun, step_size

#: Exit code of a run in which some inputs could not be analysed.
SOME_BROKEN = 3


class AnalyzeTask(Task, Watches, Submits):
    """See `Task`."""

    name = "analyze"
    config = AnalyzeConfig

    def errors(self, config: AnalyzeConfig) -> list[str]:
        """See `Task`."""
        return analyze_errors(config)

    def resolved(self, config: AnalyzeConfig) -> dict[str, Any]:
        """See `Task`."""
        return {**dataclasses.asdict(absolute(config)), "base": []}

    def report(self, folder: Path) -> dict[str, Any]:
        """See `Task`."""
        return analysis_report(folder)

    def check(self, request: RunRequest) -> None:
        """See `Task`."""
        config, sources = _inputs(request)
        check_analyze(config, sources, _corrections(config))

    def begin(self, request: RunRequest, signals: StopSignals) -> AnalysisRun:
        """See `Task`."""
        _require_one_process()
        config, sources = _inputs(request)
        if request.watch is None:
            find_existing(sources, config, _corrections(config)).require_clear()
        folder = request.folder or RunFolder(self.run_path(config))
        if request.folder is not None and config.out is not None and Path(config.out).absolute() != folder.path:
            raise InputError(f"out: {config.out}: the resumed analysis is in {folder.path}; leave one of them out")
        run = AnalysisRun(request, folder, Analysis(config, folder), sources)
        folder.require_writable()
        remove_if_empty(folder.checkpoints)  # nothing is trained here
        return run

    def run_path(self, config: AnalyzeConfig) -> Path:
        """See `Submits`. The path depends on the config only, so that the same command resumes its folder."""
        return run_path(config)

    def list_inputs(self, config: AnalyzeConfig) -> list[Path]:
        """See `Submits`."""
        return [source.path for source in find_sources(config)]


class AnalysisRun(Work):
    """An analysis in its folder."""

    def __init__(self, request: RunRequest, folder: RunFolder, analysis: Analysis, sources: list[Source]) -> None:
        super().__init__(request, folder)
        self.analysis, self.sources = analysis, sources
        self.ends_by_interrupt = request.watch is not None  # a watched folder has no last file

    @property
    def shard(self) -> str | None:
        """See `Work`."""
        return cast(str | None, self.config.shard)

    @property
    def how_to_resume(self) -> str:
        """See `Work`."""
        return f"the same command resumes {self.folder.path}"

    def record(self) -> None:
        """See `Work`."""
        folder = self.folder
        tree = {**dataclasses.asdict(absolute(self.config)), "base": [], "resume": None, "out": str(folder.path)}
        folder.update_status(status="running", started=folder.status().get("started") or now())
        write_text(folder.path / "config.yaml", to_yaml(tree))
        write_json(folder.path / "environment.json", describe_environment(0))

    def run_stage(self, stage: str) -> None:
        """Analyse new and changed inputs, once or whenever files appear in the watched folder."""
        with Bars() as bars:
            self.analysis.progress = bars
            if self.request.watch is None:
                self.analysis.update(self.sources)
            else:
                follow(self.analysis, self.request.watch, self._write_report)

    def report(self, folder: Path) -> dict[str, Any]:
        """See `Work`."""
        return analysis_report(folder)

    def _write_report(self) -> None:
        self.folder.update_status(status="running", ended=now())
        write_report(self.folder.path, self.report)

    def finished(self) -> int:
        """See `Work`."""
        print_notes(self.analysis)
        folder, code = self.folder, SOME_BROKEN if self.analysis.errors else 0
        if self.shard is not None:
            count = len(shard_of(self.sources, self.shard))
            print(f"shard {self.shard}: {count} files\nrun: {folder.path}", flush=True)
            return code
        metrics = folder.metrics()
        print(
            f"analysed {int(metrics.get('analyze/files', 0))} files, {int(metrics.get('analyze/frames', 0))} frames, "
            f"{int(metrics.get('analyze/tracks', 0))} cells"
        )
        print(f"tables: {folder.tables}")
        print(f"report: {folder.path / 'report.html'}")
        print(f"run: {folder.path}")
        print(f"masks: {folder.predictions}", flush=True)
        return code


def _inputs(request: RunRequest) -> tuple[AnalyzeConfig, list[Source]]:
    """Return the config and the inputs; none for a watched folder."""
    config: AnalyzeConfig = request.config
    if request.watch is not None:
        if not request.watch.is_dir():
            raise InputError(f"--watch: {request.watch}: no such folder; expected the folder of the microscope")
        config.inputs = [str(request.watch.absolute())]
    require_compilable(config.compile, "auto", "compile")
    return config, [] if request.watch is not None else find_sources(config)


def _corrections(config: AnalyzeConfig) -> Path:
    """Return the folder of corrections."""
    if config.corrections is not None:
        return Path(config.corrections)
    return (Path(config.resume) if config.resume is not None else run_path(config)) / "predictions"


def _require_one_process() -> None:
    """Raise an InputError in a SLURM step of several tasks: each would write all files."""
    if launched_by_srun() and step_size() not in (None, (1, 1)):
        raise InputError(
            "SLURM: a step of several tasks, but this task is one process: put srun --ntasks=1 before the command; "
            "slurm.array shares its inputs among jobs"
        )


def run_path(config: AnalyzeConfig) -> Path:
    """Return the run folder of a config, which may not exist."""
    if config.out is not None:
        path = Path(config.out)
        require_room(path, "out")
        run = all((path / name).is_file() for name in ("config.yaml", "status.json"))
        if path.is_dir() and not run and (other := _other_file(path)) is not None:
            raise InputError(
                f"out: {path}: contains other files ({other}); choose an empty folder, or one of an earlier analysis"
            )
    else:
        require_room(Path(config.runs_dir) / config.name, "runs_dir")
        path = Path(config.runs_dir) / config.name / STEPS["analyze.folder"].fingerprint(absolute(config)).name[:12]
    return path.absolute()


def _other_file(folder: Path) -> str | None:
    """Return the name of an entry that an analysis killed at its start does not leave; None without one."""
    left = ("status.json", ".lock", ".lock-status", "checkpoints", "tables", "figures")
    return next(
        (p.name for p in sorted(folder.iterdir()) if p.name not in left or (p.is_dir() and any(p.iterdir()))), None
    )


def absolute(config: AnalyzeConfig) -> AnalyzeConfig:
    """Return the config with absolute paths."""
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
