"""The networks of a pipeline, out of their weights."""

from __future__ import annotations

import dataclasses
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.pipelines.config import SeedsConfig
from experiments.tasks.organelle_build import build_from_weights
from experiments.tasks.organelle_config import OrganelleConfig, PredictConfig
from experiments.weights import weights_path
from formats.errors import InputError
from lightning_modules.cells import CHANNELS, build_finder
from lightning_modules.facts import Weights, load_network, read_checkpoint
from networks import network_config
from networks.weights import shipped_weights
from training.device import choose_precision
from transforms.cell_field import CellFinder, SeedRule, WatershedCells
from transforms.inference import DenseInferer
from transforms.intensity import NormaliseRI
from transforms.spatial import ResampleTo
from transforms.tiling import SlidingWindow

#: Shipped weights of each method.
CELL_WEIGHTS = {"fast": "cells_fast", "network": "cells_network"}


def seed_rule(config: SeedsConfig) -> SeedRule:
    """`seeds:` of a config."""
    return SeedRule(config.min_volume_um3, config.min_voxels, config.split_depth_um)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def organelle_weights(given: str) -> Path:
    """File of the weights that predict organelles."""
    return weights_path(given, "organelle_weights")


def organelle_inferer(path: Path) -> tuple[DenseInferer, tuple[str, ...]]:
    """From a tomogram to probabilities, with the weights' own grid and windows; and the organelles' names.

    Raises
    ------
    InputError
        No weights of organelles.
    """
    weights = read_checkpoint(path, "organelle", "organelle_weights")
    config = OrganelleConfig(predict=PredictConfig(pad_yx=[0, 0], batch_size=1))
    module = build_from_weights(config, [weights])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = choose_precision("auto", "auto")
    fast = "16" in precision and getattr(module.network, "channels_last", True)
    inferer = DenseInferer(
        module.network,
        resample=ResampleTo.chosen(
            weights.facts.resample, weights.facts.resample_spacing_um, weights.facts.resample_grid
        ),
        tiling=module.tiling,
        normalise=NormaliseRI(*weights.facts.ri_range),
        device=device,
        precision=precision if "mixed" in precision else "32-true",
        channels_last=fast,
    )
    return inferer, module.organelles


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
    told = read_checkpoint(path, "cells", "cell_weights").facts.method
    if told != method:
        raise InputError(
            f"cell_weights: {path}: weights of method {told}, but this run's is {method}; set method={told}"
        )
    return path


@lru_cache(maxsize=4)
def cell_finder(method: str, path: Path | None, rule: SeedRule) -> CellFinder:
    """What tells cells from each other."""
    if path is None:
        return WatershedCells(rule)
    return finder_of(read_checkpoint(path, "cells", "cell_weights"), rule)


def finder_of(weights: Weights, rule: SeedRule) -> CellFinder:
    """The finder of weights of the cells task."""
    facts = weights.facts
    return build_finder(finder_network(weights, "cell_weights"), facts, windows_of(facts.patch_size), rule)


def finder_network(weights: Weights, key: str) -> nn.Module:
    """The network that a checkpoint of the cells task holds."""
    model = weights.facts.model
    kind: Any = network_config(str(model["network"]))
    options = {
        name: value for name, value in model.items() if name in {field.name for field in dataclasses.fields(kind)}
    }
    network: nn.Module = kind(**options).build(*CHANNELS[weights.facts.method])
    load_network(network, weights, key)
    return network


def windows_of(patch_size: list[int]) -> SlidingWindow:
    """Windows of votes: as large as the patches of the training, half a window apart."""
    z, y, x = (int(p) for p in patch_size)
    return SlidingWindow(
        window=(z, y, x), stride=(max(1, z // 2), max(1, y // 2), max(1, x // 2)), pad_yx=(0, 0), skip_below=None
    )
