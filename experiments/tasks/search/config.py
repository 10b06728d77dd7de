"""Config of the search task, and its validation."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from cytovox.networks.scnas import ScNASConfig
from experiments.schema import Choice
from experiments.tasks.organelle.config import CHOICES as ORGANELLE_CHOICES
from experiments.tasks.organelle.config import OrganelleConfig, organelle_errors
from lightning_modules.optim import Adam, AdamW
from lightning_modules.search_config import SearchConfig, search_errors
from training.trainer import parse_time


@dataclass
class RetrainConfig:
    """`retrain:`. Training of the searched network from scratch, in the test stage, as a separate organelle run."""

    width: int | None = None
    """Initial feature maps; null for the search's."""
    layers: int | None = None
    """Cells in the encoder, equal to those in the decoder; null for the search's."""
    multiplier: int | None = None
    """Nodes in a cell's output; null for the search's."""
    lr: float | None = None
    """Learning rate; null for the search's."""
    max_epochs: int | None = None
    """Epochs; null for the search's limits, including max_steps."""
    max_time: str | None = None
    """Wall-clock limit DD:HH:MM:SS; null for none."""


@dataclass
class SearchTaskConfig(OrganelleConfig):
    """Config of the search task."""

    search: SearchConfig = field(default_factory=SearchConfig)
    """Options of the search."""
    retrain: RetrainConfig = field(default_factory=RetrainConfig)
    """Training of the searched network from scratch, in the test stage."""


#: Groups with branches.
CHOICES: dict[str, Choice] = {
    **ORGANELLE_CHOICES,
    "model": Choice("network", "scnas", {"scnas": ScNASConfig}),
    "optimizer": Choice("name", "adam", {"adam": Adam, "adamw": AdamW}),
}


def search_task_errors(config: SearchTaskConfig) -> list[str]:
    """Return the errors of a config whose types are valid, one line each, beginning with the key path."""
    errors = organelle_errors(config) + [f"search.{error}" for error in search_errors(config.search)]
    trainer, model = config.trainer, config.model
    changes = "not with task search, whose network changes in every step; set it false"
    undecided = (
        "not with task search, whose temperature and warm-up follow the steps: it could end before a genotype is "
        "decided; use max_epochs or max_steps (retrain.max_time limits the later training)"
    )
    checks = (
        (
            "predict" not in config.stages,
            "stages: a search predicts nothing; predict with its retrained network: "
            "predict.checkpoint=RUN/retrained in a config of task organelle",
        ),
        (
            model.genotype == "published",
            "model.genotype: not with task search, which searches one; leave it out",
        ),
        (not trainer.compile, f"trainer.compile: {changes}"),
        (not model.checkpointing, f"model.checkpointing: {changes}"),
        (
            trainer.max_steps != -1 or trainer.max_epochs not in (None, -1),
            "trainer.max_epochs: a search needs it, or max_steps: temperature and warm-up follow the steps",
        ),
        (trainer.max_time is None, f"trainer.max_time: {undecided}"),
        (trainer.early_stopping is None, f"trainer.early_stopping: {undecided}"),
        (
            trainer.accumulate_grad_batches <= 1 and trainer.global_batch is None,
            "trainer.accumulate_grad_batches, global_batch: not with task search, which samples a network per batch; "
            "leave them out",
        ),
        (
            config.init_from is None,
            "init_from: not with task search, whose supernet contains many networks; leave it out",
        ),
    )
    errors += [error for valid, error in checks if not valid]
    return errors + [f"retrain.{error}" for error in _retrain_errors(config)]


def retrained_model(config: SearchTaskConfig, genotype: str) -> Any:
    """Return the config of the network to train from scratch, with this genotype."""
    again, model = config.retrain, config.model
    return dataclasses.replace(
        model,
        width=again.width or model.width,
        layers=again.layers or model.layers,
        multiplier=again.multiplier or model.multiplier,
        genotype=genotype,
    )


def _retrain_errors(config: SearchTaskConfig) -> list[str]:
    again, errors = config.retrain, []
    if again.lr is not None and not 0 < again.lr < math.inf:
        errors.append(f"lr: expected a positive number or null, got {again.lr}")
    if again.max_time is not None and parse_time(again.max_time) is None:
        errors.append(f"max_time: expected DD:HH:MM:SS such as 00:01:30:00, got {again.max_time!r}")
    for key in ("max_epochs", "width", "layers", "multiplier"):
        if (value := getattr(again, key)) is not None and value < 1:
            errors.append(f"{key}: expected 1 or more, or null, got {value}")
    if again.multiplier is not None and again.multiplier < config.model.multiplier:
        errors.append(
            f"multiplier: expected the search's {config.model.multiplier} or more, since fewer nodes may not include "
            f"those of the genotype, got {again.multiplier}"
        )
    windows = {"data.patch_size": config.data.patch_size, "predict.window": config.predict.window}
    for key, size in windows.items():
        if not errors and size is not None and len(size) == 3 and all(n > 0 for n in size):
            again_errors = retrained_model(config, "published").errors((size[0], size[1], size[2]))
            errors += [error.replace("patch:", f"{key}:", 1) for error in again_errors]
    return errors
