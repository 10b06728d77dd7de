"""`data:` of a shape config: what every source has, and the two sources."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from datamodules.config import SimulatedSet, simulated_names


@dataclass
class ShapeData:
    """How cells become training samples, whatever their source."""

    batch_size: int = 8
    """Cells a batch on each device."""
    cells_per_epoch: int = 0
    """Training samples an epoch, over all devices, in whole batches; 0 takes as many as there are training cells."""
    rotate: bool = True
    """Turn image, mask and object about z by any angle."""
    flip: bool = True
    """Random mirror images in y and x."""
    flip_z: bool = True
    """Random mirror images in z about the imaged slice; not for cells that lie on a slide, which have an upper side."""
    zoom: list[float] = field(default_factory=lambda: [0.9, 1.1])
    """Range of the random magnification of all three axes."""
    shift: float = 2.0
    """Largest random shift in y and x, in pixels."""
    elastic: float = 0.0
    """Deviation in pixels of a smooth random deformation in the plane; 0 leaves it out."""
    elastic_probability: float = 0.3
    """How often a cell is deformed."""
    intensity_scale: float = 0.1
    """Largest random change of the image's brightness, as a part of it."""
    intensity_offset: float = 0.05
    """Largest random offset of the image, which runs from 0 to 1."""
    noise: float = 0.02
    """Largest deviation of the noise added to the image."""
    mirror_yz: float = 0.0
    """Chance of a mirror image along y, and apart from it of one along z, beside `flip` and `flip_z`: DISPR's code
    defines it with 0.333 for each and does not use it."""
    num_workers: int | str = "auto"
    """Loader processes; `auto` leaves one core to the training, 8 at most."""
    cache_dir: str | None = None
    """Where simulated cells and digests are kept; null for the user's cache folder."""


@dataclass
class ShapeFolderData(ShapeData):
    """Images, masks and objects in folders."""

    source: Literal["folder"] = "folder"
    """This source's name."""
    root: str = "."
    """The folder that holds `image`, `mask` and `obj`, or `train` and `test` with these three each."""
    layout: Literal["auto", "flat", "train_test"] = "auto"
    """`flat` is divided into folds; `train_test` keeps its own test cells (DISPR); `auto` looks which one it is."""
    class_pattern: str | None = r"(.*?\D)[ _-]*\d+"
    """Regular expression that a file's name without its ending matches; its first group is the class. The default takes
    the name up to its number; null puts all cells into one class, `cell`."""
    folds: int = 5
    """Parts that the cells are divided into, class by class; 0 trains on every cell and tests none."""
    fold: int = 0
    """The part that is tested, from 0."""
    fold_seed: int = 0
    """Decides which cell lies in which part, apart from the run's seed: all models share their folds."""
    val: float = 0.1
    """Share of the training cells that validates instead, class by class; may be 0."""


@dataclass
class ShapeSimulatorData(ShapeData):
    """Cells of the simulator: membrane shapes, sliced and imaged."""

    source: Literal["simulator"] = "simulator"
    """This source's name."""
    flip_z: bool = False
    """Random mirror images in z: these cells lie on a slide, flat side down."""
    train: SimulatedSet = field(default_factory=lambda: SimulatedSet(count=200))
    """Training cells; a cell's class is its preset."""
    val: SimulatedSet = field(default_factory=lambda: SimulatedSet(count=20, first_seed=100_000))
    """Validation cells."""
    test: SimulatedSet = field(default_factory=lambda: SimulatedSet(count=40, first_seed=200_000))
    """Test cells."""


#: Sources by the name a config uses.
SHAPE_SOURCES: dict[str, type[ShapeFolderData] | type[ShapeSimulatorData]] = {
    "folder": ShapeFolderData,
    "simulator": ShapeSimulatorData,
}


def shape_data_errors(config: ShapeData) -> list[str]:
    """What cannot work in these values, one line each, beginning with the key."""
    errors = []
    if config.batch_size < 1:
        errors.append(f"batch_size: expected 1 or more, got {config.batch_size}")
    if config.cells_per_epoch < 0:
        errors.append(f"cells_per_epoch: expected 0 (as many as there are cells) or more, got {config.cells_per_epoch}")
    if len(config.zoom) != 2 or not 0.5 <= config.zoom[0] <= config.zoom[1] <= 2:
        errors.append(f"zoom: expected a range such as [0.9, 1.1], within 0.5 to 2, got {config.zoom}")
    for key, most in (("shift", 16), ("elastic", 4), ("intensity_offset", 1), ("noise", 1)):
        if not 0 <= getattr(config, key) <= most:
            errors.append(f"{key}: expected a number from 0 to {most}, got {getattr(config, key)}")
    if not 0 <= config.intensity_scale < 1:
        errors.append(f"intensity_scale: expected a part from 0 to below 1, got {config.intensity_scale}")
    for key in ("elastic_probability", "mirror_yz"):
        if not 0 <= getattr(config, key) <= 1:
            errors.append(f"{key}: expected a number from 0 to 1, got {getattr(config, key)}")
    workers = config.num_workers
    if workers != "auto" and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 0):
        errors.append(f"num_workers: expected auto, 0 or more, got {workers!r}")
    if isinstance(config, ShapeFolderData):
        errors += _folder_errors(config)
    if isinstance(config, ShapeSimulatorData):
        errors += _simulator_errors(config)
    return errors


def _folder_errors(config: ShapeFolderData) -> list[str]:
    errors = []
    try:
        groups = 1 if config.class_pattern is None else re.compile(config.class_pattern).groups
    except re.error as error:
        errors.append(f"class_pattern: {config.class_pattern}: no regular expression ({error})")
    else:
        if groups < 1:
            errors.append(f"class_pattern: {config.class_pattern}: expected a group in brackets, the class")
    if config.folds < 0 or config.folds == 1:
        errors.append(f"folds: expected 2 or more, or 0 to train on every cell, got {config.folds}")
    elif not 0 <= config.fold < max(1, config.folds):
        errors.append(
            f"fold: expected 0 to {max(0, config.folds - 1)} with data.folds {config.folds}, got {config.fold}"
        )
    if config.fold_seed < 0:
        errors.append(f"fold_seed: expected 0 or more, got {config.fold_seed}")
    if not 0 <= config.val < 1:
        errors.append(f"val: expected a share from 0 to below 1, got {config.val}")
    return errors


def _simulator_errors(config: ShapeSimulatorData) -> list[str]:
    from cytovox.simulation import PRESETS

    errors = []
    taken: dict[tuple[str, int], str] = {}
    for key in ("train", "val", "test"):
        chosen: SimulatedSet = getattr(config, key)
        lines = list(chosen.counts or chosen.presets)
        if not lines or any(p not in PRESETS for p in lines):
            where = "counts" if chosen.counts else "presets"
            errors.append(f"{key}.{where}: expected some of {', '.join(PRESETS)}, got {lines}")
        elif min([chosen.count, *chosen.counts.values()]) < 0:
            errors.append(f"{key}.count: expected 0 or more, got {chosen.counts or chosen.count}")
        elif chosen.first_seed < 0:
            errors.append(f"{key}.first_seed: expected 0 or more, got {chosen.first_seed}")
        else:
            names = simulated_names(chosen)
            twice = next((n for n in names if n in taken), None)
            if twice is not None:
                errors.append(f"{key}.first_seed: cell {twice} is also in data.{taken[twice]}; choose other seeds")
            taken |= dict.fromkeys(names, key)
    return errors
