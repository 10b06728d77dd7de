"""The keys of an analysis: what is analysed, and by which rules."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Any, Literal

from cytovox.errors import InputError
from cytovox.inference.compiled import Compile
from cytovox.measurement.morphometry import AREA_ESTIMATORS
from cytovox.measurement.refractive import Increments
from cytovox.quality.rules import MAX_INTERVAL, MAX_JUMP, MIN_CONTRAST_RI
from cytovox.tracking.tracking import MAX_DISTANCE_UM
from datamodules.config import SERIES, TEXTS, TEXTS_OR_NULL
from datamodules.paths import shard_error
from experiments.tasks.cell_options import LABELS, CellFinderConfig, cell_finder_errors


@dataclass
class MeasureConfig:
    """`measure:` from voxels to physical units; recorded in every row of the tables."""

    medium_ri: float | None = None
    """Refractive index of the medium; null for the file's own, and without one the paper's 1.3337, with a warning."""
    lipid_ml_per_g: float = 0.135
    """Specific refractive increment of lipid droplets."""
    other_ml_per_g: float = 0.190
    """Of everything else."""
    uniform: bool = False
    """Whether droplets are counted with the increment of everything else."""
    concentration_choi: bool = False
    """Write the concentration as published, too (Choi et al. 2021): column concentration_choi_g_per_ml of cells.csv and
    parts.csv, one increment a compartment: 0.135 mL/g for lipid, 0.19 for the whole cell, nucleus and nucleolus."""
    area: Literal["enclosing", "marching_cubes"] = "enclosing"
    """Estimator of the surface area; `marching_cubes` is the published one, 8 to 15 % too large."""


@dataclass
class TrackConfig:
    """`track:` what may be the same cell in the next frame."""

    max_distance_um: float = MAX_DISTANCE_UM
    """A cell is not looked for farther away than this."""
    max_gap: int = 1
    """Frames that a cell may be missing in."""
    divisions: bool = False
    """Whether a track may go on as two, where place and size of mother and daughters allow it. The daughters are then
    summed into their mother's lineage; without it, each is a cell of its own."""
    volume_weight: float = 1.0
    """How much a difference of the cells' diameters counts, beside their distance."""


@dataclass
class QualityConfig:
    """`quality:` which measurements are doubtful; flagged quantities do not count in curves and tests."""

    exclude: bool = True
    """Whether flagged quantities are left out; the tables list the flags either way."""
    merges: bool = True
    """Whether cells that join with or fall apart from others are looked for."""
    volume_jump: float | None = MAX_JUMP
    """Factor between a cell's volume and that of its last good frame from which it is flagged; null for never."""
    mass_jump: float | None = MAX_JUMP
    """The same of its dry mass."""
    min_contrast_ri: float | None = MIN_CONTRAST_RI
    """Refractive index of a cell less that of its surroundings below which it is flagged; null for never."""
    max_interval: float | None = MAX_INTERVAL
    """Width of the interval on a cell's volume, over the volume, above which it is flagged (`uncertainty`); null for
    never."""


@dataclass
class StatisticsConfig:
    """`statistics:` how groups are compared; docs/statistics.md says why."""

    test: Literal["student", "welch", "permutation", "mixed"] = "student"
    """`student`: Student's t on the means of fields or dishes; `welch`: the same with unequal variances; `permutation`
    of fields or dishes; `mixed`: linear mixed model of cells with Satterthwaite's degrees of freedom (needs
    `mixedlm`). Each refuses where it cannot hold its rate of false positives."""
    unit: Literal["auto", "field", "dish"] = "auto"
    """What is counted as independent: the dish where the CSV of `groups` has a column dish and no dish holds two
    groups (`auto`), else the field of view."""
    window: list[float] | None = None
    """First and last time of curves, changes and tests in hours (frames, where no file has time stamps); time-lapses
    that do not cover it are left out. null: the time points that all time-lapses have."""


@dataclass
class WatchConfig:
    """`watch:` how `--watch DIR` looks for new files and frames."""

    every_s: float = 5.0
    """Seconds between two looks."""
    settle_s: float = 5.0
    """A file is read when its size and time have not changed for so long."""
    stop_after_min: float | None = None
    """Ends when nothing new came for so long; null goes on until Ctrl-C."""


