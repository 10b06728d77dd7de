"""What a checkpoint says about itself: enough to rebuild its network and to prepare its input."""

from __future__ import annotations

import dataclasses
import json
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cytovox.errors import InputError
from cytovox.models.finite import first_nonfinite
from cytovox.models.weights_file import KEY, SUFFIX, read_content
from cytovox.renamed import RENAMED_METHODS, RENAMED_OPTIONS

#: What torch raises on files that are no checkpoints, or damaged ones.
_UNREADABLE = (
    RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError, TypeError, AssertionError,
    pickle.UnpicklingError, struct.error,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointMetadata:
    """What every checkpoint says about itself; plain types only, so that `weights_only=True` reads it."""

    task: str
    """Such as `organelle`."""
    model: dict[str, Any]
    """`network` and its options."""
    schema_version: int = 1
    """Of these metadata."""
    trained_on: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Ranges of the training inputs, as `training.domain.describe` makes them; empty where unknown."""
    seen: list[str] = dataclasses.field(default_factory=list)
    """Fingerprints (`lightning_modules.seen`) of the cells or volumes that the weights were trained, stopped early or
    tuned on, sorted."""
    seen_all: bool = False
    """Whether these are all of them; not known of weights from before they were kept."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrganelleMetadata(CheckpointMetadata):
    """Input preprocessing and output labels of an organelle network."""

    organelles: list[str]
    """Names of the outputs."""
    resample: str
    """`spacing_um` or `grid`."""
    resample_spacing_um: list[float]
    """Voxel size z, y, x of the common grid, if it is one of spacing."""
    resample_grid: list[int]
    """Shape of the common grid, if it is one of shape."""
    ri_range: list[float]
    """Refractive indices that became 0 and 1."""
    patch_size: list[int]
    """Window z, y, x that the network was trained on."""

    @property
    def resample_key(self) -> str:
        """The one of the two fields that says the common grid."""
        return "resample_grid" if self.resample == "grid" else "resample_spacing_um"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchMetadata(OrganelleMetadata):
    """Input preprocessing and output labels of a supernet, and its search space."""

    operations: list[str]
    """What an edge may do."""
    cost_measure: str
    """What its costs are counted in, one of `cytovox.networks.search_cost.Measure`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellsMetadata(CheckpointMetadata):
    """Input preprocessing of a network that tells cells apart."""

    method: str
    """`network`: shown one nucleus at a time; `offsets`: centre offsets, all cells at once."""
    resample: str
    """`spacing_um` or `grid`."""
    resample_spacing_um: list[float]
    """Voxel size z, y, x of the common grid, if it is one of spacing."""
    resample_grid: list[int]
    """Shape of the common grid, if it is one of shape."""
    ri_range: list[float]
    """Refractive indices that became 0 and 1."""
    patch_size: list[int]
    """Window z, y, x that the network was trained on."""
    z: str = "fit"
    """Which slices it sees: `fit`, `center` or `middle` (`cytovox.segmentation.networks.ConditionedCells`)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShapeMetadata(CheckpointMetadata):
    """What surrounds a shape network: the parts it was trained with, by name and options."""

    field: dict[str, Any]
    """How shapes are represented."""
    process: dict[str, Any]
    """How data became noise."""
    preconditioning: dict[str, Any]
    """What the network's output means."""
    traits: dict[str, Any] = dataclasses.field(default_factory=lambda: {"name": "none"})
    """What the network is given besides the image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SHAPRMetadata(CheckpointMetadata):
    """SHAPR needs nothing more."""


#: The metadata of each task's checkpoints.
METADATA: dict[str, type[CheckpointMetadata]] = {
    "organelle": OrganelleMetadata, "cells": CellsMetadata, "shape": ShapeMetadata, "shapr": SHAPRMetadata,
    "search": SearchMetadata,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Weights:
    """A checkpoint's network and its metadata."""

    path: Path
    metadata: Any
    """`CheckpointMetadata` of its task."""
    network_state: dict[str, torch.Tensor]


def read_checkpoint(path: Path, task: str | None, key: str) -> Weights:
    """Read a checkpoint of this task.

    Parameters
    ----------
    path : Path
        A `.ckpt` file, or a `.safetensors` file of `cytovox.models.weights_file`.
    task : str or None
        The task it must be of; None for any.
    key : str
        Config key that named it, for the error messages.

    Raises
    ------
    InputError
        Missing, truncated, not one of ours, of another task, or with weights that are NaN or infinite.
    """
    if not path.is_file():
        raise InputError(f"{key}: {path}: no such checkpoint; expected a .ckpt file or a run folder that has one")
    try:
        content = _content(path)
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{key}: {path}: cannot be read as a checkpoint ({reason[:160]})") from None
    stored = content.get(KEY) if isinstance(content, Mapping) else None
    if not isinstance(stored, Mapping) or not isinstance(content.get("state_dict"), Mapping):
        raise InputError(f"{key}: {path}: not a checkpoint of Cytovox; expected one from runs/<name>/<id>/checkpoints")
    if task is not None and stored.get("task") != task:
        raise InputError(f"{key}: {path}: a checkpoint of task {stored.get('task')}, but this config's task is {task}")
    if stored.get("schema_version", 1) != CheckpointMetadata.schema_version:
        raise InputError(
            f"{key}: {path}: written by a newer Cytovox (version {stored['schema_version']}); update yours"
        )
    kind = METADATA.get(str(stored.get("task")))
    if kind is None:
        raise InputError(f"{key}: {path}: a checkpoint of task {stored.get('task')}, unknown here; update Cytovox")
    known = dataclasses.fields(kind)
    needed = [f.name for f in known if f.default is f.default_factory is dataclasses.MISSING]
    missing = [name for name in needed if name not in stored]
    if missing:
        raise InputError(f"{key}: {path}: a checkpoint of another version of Cytovox (it lacks {', '.join(missing)})")
    prefix = "network."
    state = {k[len(prefix) :]: v for k, v in content["state_dict"].items() if k.startswith(prefix)}
    if (name := first_nonfinite(state)) is not None:
        raise InputError(f"{key}: {path}: its weights are NaN or infinite (first: {name}); give weights of another run")
    stored = {"trained_on": _sidecar(path), **stored}
    for group, names in RENAMED_OPTIONS.items():
        if isinstance(options := stored.get(group), Mapping):
            stored[group] = {names.get(name, name): value for name, value in options.items()}
    if stored.get("method") in RENAMED_METHODS:
        stored["method"] = RENAMED_METHODS[stored["method"]]
    return Weights(path, kind(**{f.name: stored[f.name] for f in known if f.name in stored}), state)


def _sidecar(path: Path) -> dict[str, Any]:
    """What a file beside weights (NAME.json) says they were trained on, for weights that do not say it themselves."""
    try:
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) if path.suffix == SUFFIX else {}
    except (OSError, ValueError):
        return {}
    stored = content.get("trained_on") if isinstance(content, Mapping) else None
    return dict(stored) if isinstance(stored, Mapping) else {}


def _content(path: Path) -> Any:
    """A checkpoint, or what a weights file holds in a checkpoint's layout."""
    if path.suffix == SUFFIX:
        return read_content(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def load_network(network: torch.nn.Module, weights: Weights, key: str) -> None:
    """Put a checkpoint's weights into a network.

    Raises
    ------
    InputError
        The network is another one than the checkpoint's; the first parameter that differs is named.
    """
    own = network.state_dict()
    for name in sorted(own.keys() | weights.network_state.keys()):
        mine, theirs = own.get(name), weights.network_state.get(name)
        if mine is None or theirs is None or mine.shape != theirs.shape:
            given = "none" if theirs is None else str(tuple(theirs.shape))
            need = "none" if mine is None else str(tuple(mine.shape))
            raise InputError(
                f"{key}: {weights.path}: its network is {weights.metadata.model}; this config's differs at {name} "
                f"({given} in the checkpoint, {need} here); make model: the same"
            )
    network.load_state_dict(weights.network_state)
