"""`data:` of an organelle config: what every source has, and the two sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cytovox.errors import InputError
from cytovox.organelles import CELLS, ORGANELLES


def is_texts(value: Any) -> bool:
    """Whether a value is a text or a list of texts."""
    return isinstance(value, str) or (isinstance(value, list | tuple) and all(isinstance(v, str) for v in value))


def _is_series(value: Any) -> bool:
    return value is None or isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def _is_share(value: Any) -> bool:
    return is_texts(value) or (isinstance(value, int | float) and not isinstance(value, bool))


#: For fields that OmegaConf's unions cannot express: what is accepted, and how that is said.
TEXTS_OR_NULL = {"accepts": lambda value: value is None or is_texts(value), "expects": "text, a list of text or null"}
TEXTS = {"accepts": is_texts, "expects": "text or a list of text"}
SHARE = {"accepts": _is_share, "expects": "a number or a list of text"}
SERIES = {"accepts": _is_series, "expects": "null, a number from 0 or a name"}


@dataclass
class OrganelleData:
    """How tomograms become training samples, whatever their source."""

    organelles: list[str] = field(default_factory=lambda: list(ORGANELLES))
    """Names of the masks, in the order of the network's outputs."""
    resample: Literal["spacing_um", "grid"] = "spacing_um"
    """Common grid: one voxel size for all (`spacing_um`), or one shape for all (`grid`, Choi et al. 2021)."""
    resample_spacing_um: list[float] = field(default_factory=lambda: [0.25, 0.25, 0.25])
    """Voxel size z, y, x in um for `resample: spacing_um`."""
    resample_grid: list[int] = field(default_factory=lambda: [128, 512, 512])
    """Shape z, y, x for `resample: grid`."""
    ri_range: list[float] = field(default_factory=lambda: [1.337, 1.390])
    """Refractive indices that become 0 and 1; beyond them is clipped."""
    patch_size: list[int] = field(default_factory=lambda: [64, 128, 128])
    """Training patch z, y, x in voxels of the common grid."""
    batch_size: int = 2
    """Patches a batch on each device."""
    patches_per_epoch: int = 500
    """Patches an epoch, over all devices."""
    foreground: float = 0.67
    """Part of the patches that are centred on a voxel of an organelle, each organelle equally often."""
    scale: list[float] = field(default_factory=lambda: [0.5, 2.0])
    """Range of the random zoom."""
    scale_probability: float = 0.3
    """How often a patch is zoomed."""
    rotate_probability: float = 0.3
    """How often a patch is turned about z by any angle."""
    flip: bool = True
    """Random mirror images in z, y and x."""
    ri_offset: float = 0.0
    """Largest random offset of the index, up or down, for media and calibrations that differ (0.002 is much)."""
    ri_contrast: float = 0.0
    """Largest random change of the contrast, as a part of it."""
    num_workers: int | str = "auto"
    """Loader processes; `auto` leaves one core to the training, 8 at most."""
    cache_dir: str | None = None
    """Where prepared volumes are kept; null for the user's cache folder."""


@dataclass
class Split:
    """How volumes are divided. Fractions of the groups, or lists of files and globs."""

    train: Any = field(default=0.7, metadata=SHARE)
    """A fraction, or a list of files or globs."""
    val: Any = field(default=0.1, metadata=SHARE)
    """The same."""
    test: Any = field(default=0.2, metadata=SHARE)
    """The same."""


@dataclass
class FolderData(OrganelleData):
    """Tomograms and masks in folders."""

    source: Literal["folder"] = "folder"
    """This source's name."""
    root: str = "."
    """What relative paths and globs start from."""
    volumes: Any = field(default_factory=list, metadata=TEXTS)
    """A glob, a folder or a list of them: TCF, OME-TIFF, TIFF, NIfTI or OME-Zarr."""
    masks: str | None = None
    """Pattern of the mask files with {organelle} for one file an organelle, without for one file of all (a channel
    each, found by their names, or a value each); `*` or {stem} in the file's name stands for the volume's name.
    {parent} is the volume's folder, {relative} its path below `root` without the suffix, {frame} the number in
    `frame`."""
    label_values: dict[str, list[int]] = field(
        default_factory=lambda: {"membrane": [1, 2, 3, 4], "nucleus": [2, 3], "nucleolus": [3], "lipid": [4]}
    )
    """Multi-label files: the values inside each organelle (the membrane is the whole cell, so it holds them all)."""
    labels: Literal["auto", "binary", "instances"] = "auto"
    """How values of masks are taken: `auto` decides by content and says so; `binary` is one mask, whose connected parts
    are the objects where objects are needed (cells); `instances` is one object a value."""
    table: str | None = None
    """CSV instead of `volumes` and `masks`: columns volume, then any of mask, organelles' names, group, line, split."""
    corrections: str | None = None
    """Folder of corrected masks, such as a run's `predictions/`: {stem}_{organelle}_corrected.nii.gz, or
    {stem}_t003_{organelle}_corrected.nii.gz of frame 3. They win over `masks`, and add the frames they belong to."""
    spacing_um: list[float] | None = None
    """Voxel size z, y, x in um of files that do not say it (plain TIFF)."""
    spacing_from: Literal["file", "config"] = "file"
    """Which decides where a file states another voxel size than `spacing_um`: `file` refuses it, `config` takes
    `spacing_um`."""
    series: Any = field(default=None, metadata=SERIES)
    """Number or name of the image in files that hold several; null where they hold one."""
    check_spacing: bool = True
    """Refuse masks whose spacing is not their volume's."""
    mask_axes: Literal["auto", "header", "stored"] = "auto"
    """How a mask lies where it or the volume is NIfTI whose header mirrors or swaps axes, and the other file states no
    directions (TIFF, TCF, OME-Zarr): `auto` refuses it; `header` reads both as ITK-SNAP shows them; `stored` lays the
    stored arrays voxel on voxel."""
    frame: int = 0
    """The frame of a time-lapse that the masks belong to."""
    group: str | None = None
    """What must stay together in a split: a column of the table, or how the folder's name begins (`dish`)."""
    cell_line: str | None = None
    """Cell line, by which test scores are listed: a column of the table, or how the folder's name begins."""
    train_cell_lines: list[str] = field(default_factory=list)
    """Train on these cell lines only; all volumes of the others are tested. Empty: all are split."""
    split: Split = field(default_factory=Split)
    """Training, validation and test."""


