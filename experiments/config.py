"""Read a config, check it, and return it as the dataclass of its task."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.compose import Composed, compose
from experiments.errors import ConfigErrors, did_you_mean
from experiments.schema import SCHEMA_VERSION, STAGES, BaseConfig, Config, branch, name_errors
from experiments.submit.config import slurm_errors
from experiments.tasks import TASKS, known_keys, task_of
from experiments.tasks.base import Task, TrainedTask
from experiments.validate import Branches, find_branches, find_errors, find_task
from lightning_modules.optim import optimizer_errors
from training.trainer import trainer_errors


def load_config(config: str | Path, overrides: Iterable[str] = ()) -> Any:
    """Read, compose and check a config; return it as the dataclass of its task.

    Parameters
    ----------
    config : str or Path
        A file, or the name of a shipped config.
    overrides : iterable of str
        `key.path=value` arguments.

    Raises
    ------
    ConfigErrors
        All errors of the config.
    InputError
        It cannot be read.
    """
    return typed_config(compose(config, overrides, known_keys))


def typed_config(composed: Composed) -> Any:
    """Check a composed config and return it as the dataclass of its task."""
    trained = [name for name, task in TASKS.items() if isinstance(task, TrainedTask)]
    named, errors = find_task(composed, TASKS, trained, BaseConfig.task)
    task = TASKS[named]
    groups = {
        field.name: field.default_factory
        for field in dataclasses.fields(task.config)
        if field.name not in task.choices and dataclasses.is_dataclass(field.default_factory)
    }
    keys = {group: (choice.key, choice.default) for group, choice in task.choices.items()}
    chosen, more = find_branches(composed, keys, lambda group, name: branch(group, task.choices[group], name))
    branches: Branches = {**groups, **chosen}  # type: ignore[dict-item]
    errors += more + find_errors(composed, task.config, branches)
    if not errors:
        result = _typed(composed.values, task, branches)
        errors = [f"{composed.where(tuple(e.partition(':')[0].split('.')))}: {e}" for e in value_errors(result)]
    if errors:
        raise ConfigErrors(list(dict.fromkeys(errors)))
    if hasattr(getattr(result, "model", None), "portable"):  # checkpoints must not depend on other files
        result.model = result.model.portable()
    return result


def _typed(values: dict[str, Any], task: Task, branches: Branches) -> Any:
    """Return checked values as the dataclass of the task."""
    if not task.choices:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(task.config), values))
    typed = {
        name: OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), values.get(name) or {}))
        for name, kind in branches.items()
    }
    return task.config(**{**values, **typed})


def value_errors(config: BaseConfig) -> list[str]:
    """Return the errors in values of the right type, one line each that starts with the key path."""
    errors = []
    if config.schema_version != SCHEMA_VERSION:
        errors.append(f"schema_version: this Cytovox reads version {SCHEMA_VERSION}, got {config.schema_version}")
    errors += name_errors(config.name)
    if isinstance(config, Config):
        errors += _training_errors(config)
    errors += [f"slurm.{error}" for error in slurm_errors(config.slurm)]
    return errors + task_of(config).errors(config)


def _training_errors(config: Config) -> list[str]:
    errors = []
    if not 0 <= config.seed < 2**32:
        errors.append(f"seed: expected 0 to {2**32 - 1}, got {config.seed}")
    errors += [
        f"stages: expected some of {', '.join(STAGES)}, got {stage!r}{did_you_mean(stage, STAGES)}"
        for stage in config.stages
        if stage not in STAGES
    ]
    if not config.stages:
        errors.append(f"stages: expected at least one of {', '.join(STAGES)}")
    if "predict" in config.stages and not getattr(config.predict, "inputs", True):
        errors.append("predict.inputs: nothing to predict; give tomograms, such as predict.inputs=[data/*.TCF]")
    errors += [f"optimizer.{error}" for error in optimizer_errors(config.optimizer)]
    errors += [f"trainer.{error}" for error in trainer_errors(config.trainer)]
    endless = config.trainer.max_steps == -1 and config.trainer.max_epochs in (None, -1)
    if config.optimizer.schedule in ("cosine", "poly") and endless:
        errors.append(f"optimizer.schedule: {config.optimizer.schedule} needs trainer.max_epochs or trainer.max_steps")
    return errors


def resolved(config: BaseConfig) -> dict[str, Any]:
    """Return the complete config as plain types, with all bases merged and all paths absolute."""
    return task_of(config).resolved(config)
