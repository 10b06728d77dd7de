"""Audit of a config's data: a search for all errors before training starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cytovox.errors import InputError
from cytovox.io.spacing import SpacingFrom
from datamodules.audit.comparison import (
    annotation_findings,
    label_findings,
    set_findings,
    small_findings,
    split_findings,
)
from datamodules.audit.findings import Error, Finding, finding, of_config
from datamodules.audit.measure import Job, Measurements, measure
from datamodules.audit.pool import run_jobs
from datamodules.audit.rules import MEDIUM_OFF, volume_findings
from datamodules.cases import FolderCase
from datamodules.channel_labels import ChannelReport
from datamodules.config import FolderData, OrganelleData, SimulatorData, simulated_names
from datamodules.folder import find_cases
from datamodules.loading import loader_workers
from datamodules.masks import MaskFinder
from datamodules.paths import below, expand, first_names
from datamodules.splits import SPLITS, Division, split_cases


@dataclass
class Audit:
    """Result of an audit."""

    findings: list[Finding] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    """Names of all volumes checked."""
    counts: dict[str, int] = field(default_factory=dict)
    """Number of volumes of each split."""
    inputs: int = 0
    """Number of files to predict."""
    channels: list[tuple[str, ChannelReport]] = field(default_factory=list)
    """Volume and masks made from its fluorescence channels."""
    simulated: bool = False
    """Whether training volumes are simulated, so that there are no files to read."""

    @property
    def errors(self) -> list[Finding]:
        """Findings that must be fixed."""
        return [found for found in self.findings if found.severity == "error"]

    def summary(self) -> str:
        """Return a line such as `212 volumes, 3 with errors, 5 with warnings`."""
        bad = {name for found in self.errors for name in found.volumes}
        doubtful = {name for found in self.findings for name in found.volumes} - bad
        text = f"{len(self.volumes)} volumes, {len(bad)} with errors, {len(doubtful)} with warnings"
        of_set = [found for found in self.findings if not found.volumes]
        errors = sum(found.severity == "error" for found in of_set)
        return f"{text}; of the whole set {errors} errors, {len(of_set) - errors} warnings" if of_set else text


def audit(
    config: OrganelleData,
    seed: int,
    stages: Sequence[str],
    inputs: str | Sequence[str] = (),
    input_spacing_um: Sequence[float] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    input_spacing_from: SpacingFrom = "file",
    input_series: int | str | None = None,
) -> Audit:
    """Check everything that a config would read; nothing is written.

    Parameters
    ----------
    config : OrganelleData
        Folders, or the simulator, whose options alone can be checked.
    seed : int
        Seed of the run, which determines the splits.
    stages : sequence of str
        Stages of the run out of fit, test and predict; only their data are checked.
    inputs : text or sequence of text
        Files, folders and globs to predict.
    input_spacing_um : (z, y, x), optional
        Voxel size of inputs that do not state it.
    progress : callable, optional
        Called with (what, done, all).
    input_spacing_from, input_series
        See `cytovox.io.read_volume`.

    Returns
    -------
    Audit
        Findings with errors first.
    """
    result = Audit()
    ri_range = (float(config.ri_range[0]), float(config.ri_range[1]))
    jobs: list[Job] = []
    division: Division = {split: [] for split in SPLITS}
    trained = bool({"fit", "test"} & set(stages))
    root = Path()
    if trained and isinstance(config, FolderData):
        root = Path(config.root)
        cases, division = _find(config, seed, result)
        jobs += [Job(case, ri_range) for case in cases]
    if "predict" in stages:
        jobs += [
            Job(dataclasses.replace(case, spacing_from=input_spacing_from, series=input_series), ri_range, True)
            for case in _inputs(inputs, input_spacing_um, result)
        ]
    report = None if progress is None else lambda done, all_: progress("checking volumes", done, all_)
    measured = run_jobs(measure, jobs, _lost, loader_workers(config.num_workers), report)
    for job, found in zip(jobs, measured, strict=True):
        result.findings += volume_findings(job, found, Path() if job.every_frame else root)
    result.volumes = [job.case.name for job in jobs]
    result.channels = [(m.name, report) for m in measured for report in m.channels]
    result.inputs = sum(job.every_frame for job in jobs)
    if trained and isinstance(config, FolderData):
        by_name = {m.name: m for job, m in zip(jobs, measured, strict=True) if not job.every_frame}
        result.findings += set_findings(config, division, by_name, stages)
        result.findings += label_findings(config, division, by_name, stages)
        result.findings += annotation_findings(division, by_name, stages)
        result.counts = {split: len(found) for split, found in division.items()}
        if not any(found.kind in ("files", "split") for found in result.findings):
            result.findings += split_findings(config, result.counts, stages)
    elif trained and isinstance(config, SimulatorData):
        result.simulated = True
        result.counts = {split: len(simulated_names(getattr(config, split))) for split in SPLITS}
        result.findings += split_findings(config, result.counts, stages) + _of_simulator(config)
    result.findings.sort(key=lambda found: found.severity != "error")
    return result


def _find(config: FolderData, seed: int, result: Audit) -> tuple[list[FolderCase], Division]:
    """Return all cases that can be found, and their splits as far as these can be determined."""
    errors: list[InputError] = []
    cases: list[FolderCase] = []
    division: Division = {split: [] for split in SPLITS}
    try:
        cases = find_cases(config, errors.append)
    except InputError as error:
        if not errors:  # else an error reported above is the reason
            errors.append(error)
    result.findings += [of_config(f, "files") for f in errors if getattr(f, "kind", "") != "no-mask"]
    result.findings += [
        finding("no-mask", "error", case.name, "has no mask of any organelle", (case.name,))
        for case in cases
        if not case.drawn
    ]
    result.findings += _orphans(config, cases)
    if cases:
        errors = []
        try:
            division = split_cases(cases, config, seed, errors.append)
        except InputError as error:
            errors.append(error)
        result.findings += [of_config(error, "split") for error in errors]
    return cases, division


def _orphans(config: FolderData, cases: Sequence[FolderCase]) -> list[Finding]:
    """Return one finding for all masks without a volume: there may be hundreds if few volumes are chosen."""
    if config.table is not None or not cases:
        return []
    root = Path(config.root)
    organelles = [name for name in config.organelles if name not in config.labels_from]
    finder = MaskFinder(config.masks or "", root, organelles, config.frame)
    orphans = finder.orphans(mask_file.file for case in cases for mask_file in case.mask_files())
    found = f"{len(orphans)} masks belong to no volume: {first_names([below(path, root) for path in orphans])}"
    return [finding("orphan-mask", "warning", "data.masks", found)] if orphans else []


def _inputs(inputs: str | Sequence[str], spacing_um: Sequence[float] | None, result: Audit) -> list[FolderCase]:
    """Return the files of the predict stage as cases without masks."""
    errors: list[InputError] = []
    spacing = (spacing_um[0], spacing_um[1], spacing_um[2]) if spacing_um is not None else None
    paths = expand(inputs, Path(), "predict.inputs", errors.append)
    result.findings += [of_config(error, "files") for error in errors]
    return [FolderCase(str(p), p, {}, None, {}, (), str(p), "all", spacing_um=spacing) for p in paths]


def _lost(job: Job, reason: str) -> Measurements:
    return Measurements(job.case.name, errors=[Error("crashed", job.case.volume, reason)])


def _of_simulator(config: SimulatorData) -> list[Finding]:
    """Return the findings about volumes that are yet to be simulated."""
    low = config.ri_range[0]
    off = max(abs(config.medium_ri + sign * config.medium_spread - low) for sign in (-1, 1))
    findings = []
    if off > MEDIUM_OFF:
        found = f"the medium's RI is {config.medium_ri:g} +- {config.medium_spread:g}, data.ri_range begins at {low:g}"
        findings.append(finding("ri-range", "warning", "data.medium_ri", found))
    (z, y, x), (dz, dy, dx) = config.shape, config.spacing_um
    volume = Measurements("simulated volumes", shape=(z, y, x), spacing_um=(dz, dy, dx))
    return findings + [dataclasses.replace(f, volumes=()) for f in small_findings(config, [volume])]
