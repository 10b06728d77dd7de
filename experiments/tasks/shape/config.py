"""Configs of the shape task and of SHAPR, and their validation."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from cytovox.diffusion import PARTS, combination_errors
from cytovox.diffusion.traits import TRAITS
from cytovox.losses.shapr import SHAPRLossConfig
from cytovox.networks.shape_registry import SHAPE_NETWORKS, shape_network_config
from cytovox.networks.shapr import SHAPRConfig as SHAPRNetworkConfig
from cytovox.preprocess.shape_fields import FIELDS
from datamodules.config import TEXTS, TEXTS_OR_NULL
from datamodules.shape.config import SHAPE_SOURCES, shape_data_errors
from experiments.schema import Choice, Config
from lightning_modules.optim import OPTIMIZERS


@dataclass
class ShapePredictConfig:
    """`predict:` of the shape tasks. `samples` and `views` apply to the test stage as well."""

    inputs: Any = dataclasses.field(default_factory=list, metadata=TEXTS)
    """Folders that hold the folders `image` and `mask`."""
    checkpoint: Any = dataclasses.field(default=None, metadata=TEXTS_OR_NULL)
    """A .ckpt file, a run folder or the name of shipped weights. Null for this run's own weights, else `init_from`,
    else `weights.default`."""
    out: str | None = None
    """Folder for the shapes; null for `predictions/` in the run folder."""
    samples: int = 20
    """Shapes predicted for each cell; a 90 % interval of volumes needs 19 or more."""
    views: bool = True
    """Predict them in turn from the eight rotations and mirror images of the image, and transform them back."""
    voxel_um: float | None = None
    """Size of a voxel in um, for the files; null if unknown."""


@dataclass
class ShapeConfig(Config):
    """Config of the shape task."""

    field: Any = None
    """`name:` and its options: representation of shapes."""
    process: Any = None
    """`name:` and its options: process that turns data into noise."""
    preconditioning: Any = None
    """`name:` and its options: meaning of the network's output."""
    sampler: Any = None
    """`name:` and its options: solver that turns noise into shapes."""
    traits: Any = None
    """`name:` and its options: traits that condition the network, and their distribution over samples."""
    predict: ShapePredictConfig = dataclasses.field(default_factory=ShapePredictConfig)
    """Inputs and number of samples of the predict stage."""


@dataclass
class SHAPRConfig(Config):
    """Config of SHAPR."""

    supervised: float = 0.5
    """Fraction of the training without the discriminator; 1 leaves it out."""
    predict: ShapePredictConfig = dataclasses.field(default_factory=ShapePredictConfig)
    """Inputs of the predict stage."""


#: Groups with branches of the shape task.
SHAPE_CHOICES: dict[str, Choice] = {
    "data": Choice("source", "folder", SHAPE_SOURCES),
    "field": Choice("name", "signed_distance", FIELDS),
    "model": Choice("network", "slab_unet", SHAPE_NETWORKS, shape_network_config),
    "process": Choice("name", "rectified_flow", PARTS["process"]),
    "preconditioning": Choice("name", "data", PARTS["preconditioning"]),
    "loss": Choice("name", "data_mse", PARTS["loss"]),
    "sampler": Choice("name", "euler", PARTS["sampler"]),
    "traits": Choice("name", "none", TRAITS),
    "optimizer": Choice("name", "adamw", OPTIMIZERS),
}

#: Groups with branches of SHAPR.
SHAPR_CHOICES: dict[str, Choice] = {
    "data": Choice("source", "folder", SHAPE_SOURCES),
    "model": Choice("network", "shapr", {"shapr": SHAPRNetworkConfig}),
    "loss": Choice("name", "shapr", {"shapr": SHAPRLossConfig}),
    "optimizer": Choice("name", "adam", OPTIMIZERS),
}


def shape_errors(config: ShapeConfig) -> list[str]:
    """Return the errors of a config whose types are valid, one line each, beginning with the key path."""
    errors = _shared_errors(config)
    parts = ("field", "process", "preconditioning", "loss", "sampler", "traits")
    own = [f"{part}.{error}" for part in parts for error in getattr(config, part).errors()]
    if not own:
        own = combination_errors(config.process, config.preconditioning, config.loss, config.sampler)
        own += [f"model.{error}" for error in config.model.errors(config.field.size)]
    return errors + own


def shapr_errors(config: SHAPRConfig) -> list[str]:
    """Return the errors of a SHAPR config; see `shape_errors`."""
    errors = _shared_errors(config) + [f"model.{error}" for error in config.model.errors()]
    errors += [f"loss.{error}" for error in config.loss.errors()]
    if not 0 <= config.supervised <= 1:
        errors.append(f"supervised: expected a fraction from 0 to 1, got {config.supervised}")
    if config.supervised < 1 and config.trainer.max_steps == -1 and config.trainer.max_epochs in (None, -1):
        errors.append("supervised: a fraction of the training, which needs trainer.max_epochs or trainer.max_steps")
    return errors


def _shared_errors(config: Any) -> list[str]:
    predict, voxel_um = config.predict, config.predict.voxel_um
    checks = (
        (predict.samples >= 1, f"predict.samples: expected 1 or more, got {predict.samples}"),
        (
            voxel_um is None or 0 < voxel_um < 100,
            f"predict.voxel_um: expected a size in um between 0 and 100, or null, got {voxel_um}",
        ),
        (
            not isinstance(predict.checkpoint, list) or len(predict.checkpoint) <= 1,
            "predict.checkpoint: expected one checkpoint: there is no ensemble of shapes",
        ),
    )
    errors = [f"data.{error}" for error in shape_data_errors(config.data)]
    return errors + [error for valid, error in checks if not valid]
