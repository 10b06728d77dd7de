"""Section `data:` of an organelle config: the keys of every source, and the two sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cytovox.errors import InputError
from cytovox.io.labels import LARGEST_LABEL
from cytovox.organelles import CELLS, ORGANELLES
from datamodules.errors import failed

_THREE_POSITIVE = "expected three positive numbers (z, y, x)"


def _three_positive(values: Sequence[float]) -> bool:
    return len(values) == 3 and all(value > 0 for value in values)


def _is_texts(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list | tuple) and all(isinstance(v, str) for v in value))


def _is_number(value: Any, kind: Any = int | float) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


#: Metadata of fields whose type OmegaConf's unions cannot express: the values accepted, and their description.
TEXTS_OR_NULL = {"accepts": lambda value: value is None or _is_texts(value), "expects": "text, a list of text or null"}
TEXTS = {"accepts": _is_texts, "expects": "text or a list of text"}
SHARE = {"accepts": lambda value: _is_texts(value) or _is_number(value), "expects": "a number or a list of text"}
SERIES = {
    "accepts": lambda value: value is None or isinstance(value, str) or _is_number(value, int),
    "expects": "null, a number from 0 or a name",
}


@dataclass
class OrganelleData:
    """Options for turning tomograms into training samples, for every source."""

    organelles: list[str] = field(default_factory=lambda: list(ORGANELLES))
    """Names of the masks, in the order of the network's outputs."""
    resample: Literal["spacing_um", "grid"] = "spacing_um"
    """Common grid: the same voxel size for all (`spacing_um`), or the same shape for all (`grid`, Choi et al. 2021)."""
    resample_spacing_um: list[float] = field(default_factory=lambda: [0.25, 0.25, 0.25])
    """Voxel size z, y, x in um for `resample: spacing_um`."""
    resample_grid: list[int] = field(default_factory=lambda: [128, 512, 512])
    """Shape z, y, x for `resample: grid`."""
    ri_range: list[float] = field(default_factory=lambda: [1.337, 1.390])
    """Refractive indices mapped to 0 and 1; values outside are clipped."""
    patch_size: list[int] = field(default_factory=lambda: [64, 128, 128])
    """Training patch z, y, x in voxels of the common grid."""
    batch_size: int = 2
    """Patches per batch on each device."""
    patches_per_epoch: int = 500
    """Patches per epoch, over all devices."""
    foreground: float = 0.67
    """Fraction of patches centred on a voxel of an organelle, each organelle equally often."""
    scale: list[float] = field(default_factory=lambda: [0.5, 2.0])
    """Range of the random zoom."""
    scale_probability: float = 0.3
    """Probability that a patch is zoomed."""
    rotate_probability: float = 0.3
    """Probability that a patch is rotated about z by a random angle."""
    flip: bool = True
    """Random flips along z, y and x."""
    ri_offset: float = 0.0
    """Largest random offset of the index, up or down, for media and calibrations that differ (0.002 is large)."""
    ri_contrast: float = 0.0
    """Largest random relative change of the contrast."""
    num_workers: int | str = "auto"
    """Loader processes; `auto` leaves one core to the training, at most 8."""
    cache_dir: str | None = None
    """Folder of prepared volumes; null for the user's cache folder."""


@dataclass
class Split:
    """Division of the volumes: fractions of the groups, or lists of files and globs."""

    train: Any = field(default=0.7, metadata=SHARE)
    """Training: a fraction, or a list of files or globs."""
    val: Any = field(default=0.1, metadata=SHARE)
    """Validation: a fraction, or a list of files or globs."""
    test: Any = field(default=0.2, metadata=SHARE)
    """Test: a fraction, or a list of files or globs."""


