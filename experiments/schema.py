"""The typed config: one dataclass a group, and how the branches of a group are chosen."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from typing import Any, Literal

from datamodules.config import SOURCES, TEXTS, TEXTS_OR_NULL
from formats.errors import InputError
from lightning_modules.optim import OPTIMIZERS
from networks import network_config
from objectives import loss_config
from training.trainer import TrainerConfig

#: Version of the config's layout; a config of another version is refused, not guessed at.
SCHEMA_VERSION = 1

STAGES = ("fit", "test", "predict")


@dataclass
class LoggingConfig:
    """`logging:`."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto`: online where a W&B key is set, else offline."""
    project: str = "cytovox"
    """W&B project."""
    entity: str | None = None
    """W&B team or user."""
    group: str | None = None
    """W&B group."""
    tags: list[str] = field(default_factory=list)
    """W&B tags."""


@dataclass
class PredictConfig:
    """`predict:`. The windows serve validation and test, too."""

    inputs: Any = field(default_factory=list, metadata=TEXTS)
    """Files, folders or globs of tomograms."""
    checkpoint: Any = field(default=None, metadata=TEXTS_OR_NULL)
    """A .ckpt file, a run folder or the name of shipped weights; several are an ensemble, whose probabilities are
    averaged. Null for this run's own weights, else `init_from`, else the newest run of the same name, else the shipped
    weights."""
    out: str | None = None
    """Folder for the masks; null for `predictions/` in the run folder."""
    spacing_um: list[float] | None = None
    """Voxel size z, y, x in um of inputs that do not say it (plain TIFF)."""
    window: list[int] | None = None
    """Window z, y, x in voxels of the common grid; null for the patch size the network was trained on."""
    stride: list[int] | None = None
    """Step between windows, z, y, x in voxels; null for half a window."""
    overlap: list[float] | None = None
    """Overlap of neighbouring windows along z, y, x as a part of the window, instead of `stride`."""
    weight: Literal["spline", "gaussian", "constant"] = "spline"
    """How a window's voxels count; `spline` is triangular, as in the paper."""
    z: Literal["tile", "center"] = "tile"
    """`tile`: the whole depth; `center`: one window in the middle, as in the paper."""
    pad_yx: list[int] | None = None
    """Voxels added around y and x before tiling; null for half a window (64 in the paper)."""
    pad_mode: Literal["symmetric", "edge", "constant"] = "symmetric"
    """What is added."""
    batch_size: int = 4
    """Windows the network sees at once."""
    skip_below: float | None = 0.1
    """Windows with nothing but medium are not computed but taken for empty: those in which no block of 4x4x4 voxels has
    a mean normalised refractive index above this (0: `data.ri_range`'s lower end, 1: its upper). Null computes all."""
    flips: list[str] = field(default_factory=list)
    """Axes out of z, y, x: the mean over every combination of mirror images. Each axis doubles the time."""
    memory_gb: float = 0.5
    """Working memory for stitching; what a volume needs beyond it goes to temporary files."""
    threshold: float = 0.5
    """Probability from which a voxel belongs to an organelle."""
    format: Literal["ome-tiff", "ome-zarr", "nifti"] = "ome-tiff"
    """What is written."""
    probabilities: bool = False
    """Write the probabilities (float32 OME-TIFF, one file a frame), too."""


@dataclass
class Config:
    """A whole config. `data`, `model`, `loss` and `optimizer` have branches, chosen by their first key."""

    schema_version: int = SCHEMA_VERSION
    """Layout of this file."""
    name: str = "run"
    """Runs lie in runs/<name>/."""
    task: Literal["organelle"] = "organelle"
    """What is learned."""
    seed: int = 0
    """Of everything random."""
    base: Any = field(default_factory=list, metadata=TEXTS)
    """Configs that this one starts from."""
    stages: list[str] = field(default_factory=lambda: ["fit", "test"])
    """Some of fit, test, predict."""
    runs_dir: str = "runs"
    """Where runs lie."""
    resume: str | None = None
    """Run folder to go on in."""
    init_from: str | None = None
    """Checkpoint or run folder whose weights the network starts from."""
    data: Any = None
    """`source: folder | simulator` and its keys."""
    model: Any = None
    """`network:` and its options."""
    loss: Any = None
    """`name:` and its options."""
    optimizer: Any = None
    """`name:` and its options."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """Lightning's own names."""
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    """W&B."""
    predict: PredictConfig = field(default_factory=PredictConfig)
    """Windows, and what is predicted."""


@dataclass(frozen=True)
class Choice:
    """A group whose keys depend on one of them."""

    key: str
    """The key that chooses."""
    default: str
    """Its value where it is not given."""


#: The groups with branches.
CHOICES: dict[str, Choice] = {
    "data": Choice("source", "folder"),
    "model": Choice("network", "residual_unet"),
    "loss": Choice("name", "dice_bce"),
    "optimizer": Choice("name", "adam"),
}


def branch(group: str, choice: str) -> type:
    """The dataclass of a group for a choice; the choosing key is one of its fields.

    Raises
    ------
    InputError
        No such choice; the nearest one is named.
    """
    if group == "model":
        return _with_key(network_config(choice), CHOICES[group].key, choice)
    if group == "loss":
        return _with_key(loss_config(choice), CHOICES[group].key, choice)
    registries: dict[str, dict[str, Any]] = {"data": dict(SOURCES), "optimizer": dict(OPTIMIZERS)}
    known = registries[group]
    if choice not in known:
        near = difflib.get_close_matches(choice, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"{group}.{CHOICES[group].key}: expected one of {', '.join(known)}, got {choice!r}{hint}")
    return _with_key(known[choice], CHOICES[group].key, choice)


def _with_key(kind: type, key: str, choice: str) -> type:
    """The same dataclass with the choosing key as its first field."""
    if any(f.name == key for f in dataclasses.fields(kind)):
        return kind
    frozen = kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    return dataclasses.make_dataclass(kind.__name__, [(key, str, field(default=choice))], bases=(kind,), frozen=frozen)


def known_keys(group: str, choice: str) -> set[str] | None:
    """Keys of a branch, or None where there is no such branch."""
    try:
        return {f.name for f in dataclasses.fields(branch(group, choice))}
    except InputError:
        return None
