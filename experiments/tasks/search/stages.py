"""Stages of a search: choose the genotype, and train its network from scratch."""

import dataclasses
import itertools
import json
import math
import sys
from typing import Any

import torch
import yaml

from cytovox.errors import InputError
from cytovox.io.deletion import MadeFolder
from cytovox.networks.architecture import fixed
from cytovox.networks.genotype import Genotype, load_genotype
from cytovox.plots.genotype import genotype_figure
from experiments.progress import Bars
from experiments.session import RunRequest, run_session
from experiments.stages import Run, prepared_data
from experiments.tasks.organelle.config import OrganelleConfig
from experiments.tasks.organelle.task import OrganelleTask
from experiments.tasks.search.config import SearchTaskConfig, retrained_model
from lightning_modules.organelle import MONITOR
from lightning_modules.search import SearchModule
from training.rundir import RunFolder, write_json, write_text
from training.signals import Preempted

#: Task that trains the searched network.
TASK = OrganelleTask()
#: File of the genotype in the run folder of the search.
GENOTYPE = "genotype.json"
#: Run folder of the training from scratch, in the run folder of the search.
RETRAINED = "retrained"
#: Metric of the search that holds the validation score of the retrained network, not that of the supernet.
RETRAINED_SCORE = "retrained/dice_mean"


def derive(run: Run, module: SearchModule) -> None:
    """Write the genotype of the best candidate, its figure and its cost."""
    scored = _scored(run, module)
    if not run.trainer.is_global_zero:
        return
    # the first of equal candidates: the likeliest one comes first
    found, dice = max(scored, key=lambda pair: -math.inf if math.isnan(pair[1]) else pair[1])
    network = module.network
    network.choose(fixed(found))
    write_json(run.folder.path / GENOTYPE, {**found.to_json(), "reference": f"searched by {run.config.name}"})
    genotype_figure(run.folder.figures / "genotype.png", found.to_json(), network.config.multiplier)
    likeliest = network.architecture.genotype()
    rows = ["likeliest,chosen,dice_mean,cost"] + [
        f"{int(one == likeliest)},{int(one == found)},{value:.6g},{module.cost_of(one):.6g}" for one, value in scored
    ]
    write_text(run.folder.tables / "candidates.csv", "\n".join(rows) + "\n")
    metrics = {
        "search/entropy": network.architecture.entropy().item(),
        "search/candidates": len(scored),
        "search/cost_derived": module.cost_of(found),
        "search/cost_published": module.published_cost,
    }
    run.folder.update_metrics({**metrics, **({} if math.isnan(dice) else {"search/dice_derived": dice})})


