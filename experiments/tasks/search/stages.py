"""What becomes of a search: its genotype, and the network that is trained from scratch with it."""

from __future__ import annotations

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

#: The task that trains the searched network.
TASK = OrganelleTask()
#: The searched network, in the run folder of the search.
GENOTYPE = "genotype.json"
#: The run folder of its training from scratch, in that of the search.
RETRAINED = "retrained"
#: Its validation score among the metrics of the search, whose own is of the supernet's weights.
RETRAINED_SCORE = "retrained/dice_mean"


def derive(run: Run, module: SearchModule) -> None:
    """Write the best of the search's candidates as a genotype and as a picture, and what it costs."""
    scored = _scored(run, module)
    if not run.trainer.is_global_zero:
        return
    # of equals the first: the likeliest, if it is one of them
    found, dice = max(scored, key=lambda pair: -math.inf if math.isnan(pair[1]) else pair[1])
    network = module.network
    network.choose(fixed(found))
    write_json(run.folder.path / GENOTYPE, {**found.to_json(), "reference": f"searched by {run.config.name}"})
    genotype_figure(run.folder.figures / "genotype.png", found.to_json(), network.config.multiplier)
    likeliest = network.architecture.genotype()
    rows = ["likeliest,chosen,dice_mean,cost"]
    for one, value in scored:
        rows.append(f"{int(one == likeliest)},{int(one == found)},{value:.6g},{module.cost_of(one):.6g}")
    write_text(run.folder.tables / "candidates.csv", "\n".join(rows) + "\n")
    metrics = {
        "search/entropy": network.architecture.entropy().item(),
        "search/candidates": len(scored),
        "search/cost_derived": module.cost_of(found),
        "search/cost_published": module.published_cost,
    }
    run.folder.update_metrics({**metrics, **({} if math.isnan(dice) else {"search/dice_derived": dice})})


def _scored(run: Run, module: SearchModule) -> list[tuple[Genotype, float]]:
    """The candidates with their validation Dice; each rank scores its share, and all know all."""
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
    """Train the searched network from scratch and test it, as an organelle run in a folder of its own.

    A training that has begun is resumed, one that is finished is scored again; the training of another network, or of
    this one in another way, is renamed (`retrained-1`, and so on).

    Raises
    ------
    InputError
        The search has left no genotype: it was never finished.
    """
    path = run.folder.path / GENOTYPE
    if not path.is_file():
        raise InputError(f"{path}: no such file; the search of this run is not finished: add the stage fit")
    asked: Any = run.config
    config = retrained_config(asked, json.dumps(load_genotype(str(path)).to_json()))
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
        raise (stop.__cause__ or stop) from None  # the message of the search says how to resume
    if run.trainer.is_global_zero:
        run.folder.update_metrics(scores_of(folder))


def put_aside_another(folder: RunFolder, config: OrganelleConfig) -> None:
    """Rename the folder of a training of another network, or one that learns in another way."""
    kept, asked = _plain(folder, config)
    if all(kept.get(key, asked[key]) == asked[key] for key in ("model", "loss", "optimizer", "seed")):
        return
    number = next(n for n in itertools.count(1) if not folder.path.with_name(f"{RETRAINED}-{n}").exists())
    aside = folder.path.rename(folder.path.with_name(f"{RETRAINED}-{number}"))
    print(f"note: {folder.path} held another network or training; that is in {aside} now", file=sys.stderr)


def stages_left(folder: RunFolder, config: OrganelleConfig) -> list[str]:
    """What is to be done of a training that may have begun: at least the test, since that was asked for."""
    kept, asked = (tree.get("trainer", {}) for tree in _plain(folder, config))
    longer = any(_limit(asked[key]) > _limit(kept.get(key)) for key in ("max_epochs", "max_steps"))
    return ["fit", "test"] if longer or "fit" not in folder.status()["stages_done"] else ["test"]


def _limit(number: int | None) -> float:
    return math.inf if number in (None, -1) else float(number or 0)


def _plain(folder: RunFolder, config: OrganelleConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a training that has begun was asked for (nothing if none has), and what this one is."""
    path = folder.path / "config.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}, TASK.resolved(config)


def scores_of(folder: RunFolder) -> dict[str, Any]:
    """Of the retrained network, for the search's own metrics: a sweep of searches looks at them."""
    metrics = folder.metrics()
    scores = {key: value for key, value in metrics.items() if key.startswith("test/")}
    named = {"fit/parameters": "test/parameters", MONITOR: RETRAINED_SCORE}
    return {**scores, **{new: metrics[key] for key, new in named.items() if key in metrics}}


def retrained_config(config: SearchTaskConfig, genotype: str) -> OrganelleConfig:
    """The organelle run that trains the searched network; its config.yaml reruns as it is."""
    again = config.retrain
    known = {field.name for field in dataclasses.fields(OrganelleConfig)}
    values: dict[str, Any] = {name: getattr(config, name) for name in known}
    values.update(
        task="organelle",
        name=f"{config.name}-retrained",
        stages=["fit", "test"],
        resume=None,
        model=retrained_model(config, genotype),
        logging=dataclasses.replace(config.logging, wandb="disabled"),  # the scores go into the search's own W&B run
        optimizer=dataclasses.replace(config.optimizer, lr=again.lr or config.optimizer.lr),
        trainer=dataclasses.replace(
            config.trainer,
            max_epochs=again.max_epochs or config.trainer.max_epochs,
            max_steps=config.trainer.max_steps if again.max_epochs is None else -1,
            max_time=again.max_time,
        ),
    )
    return OrganelleConfig(**values)