@dataclass
class SimulatedSet:
    """Some tomograms of the simulator."""

    presets: list[str] = field(default_factory=lambda: ["NIH3T3", "A549", "HeLa", "MDA-MB-231", "RAW264.7"])
    """Cell lines, taken in turn."""
    count: int = 10
    """Number of tomograms."""
    counts: dict[str, int] = field(default_factory=dict)
    """Number of tomograms of each cell line, instead of `presets` and `count`."""
    first_seed: int = 0
    """Seed of the first; each has its own."""


@dataclass
class SimulatorData(OrganelleData):
    """Tomograms of the virtual holotomograph."""

    source: Literal["simulator"] = "simulator"
    """This source's name."""
    shape: list[int] = field(default_factory=lambda: [64, 128, 128])
    """Size z, y, x in voxels."""
    spacing_um: list[float] = field(default_factory=lambda: [0.3, 0.3, 0.3])
    """Voxel size z, y, x in um."""
    medium_ri: float = 1.337
    """Refractive index of the medium."""
    medium_spread: float = 0.0
    """Each tomogram's medium differs from it by at most this."""
    noise_ri: list[float] = field(default_factory=lambda: [0.0002, 0.0016])
    """Range of the deviation of the coherent noise."""
    density: list[float] = field(default_factory=lambda: [1.0, 1.0])
    """Range of the cells on an area, relative to the line's; below 1 there is empty medium around the cells."""
    train: SimulatedSet = field(default_factory=lambda: SimulatedSet(count=40))
    """Training volumes."""
    val: SimulatedSet = field(default_factory=lambda: SimulatedSet(count=5, first_seed=100_000))
    """Validation volumes."""
    test: SimulatedSet = field(default_factory=lambda: SimulatedSet(count=10, first_seed=200_000))
    """Test volumes."""


#: Sources by the name a config uses.
SOURCES: dict[str, type[FolderData] | type[SimulatorData]] = {"folder": FolderData, "simulator": SimulatorData}


def data_errors(config: OrganelleData) -> list[str]:
    """What cannot work in these values, one line each, beginning with the key."""
    errors = []
    for key in ("patch_size", "resample_grid", "resample_spacing_um"):
        values = getattr(config, key)
        if len(values) != 3 or any(v <= 0 for v in values):
            errors.append(f"{key}: expected three positive numbers (z, y, x), got {values}")
    low_high = config.ri_range
    if len(low_high) != 2 or not 1.0 <= low_high[0] < low_high[1] <= 2.0:
        errors.append(f"ri_range: expected two refractive indices such as [1.337, 1.390], got {low_high}")
    if len(config.scale) != 2 or not 0 < config.scale[0] <= config.scale[1]:
        errors.append(f"scale: expected a range such as [0.5, 2.0], got {config.scale}")
    for key in ("foreground", "scale_probability", "rotate_probability"):
        if not 0 <= getattr(config, key) <= 1:
            errors.append(f"{key}: expected a number from 0 to 1, got {getattr(config, key)}")
    for key in ("batch_size", "patches_per_epoch"):
        if getattr(config, key) < 1:
            errors.append(f"{key}: expected 1 or more, got {getattr(config, key)}")
    if not config.ri_offset >= 0:
        errors.append(f"ri_offset: expected 0 or more, got {config.ri_offset}")
    if not 0 <= config.ri_contrast < 1:
        errors.append(f"ri_contrast: expected a part from 0 to below 1, got {config.ri_contrast}")
    if not config.organelles or len(set(config.organelles)) != len(config.organelles):
        errors.append(f"organelles: expected different names, at least one, got {config.organelles}")
    if config.num_workers != "auto" and (not isinstance(config.num_workers, int) or config.num_workers < 0):
        errors.append(f"num_workers: expected auto, 0 or more, got {config.num_workers!r}")
    if isinstance(config, FolderData):
        errors += _folder_errors(config)
    if isinstance(config, SimulatorData):
        errors += _simulator_errors(config)
    return errors


