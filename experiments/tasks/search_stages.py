"""What becomes of a search: its genotype, and the network that is trained from scratch with it."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from analysis.genotype_figure import genotype_figure
from experiments.tasks.organelle_config import OrganelleConfig
from experiments.tasks.search_config import SearchTaskConfig, retrained_model
from formats.errors import InputError
from lightning_modules.search import SearchModule
from networks.architecture import fixed
from networks.genotype import load_genotype
from training.rundir import RunFolder, write_json

if TYPE_CHECKING:
    from experiments.stages import Run

#: The searched network, in the run folder of the search.
GENOTYPE = "genotype.json"
#: The run folder of its training from scratch, in that of the search.
RETRAINED = "retrained"


def derive(run: Run, module: SearchModule) -> None:
    """Write the likeliest network as a genotype and as a picture, and what it costs."""
    network = module.network
    found = network.architecture.genotype()
    network.choose(fixed(found))
    write_json(run.folder.path / GENOTYPE, {**found.to_json(), "reference": f"searched by {run.config.name}"})
    genotype_figure(run.folder.figures / "genotype.png", found.to_json(), network.config.multiplier)
    published = module.cost_of(load_genotype("published"))
    run.folder.update_metrics(
        {
            "search/entropy": network.architecture.entropy().item(),
            "search/cost_derived": module.cost_of(found),
            "search/cost_published": published,
        }
    )


def retrain(run: Run) -> None:
    """Train the searched network from scratch and test it, as an organelle run in a folder of its own.

    Raises
    ------
    InputError
        The search has left no genotype: it was never finished.
    """
    from experiments.build import build_data  # they know the tasks, and this is one
    from experiments.carry_out import Order, carry_out
    from experiments.progress import Bars
    from experiments.tasks import task_of

    path = run.folder.path / GENOTYPE
    if not path.is_file():
        raise InputError(f"{path}: no such file; the search of this run is not finished: add the stage fit")
    asked: Any = run.config
    config = retrained_config(asked, json.dumps(json.loads(path.read_text(encoding="utf-8"))))
    folder = RunFolder(run.folder.path / RETRAINED)
    folder.require_writable()
    begun = (folder.path / "config.yaml").is_file()
    done = folder.status().get("stages_done", []) if begun else []
    stages = [stage for stage in ("fit", "test") if stage not in done]
    dry_run = bool(run.folder.status().get("dry_run"))
    with Bars() as bars:
        data = build_data(config, bars, dry_run, stages)
        if run.trainer.is_global_zero:
            task_of(config).prepare(data, stages, bars)
    run.trainer.strategy.barrier("prepared")
    order = Order(config, stages, folder if begun else None, dry_run)
    carry_out(order, folder, data, [], run.signals)
    if run.trainer.is_global_zero:
        scores = {key: value for key, value in folder.metrics().items() if key.startswith(("test/", "fit/parameters"))}
        run.folder.update_metrics({key.replace("fit/", "test/"): value for key, value in scores.items()})


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
        logging=dataclasses.replace(config.logging, wandb="disabled"),  # the search's own run of W&B is told the scores
        optimizer=dataclasses.replace(config.optimizer, lr=again.lr or config.optimizer.lr),
        trainer=dataclasses.replace(
            config.trainer,
            max_epochs=again.max_epochs or config.trainer.max_epochs,
            max_time=again.max_time or config.trainer.max_time,
        ),
    )
    return OrganelleConfig(**values)