@dataclass
class ChannelLabels:
    """Rules of `labels_from`."""

    threshold: Literal["cell", "field"] = "cell"
    """`cell`: each cell has its own threshold, half way between the medians of its two classes of brightness (Otsu);
    `field`: one threshold for all cells, the median of these."""
    smoothing_um: float = 0.2
    """Standard deviation of the Gaussian before thresholding, in um."""
    min_volume_um3: float = 20.0
    """Smaller connected parts are left out, in um3."""
    min_contrast: float = 2.0
    """Least brightness of a stained organelle relative to the median of its cell, both above background. Cells without
    it are not drawn."""
    reach_um: float = 4.0
    """In a stained cell, voxels farther than this from the mask are not drawn, in um: cells that touch are not always
    separated, and the next one may be without stain."""
    max_offset_um: float = 3.0
    """Largest offset of the channel against the tomogram that is corrected along each axis, in um; 0 corrects none."""


@dataclass
class FolderData(OrganelleData):
    """Tomograms and masks in folders."""

    source: Literal["folder"] = "folder"
    """Name of this source."""
    root: str = "."
    """Folder that relative paths and globs start from."""
    volumes: Any = field(default_factory=list, metadata=TEXTS)
    """A glob, a folder or a list of them: TCF, OME-TIFF, TIFF, NIfTI or OME-Zarr."""
    masks: str | None = None
    """Pattern of the mask files. With {organelle}, one file per organelle; without it, one file for all (one channel
    each, found by name, or one value each). `*` or {stem} in the file name stands for the volume's name, {parent} for
    its folder, {relative} for its path below `root` without the suffix, and {frame} for the number in `frame`."""
    label_values: dict[str, list[int]] = field(
        default_factory=lambda: {"membrane": [1, 2, 3, 4], "nucleus": [2, 3], "nucleolus": [3], "lipid": [4]}
    )
    """Multi-label files: the values inside each organelle. The membrane is the whole cell and has all of them."""
    labels: Literal["auto", "binary", "instances"] = "auto"
    """Meaning of mask values. `auto` decides by content and reports the decision; `binary` is one mask, whose connected
    components are the objects where objects are needed (cells); `instances` is one object per value."""
    labels_from: dict[str, str] = field(default_factory=dict)
    """Organelles whose masks are made from a fluorescence channel of the TCF file, such as {nucleus: CH0}; their files
    in `masks` or `table` are not used, those in `corrections` are. Cells without signal are not drawn."""
    fluorescence: ChannelLabels = field(default_factory=ChannelLabels)
    """Rules of `labels_from`."""
    ignore_value: int | None = None
    """Value of voxels that are not annotated, in masks and multi-label files: they count neither in training nor in
    scores. Null: every voxel is annotated."""
    annotated_slices: Literal["all", "labelled"] = "all"
    """z slices of a mask file that are annotated, for all organelles of the file: `all`, or those that hold a label
    (`labelled`), each of them completely."""
    table: str | None = None
    """CSV instead of `volumes` and `masks`: columns volume, then any of mask, organelles' names, group, line, split."""
    corrections: str | None = None
    """Folder of corrected masks, such as a run's `predictions/`: {stem}_{organelle}_corrected.nii.gz, or
    {stem}_t003_{organelle}_corrected.nii.gz for frame 3. They take precedence over `masks`; each other frame with a
    correction is added."""
    spacing_um: list[float] | None = None
    """Voxel size z, y, x in um of files that do not state it (plain TIFF)."""
    spacing_from: Literal["file", "config"] = "file"
    """Rule for a file whose voxel size differs from `spacing_um`: `file` refuses the file, `config` uses
    `spacing_um`."""
    series: Any = field(default=None, metadata=SERIES)
    """Number or name of the image in files with several images; null for files with one."""
    check_spacing: bool = True
    """Refuse masks whose spacing differs from their volume's."""
    mask_axes: Literal["auto", "header", "stored"] = "auto"
    """Orientation of a mask where it or the volume is a NIfTI file whose header mirrors or swaps axes, and the other
    file states no directions (TIFF, TCF, OME-Zarr). `auto` refuses it; `header` reads both as ITK-SNAP shows them;
    `stored` overlays the arrays as they are stored, voxel by voxel."""
    frame: int = 0
    """Frame of a time-lapse that the masks belong to."""
    group: str | None = None
    """Volumes that must stay in one split: a column of the table, or the beginning of a folder's name (`dish`)."""
    cell_line: str | None = None
    """Cell line, by which test scores are listed: a column of the table, or the beginning of a folder's name."""
    train_cell_lines: list[str] = field(default_factory=list)
    """Cell lines to train on; all volumes of the others are tested. Empty: all lines are split."""
    split: Split = field(default_factory=Split)
    """Training, validation and test."""


