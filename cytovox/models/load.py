"""Find weights by name or path, and load them as a model."""

import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from cytovox.models.cells import CellModel
from cytovox.models.metadata import read_checkpoint
from cytovox.models.organelle import OrganelleModel
from cytovox.models.shape import ShapeModel
from cytovox.networks.weights import shipped_weights
from cytovox.renamed import RENAMED_WEIGHTS

#: Checkpoints of a run folder, the preferred one first.
CHECKPOINTS = ("checkpoints/best.ckpt", "checkpoints/last.ckpt")

#: The model of each task's weights.
MODELS: dict[str, type[OrganelleModel] | type[CellModel] | type[ShapeModel]] = {
    "organelle": OrganelleModel,
    "cells": CellModel,
    "shape": ShapeModel,
    "shapr": ShapeModel,
}


def weights_path(given: str | Path, key: str) -> Path:
    """Return the file of weights of a name or path.

    Parameters
    ----------
    given : str or Path
        A .ckpt or .safetensors file, a run folder (its best checkpoint, else the last), or a name of shipped weights.
    key : str
        Config key or argument that named it, for messages.

    Raises
    ------
    InputError
        A folder without a checkpoint, or no such file or name.
    """
    path = Path(given)
    if path.is_dir():
        if (found := next((path / name for name in CHECKPOINTS if (path / name).is_file()), None)) is None:
            raise InputError(f"{key}: {path}: no checkpoints/best.ckpt or last.ckpt in it; give a run that was trained")
        return found
    if path.is_file():
        return path
    shipped, name = shipped_weights(), str(given)
    if name in RENAMED_WEIGHTS:
        name = RENAMED_WEIGHTS[name]
        warnings.warn(f"{key}: {given} is now called {name}; the old name works until the next release", FutureWarning)
    if name in shipped:
        return shipped[name]
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
    tasks = [member.metadata.task for member in weights]
    if len(set(tasks)) > 1:
        listed = ", ".join(f"{one}: {found}" for one, found in zip(names, tasks, strict=True))
        raise InputError(f"load_model: an ensemble needs weights of one task, not {listed}")
    if tasks[0] not in MODELS:
        raise InputError(f"load_model: {names[0]}: no model is available for weights of task {tasks[0]}")
    kind: Any = MODELS[tasks[0]]
    if kind is not OrganelleModel and len(weights) > 1:
        raise InputError(f"load_model: task {tasks[0]} uses one network; name one checkpoint")
    if unknown := sorted(options.keys() - inspect.signature(kind).parameters.keys()):
        raise InputError(
            f"load_model: {kind.__name__} has no option {', '.join(unknown)}; see help(cytovox.{kind.__name__})"
        )
    if precision is not None:
        options["precision"] = precision
    return kind(weights if kind is OrganelleModel else weights[0], device, **options)