@dataclass
class AnalyzeConfig(CellFinderConfig):
    """From tomograms to tables."""

    name: str = "analyze"
    """Runs lie in runs/<name>/."""
    task: str = "analyze"
    """This task."""
    inputs: Any = field(default_factory=list, metadata=TEXTS)
    """Tomograms: files, folders or globs of TCF, OME-TIFF, TIFF, NIfTI or OME-Zarr; or lists of them, .txt."""
    resume: str | None = None
    """Run folder to go on in; the same command goes on in its own folder without it."""
    out: str | None = None
    """Folder of the results; null for one below `runs_dir`, named by what is asked for."""
    organelles: Any = field(default=None, metadata=TEXTS_OR_NULL)
    """Existing masks instead of predicted ones: a pattern such as `masks/{stem}_{organelle}.nii.gz`, or a list of files
    that are named as their inputs. {stem} is the input's name, {parent} its folder's, {relative} its path below the
    folder that all inputs share, {frame} the frame's number. Without {organelle} one file holds all, a channel each
    (found by their names) or a value each (`label_values`)."""
    cells: Any = field(default=None, metadata=TEXTS_OR_NULL)
    """Existing labels of cells instead of predicted ones: a pattern, or a list of files, as `organelles`."""
    labels: Any = field(default="auto", metadata=LABELS)
    """How values of existing masks are taken: `auto` decides by content and says so; `binary` is one mask, whose
    connected parts are the objects (cells, nuclei); `instances` is one object a value. Or one of these for each of some
    organelles and cells, such as `{nucleus: instances, cells: binary}`."""
    label_values: dict[str, list[int]] = field(
        default_factory=lambda: {"membrane": [1, 2, 3, 4], "nucleus": [2, 3], "nucleolus": [3], "lipid": [4]}
    )
    """Multi-label files in `organelles`: the values inside each organelle (the membrane is the whole cell)."""
    organelle_names: list[str] = field(default_factory=lambda: ["membrane", "nucleus", "nucleolus", "lipid"])
    """What {organelle} stands for, and the names of unnamed channels of existing masks."""
    organelle_weights: str = "organelle"
    """Weights that predict the organelles: a checkpoint, a run folder or a shipped name."""
    compile: Compile = "none"
    """How the organelles' network is run: `none`, `default` or `cuda_graphs`, as `predict.compile` of task organelle.
    Frames that are done are kept when it changes."""
    corrections: str | None = None
    """Folder of corrected masks and labels; null for the run's own `predictions/`."""
    groups: str | None = None
    """CSV with the columns file and group (and field, dish), or a pattern of paths in which {group} stands for the
    group."""
    control: str = "control"
    """The group that others are compared with; any order where there is none of that name."""
    spacing_um: list[float] | None = None
    """Voxel size z, y, x in um of inputs that do not say it (plain TIFF)."""
    spacing_from: Literal["file", "config"] = "file"
    """Which decides where a file states another voxel size than `spacing_um`: `file` refuses it, `config` takes
    `spacing_um`."""
    series: Any = field(default=None, metadata=SERIES)
    """Number or name of the image in files that hold several; null where they hold one."""
    mask_axes: Literal["auto", "header", "stored"] = "auto"
    """How an existing mask lies where it or the input is NIfTI whose header mirrors or swaps axes, and the other file
    states no directions (TIFF, TCF, OME-Zarr): `auto` refuses it; `header` reads both as ITK-SNAP shows them; `stored`
    lays the stored arrays voxel on voxel."""
    interval_min: float | None = None
    """Minutes between two frames, instead of the file's own time stamps."""
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    """From voxels to physical units."""
    track: TrackConfig = field(default_factory=TrackConfig)
    """What may be the same cell."""
    quality: QualityConfig = field(default_factory=QualityConfig)
    """Which measurements are doubtful, and whether they count."""
    cohort: Literal["complete", "available"] = "complete"
    """Cells in curves, changes and tests: `complete`, those with a value at every time point of the window;
    `available`, those at both of its ends, and curves add up the mean changes of the cells there are at each step."""
    statistics: StatisticsConfig = field(default_factory=StatisticsConfig)
    """How groups are compared."""
    border: Literal["exclude", "include"] = "exclude"
    """Whether sizes and masses of cells that reach the border of the field count in curves and tests: what lies beyond
    is not measured. The tables have them either way."""
    uncertainty: bool = False
    """Analyse mirror images of every frame, too: their spread is an interval on each cell's volume (4 x the time)."""
    meshes: Literal["all", "ends", "none"] = "ends"
    """Surfaces of each cell and organelle (PLY, GLB): of all frames, of the first and last, or of none."""
    workers: int | str = "auto"
    """Processes that measure while the network predicts; `auto` for half of the cores, 0 for none."""
    watch: WatchConfig = field(default_factory=WatchConfig)
    """How `--watch DIR` looks."""
    shard: str | None = None
    """Part of the inputs to analyse, such as 3/16 (0/16 is the first); the tables are written by a call without it."""


