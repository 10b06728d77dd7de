"""Networks of organelles and cells, loaded from their weights."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from cytovox.errors import InputError
from cytovox.inference.compiled import Compile
from cytovox.inference.device import choose_precision
from cytovox.io.provenance import stamp_of
from cytovox.models.cells import CellModel
from cytovox.models.metadata import CheckpointMetadata, read_checkpoint
from cytovox.models.organelle import OrganelleModel
from cytovox.networks.weights import shipped_weights
from cytovox.segmentation.field import CellFinder, SeedRule, WatershedCells
from datamodules.cache import cache_root
from datamodules.fingerprints import volume_fingerprints
from experiments.weights import weights_path

#: Shipped weights of each method.
CELL_WEIGHTS = {"offsets": "cells_offsets", "network": "cells_network"}


def trained_on(path: Path) -> dict[str, Any]:
    """Return the ranges of the data on which weights were trained; see `cytovox.models.domain`."""
    return _metadata(path, str(stamp_of(path))).trained_on


@lru_cache(maxsize=8)
def _metadata(path: Path, stamp: str) -> CheckpointMetadata:
    """Return the metadata of weights; cached by the stamp of the file."""
    return read_checkpoint(path, None, "weights").metadata


def organelle_weights(given: str) -> Path:
    """Return the file of the weights that predict organelles."""
    return weights_path(given, "organelle_weights")


def seen_notes(weights: Path | None, source: Path) -> list[str]:
    """Return a note if the organelles' weights were trained on an input."""
    if weights is None:
        return []
    seen = frozenset(_metadata(weights, str(stamp_of(weights))).seen)
    # fingerprints are computed only if needed, because they require reading the file
    if not seen or volume_fingerprints([source], cache_root(None))[0] not in seen:
        return []
    return [
        f"{source.name}: the weights that predict its organelles were trained on it: its masks are better than those "
        "of new tomograms"
    ]


def organelle_model(path: Path, compile: Compile = "none") -> OrganelleModel:
    """Return the model that predicts the organelles of a tomogram.

    Parameters
    ----------
    path : Path
        File of the weights.
    compile : str
        Compilation of the network: none, default or cuda_graphs (`cytovox.inference.compiled`).

    Raises
    ------
    InputError
        The file has no weights of organelles, or there is no CUDA device for CUDA graphs.
    """
    weights = read_checkpoint(path, "organelle", "organelle_weights")
    device, precision = "cuda" if torch.cuda.is_available() else "cpu", choose_precision("auto", "auto")
    precision = precision if "mixed" in precision else "32-true"
    return OrganelleModel([weights], device, precision, pad_yx=(0, 0), compile=compile, key="organelle_weights")


def cell_weights(method: str, given: str | None) -> Path | None:
    """Return the file of the weights of a method; None for methods without weights.

    Raises
    ------
    InputError
        There are no weights, or they are of another method.
    """
    if method not in CELL_WEIGHTS:
        if given is not None:
            raise InputError(f"cell_weights: method {method} takes none; leave it out, or choose offsets or network")
        return None
    if given is None and CELL_WEIGHTS[method] not in shipped_weights():
        raise InputError(
            f"cell_weights: this installation has none for method {method}; train weights, and set cell_weights"
        )
    path = weights_path(given or CELL_WEIGHTS[method], "cell_weights")
    own = read_checkpoint(path, "cells", "cell_weights").metadata.method
    if own != method:
        raise InputError(f"cell_weights: {path}: weights of method {own}, not of {method}; set method={own}")
    return path


def cell_finder(method: str, path: Path | None, rule: SeedRule) -> CellFinder:
    """Return the method that separates cells; cached until the file of its weights changes."""
    return _cell_finder(path, rule, str(stamp_of(path)) if path is not None else "")


@lru_cache(maxsize=4)
def _cell_finder(path: Path | None, rule: SeedRule, stamp: str) -> CellFinder:
    if path is None:
        return WatershedCells(rule)
    return CellModel(read_checkpoint(path, "cells", "cell_weights"), rule=rule, key="cell_weights")