@dataclass
class SimulatedSet:
    """Simulated tomograms of one split."""

    presets: list[str] = field(default_factory=lambda: ["NIH3T3", "A549", "HeLa", "MDA-MB-231", "RAW264.7"])
    """Cell lines, or `any` (cells of any kind), taken in turn."""
    count: int = 10
    """Number of tomograms."""
    counts: dict[str, int] = field(default_factory=dict)
    """Number of tomograms of each cell line, instead of `presets` and `count`."""
    first_seed: int = 0
    """Seed of the first tomogram; each later one adds 1."""


@dataclass
class SimulatorData(OrganelleData):
    """Simulated tomograms."""

    source: Literal["simulator"] = "simulator"
    """Name of this source."""
    shape: list[int] = field(default_factory=lambda: [64, 128, 128])
    """Size z, y, x in voxels."""
    spacing_um: list[float] = field(default_factory=lambda: [0.3, 0.3, 0.3])
    """Voxel size z, y, x in um."""
    medium_ri: float = 1.337
    """Refractive index of the medium."""
    medium_spread: float = 0.0
    """Largest difference of a tomogram's medium from `medium_ri`."""
    noise_ri: list[float] = field(default_factory=lambda: [0.0002, 0.0016])
    """Range of the standard deviation of the coherent noise."""
    density: list[float] = field(default_factory=lambda: [1.0, 1.0])
    """Range of the cell density, relative to the line's; below 1 there is empty medium around the cells."""
    train: SimulatedSet = field(default_factory=lambda: SimulatedSet(count=40))
    """Training volumes."""
    val: SimulatedSet = field(default_factory=lambda: SimulatedSet(count=5, first_seed=100_000))
    """Validation volumes."""
    test: SimulatedSet = field(default_factory=lambda: SimulatedSet(count=10, first_seed=200_000))
    """Test volumes."""


#: Sources by their name in a config.
SOURCES: dict[str, type[FolderData] | type[SimulatorData]] = {"folder": FolderData, "simulator": SimulatorData}


def data_errors(config: OrganelleData) -> list[str]:
    """Return the errors of a config's values, one line each, beginning with the key."""
    low_high, scale = config.ri_range, config.scale
    checks = [
        *(
            (_three_positive(getattr(config, key)), f"{key}: {_THREE_POSITIVE}, got {getattr(config, key)}")
            for key in ("patch_size", "resample_grid", "resample_spacing_um")
        ),
        (
            len(low_high) == 2 and 1.0 <= low_high[0] < low_high[1] <= 2.0,
            f"ri_range: expected two refractive indices such as [1.337, 1.390], got {low_high}",
        ),
        (
            len(scale) == 2 and 0 < scale[0] <= scale[1],
            f"scale: expected a range such as [0.5, 2.0], got {scale}",
        ),
        *share_checks(config, ("foreground", "scale_probability", "rotate_probability")),
        *(
            (getattr(config, key) >= 1, f"{key}: expected 1 or more, got {getattr(config, key)}")
            for key in ("batch_size", "patches_per_epoch")
        ),
        (config.ri_offset >= 0, f"ri_offset: expected 0 or more, got {config.ri_offset}"),
        (0 <= config.ri_contrast < 1, f"ri_contrast: expected a number from 0 to below 1, got {config.ri_contrast}"),
        (
            0 < len(set(config.organelles)) == len(config.organelles),
            f"organelles: expected different names, at least one, got {config.organelles}",
        ),
        workers_check(config.num_workers),
    ]
    if isinstance(config, FolderData):
        return failed(checks) + _folder_errors(config)
    return failed(checks) + (_simulator_errors(config) if isinstance(config, SimulatorData) else [])