def _scored(run: Run, module: SearchModule) -> list[tuple[Genotype, float]]:
    """Return all candidates with their validation Dice on every rank; each rank scores a part of them."""
    found = module.candidates()
    if run.folder.status().get("dry_run"):
        found = found[:2]
    rank, ranks = run.trainer.global_rank, run.trainer.world_size
    volumes, mine = run.data.volumes(), found[rank::ranks]
    values: list[float] = []
    with Bars() as bars:
        for genotype in mine:
            values.append(module.score(genotype, volumes) if len(found) > 1 else math.nan)
            if run.trainer.is_global_zero:
                bars("trying networks", len(values), len(mine))
    everyone: list[list[float]] = [values]
    if ranks > 1:
        everyone = [[] for _ in range(ranks)]
        torch.distributed.all_gather_object(everyone, values)
    return [(one, everyone[place % ranks][place // ranks]) for place, one in enumerate(found)]


def retrain(run: Run) -> None:
    """Train the searched network from scratch and test it, as an organelle run in a subfolder.

    An unfinished training is resumed; a finished one is scored again. The folder of another network, or of a training
    with other options, is renamed to `retrained-1`, `retrained-2` and so on.

    Raises
    ------
    InputError
        There is no genotype because the search is not finished.
    """
    path = run.folder.path / GENOTYPE
    if not path.is_file():
        raise InputError(f"{path}: no such file; the search of this run is not finished: add the stage fit")
    wanted: Any = run.config
    config = retrained_config(wanted, json.dumps(load_genotype(str(path)).to_json()))
    folder = RunFolder(run.folder.path / RETRAINED)
    if run.trainer.is_global_zero:
        put_aside_another(folder, config)
    run.trainer.strategy.barrier("put aside")
    if run.trainer.is_global_zero:
        folder.made = MadeFolder.make(folder.path)
    folder.require_writable()
    begun, stages = (folder.path / "config.yaml").is_file(), stages_left(folder, config)
    request = RunRequest(config, stages, folder if begun else None, bool(run.folder.status().get("dry_run")))
    data = prepared_data(TASK, request)
    run.trainer.strategy.barrier("prepared")
    try:
        run_session(Run(TASK, request, folder, data, [], run.signals))
    except (Preempted, KeyboardInterrupt) as stop:
        raise (stop.__cause__ or stop) from None  # the message of the search explains how to resume
    if run.trainer.is_global_zero:
        run.folder.update_metrics(scores_of(folder))


def put_aside_another(folder: RunFolder, config: OrganelleConfig) -> None:
    """Rename the folder of a training with another network, loss, optimizer or seed."""
    kept, wanted = _plain(folder, config)
    if any(kept.get(key, wanted[key]) != wanted[key] for key in ("model", "loss", "optimizer", "seed")):
        names = (folder.path.with_name(f"{RETRAINED}-{n}") for n in itertools.count(1))
        aside = folder.path.rename(next(path for path in names if not path.exists()))
        print(f"note: {folder.path} held another network or training, which was moved to {aside}", file=sys.stderr)


def stages_left(folder: RunFolder, config: OrganelleConfig) -> list[str]:
    """Return the stages that remain of the training from scratch; the test stage always does."""
    kept, wanted = (tree.get("trainer", {}) for tree in _plain(folder, config))
    longer = any(_limit(wanted[key]) > _limit(kept.get(key)) for key in ("max_epochs", "max_steps"))
    return ["fit", "test"] if longer or "fit" not in folder.status()["stages_done"] else ["test"]


def _limit(number: int | None) -> float:
    return math.inf if number in (None, -1) else float(number or 0)


def _plain(folder: RunFolder, config: OrganelleConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the config of the training in the folder (empty if there is none), and this one, as plain types."""
    path = folder.path / "config.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}, TASK.resolved(config)


def scores_of(folder: RunFolder) -> dict[str, Any]:
    """Return the scores of the retrained network as metrics of the search, for sweeps of searches."""
    metrics, named = folder.metrics(), {"fit/parameters": "test/parameters", MONITOR: RETRAINED_SCORE}
    scores = {key: value for key, value in metrics.items() if key.startswith("test/")}
    return {**scores, **{new: metrics[key] for key, new in named.items() if key in metrics}}


def retrained_config(config: SearchTaskConfig, genotype: str) -> OrganelleConfig:
    """Return the config of the organelle run that trains the searched network."""
    again = config.retrain
    inherited = {field.name: getattr(config, field.name) for field in dataclasses.fields(OrganelleConfig)}
    changed: dict[str, Any] = {
        "task": "organelle",
        "name": f"{config.name}-retrained",
        "stages": ["fit", "test"],
        "resume": None,
        "model": retrained_model(config, genotype),
        "logging": dataclasses.replace(config.logging, wandb="disabled"),  # the search's own W&B run has the scores
        "optimizer": dataclasses.replace(config.optimizer, lr=again.lr or config.optimizer.lr),
        "trainer": dataclasses.replace(
            config.trainer,
            max_epochs=again.max_epochs or config.trainer.max_epochs,
            max_steps=config.trainer.max_steps if again.max_epochs is None else -1,
            max_time=again.max_time,
        ),
    }
    return OrganelleConfig(**{**inherited, **changed})