def spacing_errors(spacing_from: str, spacing_um: Sequence[float] | None) -> list[str]:
    """What is wrong with `spacing_from`, in any section that has it."""
    if spacing_from == "config" and spacing_um is None:
        return ["spacing_from: config needs spacing_um: z, y, x in um"]
    return []


def _folder_errors(config: FolderData) -> list[str]:
    errors = []
    if config.table is None and not config.volumes:
        errors.append("volumes: no tomograms named; give a glob such as dish*/**/*.TCF, or a table")
    if config.table is None and config.masks is None and config.corrections is None and config.volumes:
        errors.append("masks: no masks named; give a pattern such as dish*/**/*_{organelle}.nii.gz")
    if config.spacing_um is not None and (len(config.spacing_um) != 3 or any(v <= 0 for v in config.spacing_um)):
        errors.append(f"spacing_um: expected three positive numbers (z, y, x) in um, got {config.spacing_um}")
    errors += spacing_errors(config.spacing_from, config.spacing_um)
    if config.frame < 0:
        errors.append(f"frame: expected 0 or more, got {config.frame}")
    if config.train_cell_lines and config.cell_line is None:
        errors.append("train_cell_lines: needs data.cell_line, which says where a volume's cell line is read from")
    shares = [config.split.train, config.split.val, config.split.test]
    numbers = [isinstance(s, int | float) and not isinstance(s, bool) for s in shares]
    if all(numbers):
        if any(s < 0 for s in shares) or abs(sum(shares) - 1) > 1e-6:
            errors.append(f"split: fractions must be 0 or more and add up to 1, got {shares}")
    elif any(n and s != 0 for n, s in zip(numbers, shares, strict=True)):
        errors.append("split: give three fractions, or three lists of files or globs, not a mixture")
    return errors


def _simulator_errors(config: SimulatorData) -> list[str]:
    from cytovox.simulation import ANY, PRESETS

    known = (*PRESETS, ANY)

    errors = []
    strange = [name for name in config.organelles if name not in (*ORGANELLES, CELLS)]
    if strange:
        errors.append(f"organelles: the simulator draws {', '.join(ORGANELLES)}, but not {', '.join(strange)}")
    errors += _field_errors(config)
    taken: dict[tuple[str, int], str] = {}
    for key in ("train", "val", "test"):
        chosen: SimulatedSet = getattr(config, key)
        lines = list(chosen.counts or chosen.presets)
        if not lines or any(name not in known for name in lines):
            where = "counts" if chosen.counts else "presets"
            errors.append(f"{key}.{where}: expected some of {', '.join(known)}, got {lines}")
            continue
        if min([chosen.count, *chosen.counts.values()]) < 0:
            errors.append(f"{key}.count: expected 0 or more, got {chosen.counts or chosen.count}")
            continue
        if chosen.first_seed < 0:
            errors.append(f"{key}.first_seed: expected 0 or more, got {chosen.first_seed}")
        for request in simulated_names(chosen):
            if request in taken:
                errors.append(
                    f"{key}.first_seed: volume {request} is also in data.{taken[request]}; choose other seeds"
                )
                break
            taken[request] = key
    return errors


def _field_errors(config: SimulatorData) -> list[str]:
    """What the simulator itself would refuse, found before it begins."""
    from cytovox.simulation import Options, Request, check_field, check_options

    usual = Request("HeLa", 0)
    shape, spacing_um, noise_ri = tuple(config.shape), tuple(config.spacing_um), tuple(config.noise_ri)
    if len(noise_ri) != 2:
        return [f"noise_ri: expected two numbers such as [0.0002, 0.0016], got {config.noise_ri}"]
    if len(config.density) != 2:
        return [f"density: expected two numbers such as [0.1, 1.0], got {config.density}"]
    density = (config.density[0], config.density[1])
    checks: dict[str, Callable[[], None]] = {
        "shape": lambda: check_field(0, shape, usual.spacing_um),  # type: ignore[arg-type]
        "spacing_um": lambda: check_field(0, usual.shape, spacing_um),  # type: ignore[arg-type]
        "medium_ri": lambda: check_options(Options(medium_ri=config.medium_ri)),
        "medium_spread": lambda: check_options(Options(medium_spread=config.medium_spread)),
        "noise_ri": lambda: check_options(Options(noise_ri=noise_ri)),
        "density": lambda: check_options(Options(density=density)),
    }
    errors = []
    for key, check in checks.items():
        try:
            check()
        except InputError as error:
            errors.append(f"{key}: {error}")
    return errors


def simulated_names(chosen: SimulatedSet) -> list[tuple[str, int]]:
    """(preset, seed) of each tomogram of a set."""
    if chosen.counts:
        lines = [line for line, count in chosen.counts.items() for _ in range(count)]
    else:
        lines = [chosen.presets[i % len(chosen.presets)] for i in range(chosen.count)]
    return [(line, chosen.first_seed + i) for i, line in enumerate(lines)]
