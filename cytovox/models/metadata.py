"""Metadata of a checkpoint: all that is needed to rebuild its network and to prepare its input."""

import dataclasses
import json
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from cytovox.errors import InputError
from cytovox.models.weights_file import KEY, SUFFIX, first_nonfinite, read_content
from cytovox.renamed import RENAMED_METHODS, RENAMED_OPTIONS

Network = TypeVar("Network", bound=torch.nn.Module)

#: Errors that torch raises for damaged files, and for files that are not checkpoints.
_UNREADABLE = (
    RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError, TypeError, AssertionError,
    pickle.UnpicklingError, struct.error,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointMetadata:
    """Metadata of every checkpoint, of plain types only, so that `weights_only=True` reads them."""

    task: str
    """Such as `organelle`."""
    model: dict[str, Any]
    """Name of the network (`network`) and its options."""
    schema_version: int = 1
    """Version of these metadata."""
    trained_on: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Ranges of the training inputs, as returned by `training.domain.describe`; empty if unknown."""
    seen: list[str] = dataclasses.field(default_factory=list)
    """Sorted fingerprints (`lightning_modules.seen`) of the cells or volumes that were used for training, early
    stopping or tuning."""
    seen_all: bool = False
    """Whether `seen` is complete; False for weights from before fingerprints were stored."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VolumeMetadata(CheckpointMetadata):
    """Input preprocessing of a network for volumes."""

    resample: str
    """`spacing_um` or `grid`."""
    resample_spacing_um: list[float]
    """Voxel size z, y, x of the common grid, if `resample` is `spacing_um`."""
    resample_grid: list[int]
    """Shape of the common grid, if `resample` is `grid`."""
    ri_range: list[float]
    """Refractive indices that are mapped to 0 and 1."""
    patch_size: list[int]
    """Window z, y, x that the network was trained on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrganelleMetadata(VolumeMetadata):
    """Input preprocessing and output labels of an organelle network."""

    organelles: list[str]
    """Names of the outputs."""

    @property
    def resample_key(self) -> str:
        """Name of the field that defines the common grid."""
        return "resample_grid" if self.resample == "grid" else "resample_spacing_um"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchMetadata(OrganelleMetadata):
    """Input preprocessing and output labels of a supernet, and its search space."""

    operations: list[str]
    """Candidate operations of an edge."""
    cost_measure: str
    """Measure of cost, one of `cytovox.networks.search_cost.Measure`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellsMetadata(VolumeMetadata):
    """Input preprocessing of a network that separates cells."""

    method: str
    """`network`: nucleus-conditioned, one nucleus per pass; `offsets`: centre offsets, all cells in one pass."""
    z: str = "fit"
    """Slices of its input: `fit`, `center` or `middle` (`cytovox.segmentation.networks.ConditionedCells`)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShapeMetadata(CheckpointMetadata):
    """Parts that a shape network was trained with, each by name and options."""

    field: dict[str, Any]
    """Representation of shapes."""
    process: dict[str, Any]
    """Process that turned data into noise."""
    preconditioning: dict[str, Any]
    """Quantity that the network predicts."""
    traits: dict[str, Any] = dataclasses.field(default_factory=lambda: {"name": "none"})
    """Further inputs of the network besides the image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SHAPRMetadata(CheckpointMetadata):
    """Metadata of SHAPR: those of every checkpoint."""


#: The metadata of each task's checkpoints.
METADATA: dict[str, type[CheckpointMetadata]] = {
    "organelle": OrganelleMetadata, "cells": CellsMetadata, "shape": ShapeMetadata, "shapr": SHAPRMetadata,
    "search": SearchMetadata,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of a checkpoint's network, with their metadata."""

    path: Path
    metadata: Any
    """Subclass of `CheckpointMetadata` of its task."""
    network_state: dict[str, torch.Tensor]


def read_checkpoint(path: Path, task: str | None, key: str) -> Weights:
    """Return the weights and metadata of a checkpoint.

    Parameters
    ----------
    path : Path
        A `.ckpt` file, or a `.safetensors` file of `cytovox.models.weights_file`.
    task : str or None
        Task that it must be of; None for any.
    key : str
        Config key that named it, for messages.

    Raises
    ------
    InputError
        Missing, truncated, not one of ours, of another task, or with weights that are NaN or infinite.
    """
    if not path.is_file():
        raise InputError(f"{key}: {path}: no such checkpoint; expected a .ckpt file or a run folder that has one")
    try:
        content = read_content(path) if path.suffix == SUFFIX else torch.load(path, "cpu", weights_only=True)
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
    if (kind := METADATA.get(str(stored.get("task")))) is None:
        raise InputError(f"{key}: {path}: a checkpoint of task {stored.get('task')}, unknown here; update Cytovox")
    known = dataclasses.fields(kind)
    needed = [f.name for f in known if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [name for name in needed if name not in stored]:
        raise InputError(f"{key}: {path}: a checkpoint of another version of Cytovox (it lacks {', '.join(missing)})")
    state = {k.removeprefix("network."): v for k, v in content["state_dict"].items() if k.startswith("network.")}
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
    """Return `trained_on` of the file NAME.json of weights NAME.safetensors; empty if there is none."""
    try:
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) if path.suffix == SUFFIX else {}
    except (OSError, ValueError):
        return {}
    stored = content.get("trained_on") if isinstance(content, Mapping) else None
    return dict(stored) if isinstance(stored, Mapping) else {}


def load_network(network: Network, weights: Weights, key: str) -> Network:
    """Return a network after loading a checkpoint's weights into it.

    Raises
    ------
    InputError
        The network differs from the checkpoint's; the message names the first parameter that differs.
    """
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    stored = {name: tuple(value.shape) for name, value in weights.network_state.items()}
    for name in sorted(own.keys() | stored.keys()):
        if own.get(name) != stored.get(name):
            raise InputError(
                f"{key}: {weights.path}: its network is {weights.metadata.model}; this config's differs at {name} "
                f"({stored.get(name, 'none')} in the checkpoint, {own.get(name, 'none')} here); make model: the same"
            )
    network.load_state_dict(weights.network_state)
    return network
