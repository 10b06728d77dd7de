"""Config of the cells task, and its validation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cytovox.losses import LOSSES
from cytovox.losses.centre_offsets import CentreOffsetLossConfig
from cytovox.networks import NETWORKS, network_config
from datamodules.cells_config import CELL_SOURCES, cells_data_errors
from datamodules.config import TEXTS_OR_NULL
from experiments.schema import Choice, Config
from experiments.tasks.cell_options import SeedsConfig
from experiments.tasks.device_defaults import BATCH_SIZE, batch_size_errors
from lightning_modules.optim import OPTIMIZERS

#: Loss of `method: offsets`; `method: network` uses the others.
CENTRE_OFFSETS = "centre_offsets"
CELL_LOSSES: Mapping[str, type] = {CENTRE_OFFSETS: CentreOffsetLossConfig, **LOSSES}


@dataclass
class CellsPredictConfig:
    """`predict:` options of the test stage; `task: analyze` analyses tomograms."""

    checkpoint: Any = field(default=None, metadata=TEXTS_OR_NULL)
    """A .ckpt file, a run folder or the name of shipped weights; null for this run's own weights, else `init_from`,
    else `weights.default`."""
    batch_size: int | str = field(default="auto", metadata=BATCH_SIZE)
    """Nuclei in one batch of `method: network`; windows in one batch of `method: offsets`, in fields too large to be
    computed whole. `auto`: 4 nuclei or 1 window on a CPU, 32 of either on a CUDA device. A batch that does not fit into
    a CUDA device's memory is halved."""


@dataclass
class CellsConfig(Config):
    """Config of the cells task."""

    method: Literal["offsets", "network"] = "offsets"
    """`offsets`: centre offsets, all cells in one pass; `network`: one pass per nucleus (Choi et al. 2021)."""
    seeds: SeedsConfig = field(default_factory=SeedsConfig)
    """Definition of one nucleus."""
    predict: CellsPredictConfig = field(default_factory=CellsPredictConfig)
    """Options of the test stage."""


#: Groups with branches.
CELLS_CHOICES: dict[str, Choice] = {
    "data": Choice("source", "simulator", CELL_SOURCES),
    "model": Choice("network", "residual_unet", NETWORKS, network_config),
    "loss": Choice("name", CENTRE_OFFSETS, CELL_LOSSES),
    "optimizer": Choice("name", "adamw", OPTIMIZERS),
}


def cells_errors(config: CellsConfig) -> list[str]:
    """Return the errors of a config whose types are valid, one line each, beginning with the key path."""
    errors = [f"data.{f}" for f in cells_data_errors(config.data)]
    is_offsets = isinstance(config.loss, CentreOffsetLossConfig)
    if is_offsets != (config.method == "offsets"):
        need = CENTRE_OFFSETS if config.method == "offsets" else "dice_bce or another of an organelle config"
        errors.append(f"loss.name: method {config.method} needs {need}")
    errors += [f"loss.{f}" for f in (config.loss.errors() if is_offsets else config.loss.errors(1))]
    if config.method == "network" and config.data.resample != "grid":
        errors.append("data.resample: method network sees whole fields on one grid; set it to grid")
    if config.method == "offsets" and config.data.z != "fit":
        errors.append(f"data.z: {config.data.z} is for method network; method offsets sees the whole depth: fit")
    errors += (own := [f"model.{f}" for f in config.model.errors()])
    key = "resample_grid" if config.data.resample == "grid" else "patch_size"
    seen = getattr(config.data, key)
    if not own and len(seen) == 3 and all(n > 0 for n in seen):
        errors += [f"data.{key}: {f}" for f in config.model.errors(tuple(seen))]
    errors += batch_size_errors(config.predict.batch_size)
    if "predict" in config.stages:
        errors.append("stages: not predict: tomograms are analysed by `task: analyze`, with cell_weights=RUN")
    return errors