def share_checks(config: Any, keys: Iterable[str]) -> list[tuple[bool, str]]:
    """Return a check of each key, whose value must lie between 0 and 1."""
    return [
        (0 <= getattr(config, key) <= 1, f"{key}: expected a number from 0 to 1, got {getattr(config, key)}")
        for key in keys
    ]


def workers_check(num_workers: int | str) -> tuple[bool, str]:
    """Return the check of `num_workers`."""
    valid = num_workers == "auto" or (_is_number(num_workers, int) and int(num_workers) >= 0)
    return valid, f"num_workers: expected auto, 0 or more, got {num_workers!r}"


def spacing_errors(spacing_from: str, spacing_um: Sequence[float] | None) -> list[str]:
    """Return the errors of `spacing_from`, in any section that has it."""
    valid = spacing_from != "config" or spacing_um is not None
    return failed([(valid, "spacing_from: config needs spacing_um: z, y, x in um")])


def _folder_errors(config: FolderData) -> list[str]:
    spacing = config.spacing_um
    shares = [config.split.train, config.split.val, config.split.test]
    numbers = [_is_number(share) for share in shares]
    checks = [
        (
            config.table is not None or bool(config.volumes),
            "volumes: no tomograms named; give a glob such as dish*/**/*.TCF, or a table",
        ),
        (
            any(given is not None for given in (config.table, config.masks, config.corrections))
            or bool(config.labels_from)
            or not config.volumes,
            "masks: no masks named; give a pattern such as dish*/**/*_{organelle}.nii.gz",
        ),
        (spacing is None or _three_positive(spacing), f"spacing_um: {_THREE_POSITIVE} in um, got {spacing}"),
        (config.frame >= 0, f"frame: expected 0 or more, got {config.frame}"),
        (
            not config.train_cell_lines or config.cell_line is not None,
            "train_cell_lines: needs data.cell_line, the column or folder that a volume's cell line is read from",
        ),
        (
            not all(numbers) or (all(s >= 0 for s in shares) and abs(sum(shares) - 1) <= 1e-6),
            f"split: fractions must be 0 or more and add up to 1, got {shares}",
        ),
        (
            all(numbers) or not any(n and s != 0 for n, s in zip(numbers, shares, strict=True)),
            "split: give three fractions, or three lists of files or globs, not a mixture",
        ),
    ]
    return (
        failed(checks)
        + spacing_errors(config.spacing_from, spacing)
        + _channel_errors(config)
        + _annotation_errors(config)
    )


def _channel_errors(config: FolderData) -> list[str]:
    rules, organelles = config.fluorescence, list(config.organelles)
    unknown = [name for name in config.labels_from if name not in organelles]
    at_least = {"smoothing_um": 0, "min_volume_um3": 0, "min_contrast": 1, "reach_um": 0, "max_offset_um": 0}
    checks = [
        (not unknown, f"labels_from: expected some of {', '.join(organelles)} (data.organelles), got {unknown}"),
        (
            not config.labels_from or CELLS not in organelles,
            "labels_from: makes masks of the organelle task only; with labels of cells give mask files (data.masks)",
        ),
        *(
            (
                getattr(rules, key) >= least,
                f"fluorescence.{key}: expected {least} or more, got {getattr(rules, key)}",
            )
            for key, least in at_least.items()
        ),
    ]
    return failed(checks)


def _annotation_errors(config: FolderData) -> list[str]:
    """Return the errors of the keys for partly annotated volumes."""
    value, slices = config.ignore_value, config.annotated_slices
    given = {"ignore_value": value is not None, "annotated_slices": slices != "all"}
    if CELLS in config.organelles:
        why = "labels of cells are read as completely annotated, so it has no effect on them; leave it out"
        return [f"{key}: {why}" for key, is_set in given.items() if is_set]
    if value is None:
        return []
    if not (_is_number(value, int) and 1 <= value <= LARGEST_LABEL):
        return [f"ignore_value: expected a whole number from 1 to {LARGEST_LABEL} or null, got {value}"]
    multi = config.table is not None or (config.masks is not None and "{organelle}" not in config.masks)
    used = [name for name, values in config.label_values.items() if value in values] if multi else []
    taken = f"ignore_value: {value} is also a value of {', '.join(used)} in data.label_values; choose another value"
    return failed([(not used, taken)])


