"""Config of the analyze task."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
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
    """`measure:` conversion of voxels to physical units; recorded in every row of the tables."""

    medium_ri: float | None = None
    """Refractive index of the medium; null for that in the file, or else 1.3337 (Choi et al. 2021), with a warning."""
    lipid_ml_per_g: float = 0.135
    """Specific refractive increment of lipid droplets, in mL/g."""
    other_ml_per_g: float = 0.190
    """Specific refractive increment of all other compartments, in mL/g."""
    uniform: bool = False
    """Whether `other_ml_per_g` is used for lipid droplets, too."""
    concentration_choi: bool = False
    """Whether to add the concentration as published (Choi et al. 2021): column concentration_choi_g_per_ml of cells.csv
    and parts.csv, with 0.135 mL/g for lipid and 0.19 mL/g for the whole cell, nucleus and nucleolus."""
    area: Literal["enclosing", "marching_cubes"] = "enclosing"
    """Estimator of the surface area; `marching_cubes` is the published one, 8 to 15 % too large."""


@dataclass
class TrackConfig:
    """`track:` limits on linking cells from frame to frame."""

    max_distance_um: float = MAX_DISTANCE_UM
    """Largest distance in µm between the positions of a cell in successive frames."""
    max_gap: int = 1
    """Largest number of successive frames in which a cell may be missing."""
    divisions: bool = False
    """Whether tracks may divide, if positions and sizes of mother and daughters permit. The daughters are then summed
    in their mother's lineage. Otherwise each daughter is a new cell."""
    volume_weight: float = 1.0
    """Weight of the difference of the cells' diameters in µm, as a fourth coordinate of the distance."""


@dataclass
class QualityConfig:
    """`quality:` rules that flag doubtful measurements; flagged quantities are left out of curves and tests."""

    exclude: bool = True
    """Whether flagged quantities are left out; the tables list the flags in both cases."""
    merges: bool = True
    """Whether to detect merged and split cells."""
    volume_jump: float | None = MAX_JUMP
    """Factor between a cell's volume and that of its last good frame above which it is flagged; null for never."""
    mass_jump: float | None = MAX_JUMP
    """Likewise for the dry mass."""
    min_contrast_ri: float | None = MIN_CONTRAST_RI
    """Difference of refractive index between a cell and its surroundings below which it is flagged; null for never."""
    max_interval: float | None = MAX_INTERVAL
    """Width of the interval of a cell's volume (`uncertainty`), over the volume, above which the cell is flagged; null
    for never."""
    evidence: bool = False
    """Whether a compartment is flagged (`no_evidence`) if the picture shows neither contrast nor edges where its
    predicted mask ends."""


@dataclass
class StatisticsConfig:
    """`statistics:` comparison of groups; see docs/statistics.md."""

    test: Literal["student", "welch", "permutation", "mixed"] = "student"
    """`student`: Student's t on the means of fields or dishes; `welch`: the same with unequal variances; `permutation`
    of fields or dishes; `mixed`: linear mixed model of cells with Satterthwaite's degrees of freedom (needs
    `mixedlm`). A test is refused if its rate of false positives would be too high."""
    unit: Literal["auto", "field", "dish"] = "auto"
    """Independent unit. `auto`: the dish if the CSV of `groups` has a column dish and no dish contains two groups, else
    the field of view."""
    window: list[float] | None = None
    """First and last time of curves, changes and tests in hours (in frames, if no file has time stamps). Time-lapses
    that do not cover it are left out. null: the time points that all time-lapses have."""


@dataclass
class WatchConfig:
    """`watch:` search of `--watch DIR` for new files and frames."""

    every_s: float = 5.0
    """Seconds between two searches."""
    settle_s: float = 5.0
    """Seconds for which size and time of a file must be unchanged before it is read."""
    stop_after_min: float | None = None
    """Minutes without new files or frames after which the run ends; null for never (end with Ctrl-C)."""


