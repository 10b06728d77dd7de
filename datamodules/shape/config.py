"""Section `data:` of a shape config: the keys of every source, and the two sources."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from datamodules.config import SimulatedSet, share_checks, simulated_set_errors, workers_check
from datamodules.errors import failed


@dataclass
class ShapeData:
    """Options for turning cells into training samples, for every source."""

    batch_size: int = 8
    """Cells per batch on each device."""
    cells_per_epoch: int = 0
    """Training samples per epoch, over all devices, in whole batches; 0: as many as there are training cells."""
    rotate: bool = True
    """Random rotation of image, mask and object about z by any angle."""
    flip: bool = True
    """Random flips along y and x."""
    flip_z: bool = True
    """Random flips along z about the imaged slice; not for cells that lie on a slide, whose upper side differs."""
    zoom: list[float] = field(default_factory=lambda: [0.9, 1.1])
    """Range of the random magnification of all three axes."""
    shift: float = 2.0
    """Largest random shift in y and x, in pixels."""
    elastic: float = 0.0
    """Standard deviation in pixels of a smooth random deformation in the plane; 0: none."""
    elastic_probability: float = 0.3
    """Probability that a cell is deformed."""
    intensity_scale: float = 0.1
    """Largest random relative change of the image's brightness."""
    intensity_offset: float = 0.05
    """Largest random offset of the image, whose values lie between 0 and 1."""
    noise: float = 0.02
    """Largest standard deviation of the noise added to the image."""
    mirror_yz: float = 0.0
    """Probability of an additional flip along y and, independently, along z, after `flip` and `flip_z`. DISPR's code
    defines it with 0.333 for each and does not use it."""
    num_workers: int | str = "auto"
    """Loader processes; `auto` leaves one core to the training, at most 8."""
    cache_dir: str | None = None
    """Folder of simulated cells and digests; null for the user's cache folder."""


@dataclass
class ShapeFolderData(ShapeData):
    """Images, masks and objects in folders."""

    source: Literal["folder"] = "folder"
    """Name of this source."""
    root: str = "."
    """Folder with the folders `image`, `mask` and `obj`, or `train` and `test` with these three each."""
    layout: Literal["auto", "flat", "train_test"] = "auto"
    """Layout of `root`: `flat` is divided into folds, `train_test` has its own test cells (DISPR), `auto` chooses."""
    class_pattern: str | None = r"(.*?\D)[ _-]*\d+"
    """Regular expression that a file name without its suffix must match; its first group is the class. The default
    takes the name up to its number; null puts all cells into one class, `cell`."""
    folds: int = 5
    """Number of folds, stratified by class; 0 trains on every cell and tests none."""
    fold: int = 0
    """Test fold, from 0."""
    fold_seed: int = 0
    """Seed of the division into folds. It is independent of the run's seed, so that all models share their folds."""
    val: float = 0.1
    """Fraction of the training cells used for validation instead, stratified by class; may be 0."""


@dataclass
class ShapeSimulatorData(ShapeData):
    """Simulated cells: membrane shapes, sliced and imaged."""

    source: Literal["simulator"] = "simulator"
    """Name of this source."""
    flip_z: bool = False
    """Random flips along z; off, since these cells lie on a slide, flat side down."""
    train: SimulatedSet = field(default_factory=lambda: SimulatedSet(count=200))
    """Training cells; the class of a cell is its preset."""
    val: SimulatedSet = field(default_factory=lambda: SimulatedSet(count=20, first_seed=100_000))
    """Validation cells."""
    test: SimulatedSet = field(default_factory=lambda: SimulatedSet(count=40, first_seed=200_000))
    """Test cells."""


#: Sources by their name in a config.
SHAPE_SOURCES: dict[str, type[ShapeFolderData] | type[ShapeSimulatorData]] = {
    "folder": ShapeFolderData,
    "simulator": ShapeSimulatorData,
}


def shape_data_errors(config: ShapeData) -> list[str]:
    """Return the errors of a config's values, one line each, beginning with the key."""
    zoom = config.zoom
    checks = [
        (config.batch_size >= 1, f"batch_size: expected 1 or more, got {config.batch_size}"),
        (
            config.cells_per_epoch >= 0,
            f"cells_per_epoch: expected 0 (as many as there are cells) or more, got {config.cells_per_epoch}",
        ),
        (
            len(zoom) == 2 and 0.5 <= zoom[0] <= zoom[1] <= 2,
            f"zoom: expected a range such as [0.9, 1.1], within 0.5 to 2, got {zoom}",
        ),
        *(
            (
                0 <= getattr(config, key) <= most,
                f"{key}: expected a number from 0 to {most}, got {getattr(config, key)}",
            )
            for key, most in (("shift", 16), ("elastic", 4), ("intensity_offset", 1), ("noise", 1))
        ),
        (
            0 <= config.intensity_scale < 1,
            f"intensity_scale: expected a number from 0 to below 1, got {config.intensity_scale}",
        ),
        *share_checks(config, ("elastic_probability", "mirror_yz")),
        workers_check(config.num_workers),
    ]
    if isinstance(config, ShapeFolderData):
        return failed(checks) + _folder_errors(config)
    return failed(checks) + (simulated_set_errors(config, "cell") if isinstance(config, ShapeSimulatorData) else [])


def _folder_errors(config: ShapeFolderData) -> list[str]:
    pattern, folds, last = config.class_pattern, config.folds, max(0, config.folds - 1)
    try:
        groups = 1 if pattern is None else re.compile(pattern).groups
        wrong_pattern = "expected a group in brackets, the class"
    except re.error as error:
        groups, wrong_pattern = 0, f"no regular expression ({error})"
    some_folds = folds == 0 or folds > 1
    checks = [
        (groups > 0, f"class_pattern: {pattern}: {wrong_pattern}"),
        (some_folds, f"folds: expected 2 or more, or 0 to train on every cell, got {folds}"),
        (
            not some_folds or 0 <= config.fold <= last,
            f"fold: expected 0 to {last} with data.folds {folds}, got {config.fold}",
        ),
        (config.fold_seed >= 0, f"fold_seed: expected 0 or more, got {config.fold_seed}"),
        (0 <= config.val < 1, f"val: expected a number from 0 to below 1, got {config.val}"),
    ]
    return failed(checks)