def _simulator_errors(config: SimulatorData) -> list[str]:
    unknown = [name for name in config.organelles if name not in (*ORGANELLES, CELLS)]
    draws = f"organelles: the simulator draws {', '.join(ORGANELLES)}, but not {', '.join(unknown)}"
    return [*failed([(not unknown, draws)]), *_field_errors(config), *simulated_set_errors(config, "volume")]


def _field_errors(config: SimulatorData) -> list[str]:
    """Return the errors that the simulator itself would raise."""
    from cytovox.simulation import Options, Request, check_field, check_options

    usual = Request("HeLa", 0)
    shape, spacing_um, noise_ri = tuple(config.shape), tuple(config.spacing_um), tuple(config.noise_ri)
    if len(noise_ri) != 2:
        return [f"noise_ri: expected two numbers such as [0.0002, 0.0016], got {config.noise_ri}"]
    if len(config.density) != 2:
        return [f"density: expected two numbers such as [0.1, 1.0], got {config.density}"]
    checks: dict[str, Callable[[], None]] = {
        "shape": lambda: check_field(0, shape, usual.spacing_um),  # type: ignore[arg-type]
        "spacing_um": lambda: check_field(0, usual.shape, spacing_um),  # type: ignore[arg-type]
        "medium_ri": lambda: check_options(Options(medium_ri=config.medium_ri)),
        "medium_spread": lambda: check_options(Options(medium_spread=config.medium_spread)),
        "noise_ri": lambda: check_options(Options(noise_ri=noise_ri)),
        "density": lambda: check_options(Options(density=(config.density[0], config.density[1]))),
    }
    errors = []
    for key, check in checks.items():
        try:
            check()
        except InputError as error:
            errors.append(f"{key}: {error}")
    return errors


def simulated_set_errors(config: Any, what: str) -> list[str]:
    """Return the errors of a config's simulated sets `train`, `val` and `test`, one line each, beginning with the key.

    Parameters
    ----------
    config : SimulatorData or ShapeSimulatorData
    what : str
        Name of one simulated object in messages, such as `volume`.
    """
    from cytovox.simulation import ANY, PRESETS

    known = (*PRESETS, ANY)

    errors = []
    taken: dict[tuple[str, int], str] = {}
    for key in ("train", "val", "test"):
        chosen: SimulatedSet = getattr(config, key)
        lines = list(chosen.counts or chosen.presets)
        if not lines or any(name not in known for name in lines):
            where = "counts" if chosen.counts else "presets"
            errors.append(f"{key}.{where}: expected some of {', '.join(known)}, got {lines}")
        elif min([chosen.count, *chosen.counts.values()]) < 0:
            errors.append(f"{key}.count: expected 0 or more, got {chosen.counts or chosen.count}")
        else:
            names = simulated_names(chosen)
            twice = next((name for name in names if name in taken), None)
            errors += failed(
                [
                    (chosen.first_seed >= 0, f"{key}.first_seed: expected 0 or more, got {chosen.first_seed}"),
                    (
                        twice is None,
                        f"{key}.first_seed: {what} {twice} is also in data.{taken.get(twice or ('', 0))}; "
                        "choose other seeds",
                    ),
                ]
            )
            taken = dict.fromkeys(names, key) | taken
    return errors


def simulated_names(chosen: SimulatedSet) -> list[tuple[str, int]]:
    """Return preset and seed of each tomogram of a set."""
    if chosen.counts:
        lines = [line for line, count in chosen.counts.items() for _ in range(count)]
    else:
        lines = [chosen.presets[i % len(chosen.presets)] for i in range(chosen.count)]
    return [(line, chosen.first_seed + i) for i, line in enumerate(lines)]