@dataclass
class AnalyzeConfig(CellFinderConfig):
    """Tables of cells, tracks and groups from tomograms."""

    name: str = "analyze"
    """Name of the folder of the runs, runs/<name>/."""
    task: str = "analyze"
    """Name of the task."""
    inputs: Any = field(default_factory=list, metadata=TEXTS)
    """Tomograms: files, folders or globs of TCF, OME-TIFF, TIFF, NIfTI or OME-Zarr; or lists of them (.txt)."""
    resume: str | None = None
    """Run folder to resume. Not needed to repeat a command, which resumes its own folder."""
    out: str | None = None
    """Folder of the results; null for a folder in `runs_dir` whose name is derived from the config."""
    organelles: Any = field(default=None, metadata=TEXTS_OR_NULL)
    """Existing masks, used instead of predicted ones: a pattern such as `masks/{stem}_{organelle}.nii.gz`, or a list of
    files with names that begin with those of their inputs. {stem} is the input's name, {parent} that of its folder,
    {relative} its path below the folder that contains all inputs, {frame} the number of the frame. Without {organelle},
    one file contains all organelles: one channel (found by its name) or one value (`label_values`) per organelle."""
    cells: Any = field(default=None, metadata=TEXTS_OR_NULL)
    """Existing labels of cells, used instead of predicted ones: a pattern or a list of files, as for `organelles`."""
    labels: Any = field(default="auto", metadata=LABELS)
    """Meaning of the values of existing masks. `binary`: a mask, whose connected components are the objects (cells,
    nuclei); `instances`: one object per value; `auto`: inferred from the values and reported. Or one of these for each
    organelle or the cells, such as `{nucleus: instances, cells: binary}`."""
    label_values: dict[str, list[int]] = field(
        default_factory=lambda: {"membrane": [1, 2, 3, 4], "nucleus": [2, 3], "nucleolus": [3], "lipid": [4]}
    )
    """Values inside each organelle, for multi-label files in `organelles` (the membrane is the whole cell)."""
    organelle_names: list[str] = field(default_factory=lambda: ["membrane", "nucleus", "nucleolus", "lipid"])
    """Values of {organelle}, which are also the names of unnamed channels of existing masks."""
    organelle_weights: str = "organelle"
    """Weights that predict the organelles: a checkpoint, a run folder or a shipped name."""
    compile: Compile = "none"
    """Compilation of the organelles' network: `none`, `default` or `cuda_graphs`, as `predict.compile` of task
    organelle. After a change, completed frames are kept."""
    corrections: str | None = None
    """Folder of corrected masks and labels; null for the run's own `predictions/`."""
    groups: str | None = None
    """CSV with the columns file and group (optional: field, dish), or a pattern of paths with {group} in place of the
    group."""
    control: str = "control"
    """Group with which the others are compared; if it does not exist, all pairs of groups are compared."""
    spacing_um: list[float] | None = None
    """Voxel size z, y, x in um of inputs whose files do not contain it (plain TIFF)."""
    spacing_from: Literal["file", "config"] = "file"
    """Rule for files whose voxel size differs from `spacing_um`: `file` refuses them, `config` uses `spacing_um`."""
    series: Any = field(default=None, metadata=SERIES)
    """Number or name of the image in files with several images; null for files with one."""
    mask_axes: Literal["auto", "header", "stored"] = "auto"
    """Orientation of an existing mask, if it or the input is a NIfTI file whose header mirrors or swaps axes and the
    other file has no directions (TIFF, TCF, OME-Zarr). `auto` refuses it; `header` reads both as ITK-SNAP shows them;
    `stored` matches the stored arrays voxel by voxel."""
    interval_min: float | None = None
    """Minutes between two frames; replaces the time stamps of the files."""
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    """Conversion of voxels to physical units."""
    track: TrackConfig = field(default_factory=TrackConfig)
    """Limits on linking cells from frame to frame."""
    quality: QualityConfig = field(default_factory=QualityConfig)
    """Rules that flag doubtful measurements."""
    cohort: Literal["complete", "available"] = "complete"
    """Cells in curves, changes and tests. `complete`: those with a value at every time point of the window.
    `available`: those with values at both ends; curves are sums of the mean changes of the cells at each step."""
    statistics: StatisticsConfig = field(default_factory=StatisticsConfig)
    """Comparison of groups."""
    border: Literal["exclude", "include"] = "exclude"
    """Whether curves and tests include sizes and masses of cells at the border of the field, which are measured only
    within the field. The tables contain them in both cases."""
    uncertainty: bool = False
    """Whether to analyse mirror images of every frame, too: the interval of each cell's volume is then the spread of
    their volumes, and the probabilities are the means of all four (takes 4 times as long)."""
    meshes: Literal["all", "ends", "none"] = "ends"
    """Frames for which surfaces of each cell and organelle are written (PLY, GLB): all, the first and last, or none."""
    workers: int | str = "auto"
    """Number of processes that measure while the network predicts; `auto` for half of the cores, 0 for none."""
    watch: WatchConfig = field(default_factory=WatchConfig)
    """Search of `--watch DIR` for new files and frames."""
    shard: str | None = None
    """Part of the inputs to analyse, such as 3/16 (0/16 is the first); the tables are written by a call without it."""


