"""The networks of a pipeline, out of their weights."""

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
from cytovox.models.metadata import CheckpointMetadata, Weights, read_checkpoint
from cytovox.models.organelle import OrganelleModel
from cytovox.networks.weights import shipped_weights
from cytovox.segmentation.field import CellFinder, SeedRule, WatershedCells
from datamodules.cache import cache_root
from datamodules.fingerprints import volume_fingerprints
from experiments.weights import weights_path

#: Shipped weights of each method.
CELL_WEIGHTS = {"offsets": "cells_offsets", "network": "cells_network"}


def trained_on(path: Path) -> dict[str, Any]:
    """What weights were trained on; see `cytovox.models.domain`."""
    return _metadata(path, str(stamp_of(path))).trained_on


@lru_cache(maxsize=8)
def _metadata(path: Path, stamp: str) -> CheckpointMetadata:
    """What weights tell of themselves, read once for as long as the file is as it was."""
    return read_checkpoint(path, None, "weights").metadata


def device_and_precision() -> tuple[str, str]:
    """Return the device that a pipeline computes on, and the precision that this device is good at."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = choose_precision("auto", "auto")
    return device, precision if "mixed" in precision else "32-true"


def organelle_weights(given: str) -> Path:
    """File of the weights that predict organelles."""
    return weights_path(given, "organelle_weights")


def seen_notes(weights: Path | None, source: Path) -> list[str]:
    """Return what is to be said of an input that the organelles' weights have seen in training."""
    if weights is None:
        return []
    seen = frozenset(_metadata(weights, str(stamp_of(weights))).seen)
    # large files are read for their fingerprints, so only where one may be known
    if not seen or volume_fingerprints([source], cache_root(None))[0] not in seen:
        return []
    return [
        f"{source.name}: seen in training by the weights that predict its organelles: its masks are better than those "
        "of new tomograms"
    ]


def organelle_model(path: Path, compile: Compile = "none") -> OrganelleModel:
    """Return the model that predicts the organelles of a tomogram.

    Parameters
    ----------
    path : Path
        File of the weights.
    compile : str
        How the network is run: none, default or cuda_graphs (`cytovox.inference.compiled`).

    Raises
    ------
    InputError
        No weights of organelles, or CUDA graphs without a CUDA device.
    """
    weights = read_checkpoint(path, "organelle", "organelle_weights")
    device, precision = device_and_precision()
    return OrganelleModel([weights], device, precision, pad_yx=(0, 0), compile=compile, key="organelle_weights")


def cell_weights(method: str, given: str | None) -> Path | None:
    """File of the weights of a method; None of one that has none.

    Raises
    ------
    InputError
        There are none, or they are of another method.
    """
    if method not in CELL_WEIGHTS:
        if given is not None:
            raise InputError(f"cell_weights: method {method} takes none; leave it out, or choose fast or network")
        return None
    if given is None and CELL_WEIGHTS[method] not in shipped_weights():
        raise InputError(
            f"cell_weights: none come with this installation for method {method}; train some, and name them"
        )
    path = weights_path(given or CELL_WEIGHTS[method], "cell_weights")
    stated = read_checkpoint(path, "cells", "cell_weights").metadata.method
    if stated != method:
        raise InputError(
            f"cell_weights: {path}: weights of method {stated}, but this run's is {method}; set method={stated}"
        )
    return path


def cell_finder(method: str, path: Path | None, rule: SeedRule) -> CellFinder:
    """What tells cells from each other; weights are read once, and again when their file changes."""
    return _cell_finder(path, rule, str(stamp_of(path)) if path is not None else "")


@lru_cache(maxsize=4)
def _cell_finder(path: Path | None, rule: SeedRule, stamp: str) -> CellFinder:
    if path is None:
        return WatershedCells(rule)
    return finder_of(read_checkpoint(path, "cells", "cell_weights"), rule)


def finder_of(weights: Weights, rule: SeedRule) -> CellFinder:
    """The finder of weights of the cells task."""
    return CellModel(weights, rule=rule, key="cell_weights")