def _quality_errors(quality: QualityConfig) -> list[str]:
    errors = []
    for key in ("volume_jump", "mass_jump"):
        value = getattr(quality, key)
        if value is not None and not value > 1:
            errors.append(f"quality.{key}: expected a factor above 1, such as {MAX_JUMP}, or null, got {value}")
    for key in ("min_contrast_ri", "max_interval"):
        value = getattr(quality, key)
        if value is not None and not value >= 0:
            errors.append(f"quality.{key}: expected 0 or more, or null, got {value}")
    return errors


def _statistics_errors(rules: StatisticsConfig) -> list[str]:
    errors = []
    window = rules.window
    if window is not None and (len(window) != 2 or not 0 <= window[0] < window[1]):
        errors.append(f"statistics.window: expected two rising times in hours, such as [0, 8], got {window}")
    if rules.test == "mixed" and importlib.util.find_spec("mixedlm") is None:
        errors.append("statistics.test: mixed needs mixedlm: pip install 'mixedlm>=1.3,<2', or choose another test")
    return errors


def analyze_errors(config: AnalyzeConfig) -> list[str]:
    """What cannot work although every type is right, one line each, beginning with the key path."""
    errors = cell_finder_errors(config)
    measure, track, watch = config.measure, config.track, config.watch
    try:
        Increments(measure.lipid_ml_per_g, measure.other_ml_per_g)
    except InputError as error:
        errors.append(f"measure.{error}")
    if measure.medium_ri is not None and not 1.0 < measure.medium_ri < 2.0:
        errors.append(f"measure.medium_ri: expected a refractive index such as 1.337, got {measure.medium_ri}")
    if measure.area not in AREA_ESTIMATORS:
        errors.append(f"measure.area: expected one of {', '.join(AREA_ESTIMATORS)}, got {measure.area}")
    if not track.max_distance_um > 0:
        errors.append(f"track.max_distance_um: expected a length above 0, got {track.max_distance_um}")
    if track.max_gap < 0:
        errors.append(f"track.max_gap: expected 0 or more, got {track.max_gap}")
    if not track.volume_weight >= 0:
        errors.append(f"track.volume_weight: expected 0 or more, got {track.volume_weight}")
    errors += _quality_errors(config.quality)
    errors += _statistics_errors(config.statistics)
    if config.interval_min is not None and not config.interval_min > 0:
        errors.append(f"interval_min: expected minutes above 0, got {config.interval_min}")
    if config.workers != "auto" and (not isinstance(config.workers, int) or config.workers < 0):
        errors.append(f"workers: expected auto, 0 or more, got {config.workers!r}")
    for key in ("every_s", "settle_s"):
        if not getattr(watch, key) > 0:
            errors.append(f"watch.{key}: expected seconds above 0, got {getattr(watch, key)}")
    if not config.organelle_names or len(set(config.organelle_names)) < len(config.organelle_names):
        errors.append(f"organelle_names: expected different names, at least one, got {config.organelle_names}")
    if isinstance(config.labels, dict) and (strange := set(config.labels) - {*config.organelle_names, "cells"}):
        errors.append(f"labels: expected some of {', '.join(config.organelle_names)}, cells; got {sorted(strange)}")
    if config.compile != "none" and config.organelles is not None:
        errors.append("compile: it is for the network that predicts organelles; not with existing masks (organelles)")
    if config.uncertainty and (config.organelles is not None or config.cells is not None):
        errors.append("uncertainty: it is that of the networks; not with existing masks (organelles, cells)")
    errors += [error for error in [shard_error(config.shard)] if error is not None]
    return errors