#: Bounds of numbers: key, test, and what is expected; null is valid if the default is null.
_BOUNDS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("measure.medium_ri", lambda ri: 1.0 < ri < 2.0, "a refractive index such as 1.337"),
    ("measure.area", lambda area: area in AREA_ESTIMATORS, f"one of {', '.join(AREA_ESTIMATORS)}"),
    ("track.max_distance_um", lambda um: um > 0, "a length above 0"),
    ("track.max_gap", lambda frames: frames >= 0, "0 or more"),
    ("track.volume_weight", lambda weight: weight >= 0, "0 or more"),
    ("quality.volume_jump", lambda factor: factor > 1, f"a factor above 1, such as {MAX_JUMP}, or null"),
    ("quality.mass_jump", lambda factor: factor > 1, f"a factor above 1, such as {MAX_JUMP}, or null"),
    ("quality.min_contrast_ri", lambda ri: ri >= 0, "0 or more, or null"),
    ("quality.max_interval", lambda width: width >= 0, "0 or more, or null"),
    (
        "statistics.window",
        lambda times: len(times) == 2 and 0 <= times[0] < times[1],
        "two ascending times in hours, such as [0, 8]",
    ),
    ("interval_min", lambda minutes: minutes > 0, "minutes above 0"),
    ("workers", lambda count: count == "auto" or (isinstance(count, int) and count >= 0), "auto, 0 or more"),
    ("watch.every_s", lambda seconds: seconds > 0, "seconds above 0"),
    ("watch.settle_s", lambda seconds: seconds > 0, "seconds above 0"),
    (
        "organelle_names",
        lambda names: names and len(set(names)) == len(names),
        "different names, at least one",
    ),
)


def analyze_errors(config: AnalyzeConfig) -> list[str]:
    """Return the errors of a config that types do not exclude, one line each, which starts with the key."""
    errors = cell_finder_errors(config)
    try:
        Increments(config.measure.lipid_ml_per_g, config.measure.other_ml_per_g)
    except InputError as error:
        errors.append(f"measure.{error}")
    for key, valid, expected in _BOUNDS:
        value = attrgetter(key)(config)
        if value is not None and not valid(value):
            errors.append(f"{key}: expected {expected}, got {value}")
    if config.statistics.test == "mixed" and importlib.util.find_spec("mixedlm") is None:
        errors.append("statistics.test: mixed needs mixedlm: pip install 'mixedlm>=1.3,<2', or choose another test")
    if isinstance(config.labels, dict) and (unknown := set(config.labels) - {*config.organelle_names, "cells"}):
        errors.append(f"labels: expected some of {', '.join(config.organelle_names)}, cells; got {sorted(unknown)}")
    if config.compile != "none" and config.organelles is not None:
        errors.append("compile: applies to the network that predicts organelles; not with existing masks (organelles)")
    if config.uncertainty and (config.organelles is not None or config.cells is not None):
        errors.append("uncertainty: applies to predictions; not with existing masks (organelles, cells)")
    return errors + [error for error in [shard_error(config.shard)] if error is not None]
