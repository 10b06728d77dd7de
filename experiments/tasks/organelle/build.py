"""Objects of an organelle run out of its config."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cytovox.errors import InputError
from cytovox.models.metadata import OrganelleMetadata, Weights, load_network
from cytovox.models.networks import organelle_network
from cytovox.models.organelle import require_same_task
from experiments.tasks.organelle.config import OrganelleConfig, tiling
from experiments.tasks.organelle.outputs import match_outputs
from lightning_modules.organelle import OrganelleModule


def metadata_of(config: OrganelleConfig) -> OrganelleMetadata:
    """What the checkpoints of this run will say of themselves."""
    data = config.data
    return OrganelleMetadata(
        task=config.task,
        model=dataclasses.asdict(config.model),
        organelles=list(data.organelles),
        resample=data.resample,
        resample_spacing_um=[float(s) for s in data.resample_spacing_um],
        resample_grid=[int(n) for n in data.resample_grid],
        ri_range=[float(v) for v in data.ri_range],
        patch_size=[int(p) for p in data.patch_size],
    )


def build_for_training(config: OrganelleConfig, weights: Weights | None) -> OrganelleModule:
    """A new network, with these weights if there are any."""
    metadata = metadata_of(config)
    network = config.model.build(1, len(metadata.organelles))
    notes: list[str] = []
    if weights is not None:
        weights, notes = match_outputs(weights, network, config.model.build, metadata.organelles)
        load_network(network, weights, "init_from")
    module = OrganelleModule(
        network,
        metadata,
        tiling(config, metadata.patch_size),
        config.loss.build(),
        config.optimizer,
        config.predict.threshold,
    )
    module.notes = notes
    return module


def build_from_weights(config: OrganelleConfig, ensemble: Sequence[Weights]) -> OrganelleModule:
    """The networks that checkpoints hold, with the grid and normalisation they were trained with.

    Parameters
    ----------
    config : Config
        Windows and threshold.
    ensemble : sequence of Weights
        One or more; their probabilities will be averaged.

    Raises
    ------
    InputError
        A network cannot be built here, or not be given the windows that this config asks for; or the checkpoints do
        not belong together.
    """
    first = ensemble[0]
    for other in ensemble[1:]:
        require_same_task(first, other, "predict.checkpoint")
    windows = tiling(config, first.metadata.patch_size)
    networks = [organelle_network(weights, windows.window, "predict.checkpoint") for weights in ensemble]
    return OrganelleModule(
        networks[0],
        first.metadata,
        windows,
        threshold=config.predict.threshold,
        ensemble_members=networks[1:],
        flips=config.predict.flips,
        memory_gb=config.predict.memory_gb,
        compile=config.predict.compile,
    )


def require_organelles(config: OrganelleConfig, metadata: OrganelleMetadata) -> None:
    """Refuse to score weights that predict something else than the masks show.

    Raises
    ------
    InputError
        Other organelles, or in another order.
    """
    wanted, given = list(config.data.organelles), list(metadata.organelles)
    if wanted != given:
        raise InputError(
            f"data.organelles: the weights predict {', '.join(given)}, but this config asks for {', '.join(wanted)}; "
            "make them the same"
        )
