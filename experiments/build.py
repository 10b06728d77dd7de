"""From a typed config to the objects of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from torch import nn

from datamodules.organelle import OrganelleDataModule, Progress
from experiments.config import Config, tiling
from experiments.schema import CHOICES, branch
from formats.errors import InputError
from lightning_modules.facts import Facts, Weights, load_network, read_checkpoint
from lightning_modules.organelle import OrganelleModule
from networks.weights import DEFAULTS, shipped_weights
from training.rundir import RunFolder, newest_run
from training.wandb_log import wandb_logger


def build_data(
    config: Config, progress: Progress | None = None, dry_run: bool = False, stages: Sequence[str] = ("fit", "test")
) -> OrganelleDataModule:
    """The data module of the task, for these stages; a dry run takes one volume of each split."""
    needed = {"fit": ("train", "val"), "test": ("test",)}
    splits = [split for stage, found in needed.items() if stage in stages for split in found]
    return OrganelleDataModule(config.data, config.seed, progress, limit=1 if dry_run else None, splits=splits)


def facts_of(config: Config) -> Facts:
    """What the checkpoints of this run will say of themselves."""
    data = config.data
    return Facts(
        task=config.task,
        model=dataclasses.asdict(config.model),
        organelles=list(data.organelles),
        resample=data.resample,
        resample_spacing_um=[float(s) for s in data.resample_spacing_um],
        resample_grid=[int(n) for n in data.resample_grid],
        ri_range=[float(v) for v in data.ri_range],
        patch_size=[int(p) for p in data.patch_size],
    )


def build_for_training(config: Config, start: bool = True) -> OrganelleModule:
    """A new network; with `start`, one that begins with the weights of `init_from` if there are any."""
    facts = facts_of(config)
    network = config.model.build(1, len(facts.organelles))
    if start and config.init_from is not None:
        weights = read_checkpoint(weights_path(config.init_from, "init_from"), config.task, "init_from")
        load_network(network, weights, "init_from")
    return OrganelleModule(
        network,
        facts,
        tiling(config, facts.patch_size),
        config.loss.build(),
        config.optimizer,
        config.predict.threshold,
    )


def build_from_weights(config: Config, ensemble: Sequence[Weights]) -> OrganelleModule:
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
        _require_kinship(first, other)
    windows = tiling(config, first.facts.patch_size)
    networks = [_network(weights, windows.window) for weights in ensemble]
    return OrganelleModule(
        networks[0],
        first.facts,
        windows,
        threshold=config.predict.threshold,
        companions=networks[1:],
        flips=config.predict.flips,
        memory_gb=config.predict.memory_gb,
    )


def _network(weights: Weights, window: tuple[int, int, int]) -> nn.Module:
    facts = weights.facts
    kind = branch("model", str(facts.model[CHOICES["model"].key]))
    known = {f.name for f in dataclasses.fields(kind)}
    model = kind(**{k: v for k, v in facts.model.items() if k in known})
    if faults := model.faults(window):
        raise InputError(f"predict.window: the network of {weights.path}: {'; '.join(faults)}")
    network: nn.Module = model.build(1, len(facts.organelles))
    load_network(network, weights, "predict.checkpoint")
    return network


def _require_kinship(first: Weights, other: Weights) -> None:
    """Refuse an ensemble whose members see another image, or say something else of it."""
    for key in ("organelles", "resample", "ri_range", first.facts.resample_key):
        mine, theirs = getattr(first.facts, key), getattr(other.facts, key)
        if mine != theirs:
            raise InputError(
                f"predict.checkpoint: {other.path}: {key} {theirs}, but {first.path} has {mine}: checkpoints of one "
                "ensemble need the same outputs, grid and normalisation"
            )


def weights_path(given: str, key: str) -> Path:
    """A .ckpt or .safetensors file, the best (else last) checkpoint of a run folder, or weights that are shipped.

    Raises
    ------
    InputError
        A folder without a checkpoint, or nothing there.
    """
    path = Path(given)
    if path.is_dir():
        found = RunFolder(path).weights()
        if found is None:
            raise InputError(f"{key}: {path}: no checkpoints/best.ckpt or last.ckpt in it; give a run that was trained")
        return found
    if path.is_file():
        return path
    shipped = shipped_weights()
    if given in shipped:
        return shipped[given]
    raise InputError(
        f"{key}: {path}: no such checkpoint; expected a .ckpt file, a run folder that has one, or shipped weights "
        f"({', '.join(shipped) or 'none in this installation'})"
    )


def require_organelles(config: Config, facts: Facts) -> None:
    """Refuse to score weights that predict something else than the masks show.

    Raises
    ------
    InputError
        Other organelles, or in another order.
    """
    wanted, given = list(config.data.organelles), list(facts.organelles)
    if wanted != given:
        raise InputError(
            f"data.organelles: the weights predict {', '.join(given)}, but this config asks for {', '.join(wanted)}; "
            "make them the same"
        )


def find_weights(config: Config, folder: RunFolder | None) -> list[Path]:
    """Weights for test and predict; more than one are an ensemble.

    In this order: just trained; named in the config; this run's; `init_from`; the newest run's of the same name;
    those that come with Cytovox.

    Raises
    ------
    InputError
        There are none, or one that is named is not there.
    """
    own = folder.weights() if folder is not None else None
    if "fit" in config.stages and own is not None:
        return [own]
    named = config.predict.checkpoint
    if named:
        chosen = [weights_path(one, "predict.checkpoint") for one in ([named] if isinstance(named, str) else named)]
        if len({path.resolve() for path in chosen}) < len(chosen):
            raise InputError("predict.checkpoint: the same checkpoint is named twice")
        return chosen
    if own is not None:
        return [own]
    if config.init_from is not None:
        return [weights_path(config.init_from, "init_from")]
    newest = newest_run(Path(config.runs_dir), config.name)
    if newest is not None and (found := newest.weights()) is not None:
        return [found]
    shipped = shipped_weights().get(DEFAULTS.get(config.task, ""))
    if shipped is not None:
        return [shipped]
    raise InputError(
        f"predict.checkpoint: no weights: none named, none in this run, no earlier run in "
        f"{config.runs_dir}/{config.name}, and none shipped for task {config.task}; give "
        "predict.checkpoint=RUN_FOLDER, or train with stages=[fit,test]"
    )


def read_weights(config: Config, paths: Sequence[Path]) -> list[Weights]:
    """Checkpoints of the config's task.

    Raises
    ------
    InputError
        One cannot be read, or is of another task.
    """
    return [read_checkpoint(path, config.task, "predict.checkpoint") for path in paths]


def build_loggers(
    config: Config, folder: RunFolder, tree: dict[str, Any], csv: Logger | None, dry_run: bool
) -> list[Logger]:
    """`metrics.csv` where there is training to follow, and W&B unless it is disabled or this is a dry run."""
    wandb = None if dry_run else wandb_logger(config.logging, folder, config.name, tree)
    return [logger for logger in (csv, wandb) if logger is not None]
