"""Objects of a shape run and of a SHAPR run out of their configs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from cytovox.models.metadata import ShapeMetadata, SHAPRMetadata, Weights, load_network
from cytovox.models.networks import config_of
from cytovox.preprocess.shape_fields import OccupancyConfig
from datamodules.shape.config import ShapeData
from datamodules.shape.datamodule import ShapeDataModule
from datamodules.shape.folder import find_inputs as find_folder
from datamodules.shape.folder import read_shapes
from experiments.progress import Progress
from experiments.schema import Choice, branch
from experiments.tasks.shape.config import SHAPE_CHOICES, SHAPR_CHOICES, ShapeConfig, ShapePredictConfig, SHAPRConfig
from lightning_modules.shape import Parts, ShapeModule
from lightning_modules.shapr import SHAPRModule

#: What a checkpoint of the shape task says of what surrounds its network.
PARTS = ("field", "process", "preconditioning", "traits")


def build_data(
    config: ShapeConfig | SHAPRConfig, progress: Progress | None, limit: int | None, splits: Sequence[str]
) -> ShapeDataModule:
    """The data module, for these splits."""
    data: ShapeData = config.data
    distances = isinstance(config, ShapeConfig)  # SHAPR learns from the object itself
    return ShapeDataModule(data, config.seed, progress=progress, limit=limit, splits=splits, distances=distances)


def find_inputs(predict: ShapePredictConfig) -> list[Path]:
    """Folders of the predict stage, every cell in them read once.

    Raises
    ------
    InputError
        Anything wrong with an image or a mask, or two cells of one name.
    """
    given = [predict.inputs] if isinstance(predict.inputs, str) else list(predict.inputs)
    folders = [Path(folder) for folder in given]
    owner: dict[str, Path] = {}
    for folder in folders:
        cells = find_folder(folder)
        read_shapes(cells)
        for cell in cells:
            if cell.name in owner:
                raise InputError(
                    f"predict.inputs: {cell.name} lies in {owner[cell.name]} and in {folder}: their shapes would have "
                    "one name; predict them apart"
                )
            owner[cell.name] = folder
    return folders


def shape_metadata(config: ShapeConfig) -> ShapeMetadata:
    """What the checkpoints of a shape run will say of themselves."""
    parts: dict[str, Any] = {part: dataclasses.asdict(getattr(config, part)) for part in PARTS}
    return ShapeMetadata(task=config.task, model=dataclasses.asdict(config.model), **parts)


def shape_module(config: ShapeConfig, metadata: ShapeMetadata, weights: Weights | None, key: str) -> ShapeModule:
    """A module whose network is what the metadata say, with these weights if there are any."""
    field, process, preconditioning, traits = (_part(SHAPE_CHOICES, part, getattr(metadata, part)) for part in PARTS)
    model = _part(SHAPE_CHOICES, "model", metadata.model)
    network = model.build(size=field.size, outputs=preconditioning.outputs, extra_channels=traits.channels)
    if weights is not None:
        load_network(network, weights, key)
    sampler, validates = config.sampler, None
    if getattr(sampler, "validation_steps", None) is not None:
        validates = dataclasses.replace(sampler, steps=min(sampler.validation_steps, sampler.steps)).build()
    parts = Parts(process.build(), preconditioning.build(), config.loss.build(), sampler.build(), validates)
    # how widely traits are drawn is the user's to say, like the sampler; whether the network knows any is not
    drawn = config.traits if config.traits.name == traits.name else traits
    return ShapeModule(parts, drawn.build(), network=network, metadata=metadata, field=field.build(), **_shared(config))


def shapr_metadata(config: SHAPRConfig) -> SHAPRMetadata:
    """What the checkpoints of a SHAPR run will say of themselves."""
    return SHAPRMetadata(task=config.task, model=dataclasses.asdict(config.model))


def shapr_module(config: SHAPRConfig, metadata: SHAPRMetadata, weights: Weights | None, key: str) -> SHAPRModule:
    """The same for SHAPR."""
    model = _part(SHAPR_CHOICES, "model", metadata.model)
    network = model.build()
    if weights is not None:
        load_network(network, weights, key)
    discriminator = model.build_discriminator() if config.supervised < 1 else None
    return SHAPRModule(
        discriminator,
        config.loss.build(),
        config.supervised,
        network=network,
        metadata=metadata,
        field=OccupancyConfig().build(),
        **_shared(config),
    )


def only(ensemble: Sequence[Weights]) -> Weights:
    """The one checkpoint: fields of several networks have no common sample."""
    if len(ensemble) > 1:
        raise InputError("predict.checkpoint: expected one checkpoint: shapes are no ensemble's")
    return ensemble[0]


def _shared(config: ShapeConfig | SHAPRConfig) -> dict[str, Any]:
    predict = config.predict
    return {
        "optimizer": config.optimizer,
        "samples": predict.samples,
        "views": predict.views,
        "seed": config.seed,
    }


def _part(choices: dict[str, Choice], group: str, options: dict[str, Any]) -> Any:
    """The config of a part out of the metadata of a checkpoint; keys of another version are left out."""
    kind = branch(group, choices[group], str(options[choices[group].key]))
    return config_of(kind, options)
