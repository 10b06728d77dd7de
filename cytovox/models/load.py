"""Find weights by name or path, and load them as a model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from cytovox.models.cells import CellModel
from cytovox.models.metadata import CheckpointMetadata, read_checkpoint
from cytovox.models.organelle import OrganelleModel
from cytovox.models.shape import ShapeModel
from cytovox.networks.weights import shipped_weights
from cytovox.renamed import RENAMED_WEIGHTS

#: Checkpoints of a run folder, the preferred one first.
CHECKPOINTS = ("checkpoints/best.ckpt", "checkpoints/last.ckpt")

Model = OrganelleModel | CellModel | ShapeModel
#: The model of each task's weights.
MODELS: dict[str, type[OrganelleModel] | type[CellModel] | type[ShapeModel]] = {
    "organelle": OrganelleModel,
    "cells": CellModel,
    "shape": ShapeModel,
    "shapr": ShapeModel,
}


def weights_path(given: str | Path, key: str) -> Path:
    """Return the file of weights that a name or a path stands for.

    Parameters
    ----------
    given : str or Path
        A .ckpt or .safetensors file, a run folder (its best checkpoint, else the last), or a name of shipped weights.
    key : str
        Config key or argument that named it, for messages.

    Raises
    ------
    InputError
        A folder without a checkpoint, or nothing there.
    """
    path = Path(given)
    if path.is_dir():
        found = next((path / name for name in CHECKPOINTS if (path / name).is_file()), None)
        if found is None:
            raise InputError(f"{key}: {path}: no checkpoints/best.ckpt or last.ckpt in it; give a run that was trained")
        return found
    if path.is_file():
        return path
    shipped = shipped_weights()
    if str(given) in RENAMED_WEIGHTS:
        new = RENAMED_WEIGHTS[str(given)]
        warnings.warn(f"{key}: {given} is now called {new}; the old name works until the next release", FutureWarning)
        return shipped[new]
    if str(given) in shipped:
        return shipped[str(given)]
    raise InputError(
        f"{key}: {path}: no such checkpoint; expected a .ckpt file, a run folder that has one, or shipped weights "
        f"({', '.join(shipped) or 'none in this installation'})"
    )


def load_model(
    name: str | Path | Sequence[str | Path],
    *,
    task: str | None = None,
    device: str = "auto",
    precision: str | None = None,
    **options: Any,
) -> Any:
    """Load a trained model.

    Parameters
    ----------
    name : str or Path, or sequence of these
        A name of shipped weights (`organelle`, `cells_offsets`, `cells_network`, `shape_rbc`, `shape_nuclei`), a run
        folder, a .ckpt checkpoint or a .safetensors file. Several organelle weights are an ensemble.
    task : str, optional
        Task that the weights must be of: organelle, cells, shape or shapr.
    device : str
        `auto` (a CUDA device if there is one), `cpu`, `cuda` or `cuda:N`.
    precision : str, optional
        `auto`, `32-true`, `16-mixed` or `bf16-mixed`; the model's own default if not given.
    **options
        Further arguments of the model.

    Returns
    -------
    OrganelleModel, CellModel or ShapeModel
        By the task of the weights.

    Raises
    ------
    InputError
        No such weights, weights of another task, damaged weights, or an option that the model does not have.

    Examples
    --------
    >>> import cytovox
    >>> model = cytovox.load_model("organelle", device="cpu")
    >>> model.organelles
    ('membrane', 'nucleus', 'nucleolus', 'lipid')
    """
    names = [name] if isinstance(name, str | Path) else list(name)
    if not names:
        raise InputError("load_model: no weights named")
    weights = [read_checkpoint(weights_path(one, "load_model"), task, "load_model") for one in names]
    found = _task_of([member.metadata for member in weights], names)
    if found not in MODELS:
        raise InputError(f"load_model: {names[0]}: weights of task {found}, which predict nothing by themselves")
    kind = MODELS[found]
    if precision is not None:
        options["precision"] = precision
    first: Any = weights
    if kind is not OrganelleModel:
        if len(weights) > 1:
            raise InputError(f"load_model: task {found} uses one network; name one checkpoint")
        first = weights[0]
    try:
        return kind(first, device, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        wrong = str(error).rpartition("argument ")[2].strip("'")
        raise InputError(
            f"load_model: {kind.__name__} has no option {wrong}; see help(cytovox.{kind.__name__})"
        ) from None


def _task_of(metadata: Sequence[CheckpointMetadata], names: Sequence[str | Path]) -> str:
    tasks = {member.task for member in metadata}
    if len(tasks) > 1:
        listed = ", ".join(f"{name}: {member.task}" for name, member in zip(names, metadata, strict=True))
        raise InputError(f"load_model: an ensemble needs weights of one task, not {listed}")
    return tasks.pop()
