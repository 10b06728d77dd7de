"""A config that has been read, checked and typed."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cytovox.errors import InputError
from experiments.compose import Composed, compose
from experiments.errors import ConfigErrors
from experiments.schema import SCHEMA_VERSION, STAGES, BaseConfig, Config, branch, name_errors
from experiments.submit.config import slurm_errors
from experiments.tasks import TASKS, known_keys, task_of
from experiments.tasks.base import Task, TrainedTask
from experiments.validate import Branches, find_errors
from lightning_modules.optim import optimizer_errors
from training.trainer import TrainerConfig, trainer_errors


def load_config(config: str | Path, overrides: Iterable[str] = ()) -> Any:
    """Read, compose, check and type a config.

    Parameters
    ----------
    config : str or Path
        A file, or the name of a shipped config.
    overrides : iterable of str
        `key.path=value` words.

    Raises
    ------
    ConfigErrors
        Everything that is wrong with it, at once.
    InputError
        It cannot be read at all.
    """
    composed = compose(config, overrides, known_keys)
    return typed_config(composed)


def typed_config(composed: Composed) -> Any:
    """Check a composed tree and make it the config of its task."""
    task, errors = _task(composed)
    branches, more = _branches(composed, task)
    errors += more + find_errors(composed, task.config, branches)
    if not errors:
        result = _typed(composed.values, task, branches)
        errors = [f"{composed.where(tuple(f.partition(':')[0].split('.')))}: {f}" for f in value_errors(result)]
        if not errors:
            if hasattr(getattr(result, "model", None), "portable"):  # checkpoints are read where its files are not
                result.model = result.model.portable()
            return result
    raise ConfigErrors(list(dict.fromkeys(errors)))


def _task(composed: Composed) -> tuple[Task, list[str]]:
    """Return the task, or the nearest trained one and the error: the other keys are judged as that task's."""
    named = composed.values.get("task", BaseConfig.task)
    if isinstance(named, str) and named in TASKS:
        return TASKS[named], []
    trained = [name for name, task in TASKS.items() if isinstance(task, TrainedTask)]
    near = difflib.get_close_matches(str(named), trained, n=1)
    like = difflib.get_close_matches(str(named), TASKS, n=1)
    hint = f"; did you mean {like[0]}?" if like else ""
    error = f"{composed.where(('task',))}: task: expected one of {', '.join(TASKS)}, got {named!r}{hint}"
    return TASKS[near[0] if near else BaseConfig.task], [error]


def _branches(composed: Composed, task: Task) -> tuple[Branches, list[str]]:
    """The dataclass of every group, and errors of the keys that choose them."""
    found: Branches = {}
    errors = []
    for field in dataclasses.fields(task.config):
        choice = task.choices.get(field.name)
        if choice is not None:
            chosen = choice.default
            group = composed.values.get(field.name)
            if isinstance(group, dict):
                chosen = str(group.get(choice.key, chosen))
            try:
                found[field.name] = branch(field.name, choice, chosen)
            except InputError as error:
                text = str(error)
                path = f"{field.name}.{choice.key}"
                shown = text if text.startswith(path) else f"{path}: {text}"
                errors.append(f"{composed.where((field.name, choice.key))}: {shown}")
                found[field.name] = branch(field.name, choice, choice.default)
                if isinstance(group, dict):
                    # its keys cannot be judged without the branch
                    composed.values[field.name] = {}
        elif dataclasses.is_dataclass(field.default_factory):
            found[field.name] = field.default_factory
    return found, errors


def _typed(values: dict[str, Any], task: Task, branches: Branches) -> Any:
    if not task.choices:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(task.config), values))
    typed: dict[str, Any] = {}
    for name, kind in branches.items():
        tree = OmegaConf.merge(OmegaConf.structured(kind), values.get(name) or {})
        typed[name] = OmegaConf.to_object(tree)
    top = {k: v for k, v in values.items() if k not in branches}
    return task.config(**{**top, **typed})


def value_errors(config: BaseConfig) -> list[str]:
    """Return what cannot work although every type is right, one line each, beginning with the key path."""
    errors = []
    if config.schema_version != SCHEMA_VERSION:
        errors.append(f"schema_version: this Cytovox reads version {SCHEMA_VERSION}, got {config.schema_version}")
    errors += name_errors(config.name)
    if isinstance(config, Config):
        errors += _training_errors(config)
    errors += [f"slurm.{f}" for f in slurm_errors(config.slurm)]
    return errors + task_of(config).errors(config)


def _training_errors(config: Config) -> list[str]:
    errors = []
    if not 0 <= config.seed < 2**32:
        errors.append(f"seed: expected 0 to {2**32 - 1}, got {config.seed}")
    errors += _stage_errors(config)
    errors += [f"optimizer.{f}" for f in optimizer_errors(config.optimizer)]
    errors += [f"trainer.{f}" for f in trainer_errors(config.trainer)]
    return errors + _schedule_errors(config)


def _stage_errors(config: Config) -> list[str]:
    errors = []
    for stage in config.stages:
        if stage not in STAGES:
            near = difflib.get_close_matches(str(stage), STAGES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            errors.append(f"stages: expected some of {', '.join(STAGES)}, got {stage!r}{hint}")
    if not config.stages:
        errors.append(f"stages: expected at least one of {', '.join(STAGES)}")
    if "predict" in config.stages and not getattr(config.predict, "inputs", True):
        errors.append("predict.inputs: nothing to predict; give tomograms, such as predict.inputs=[data/*.TCF]")
    return errors


def _schedule_errors(config: Config) -> list[str]:
    trainer: TrainerConfig = config.trainer
    endless = trainer.max_steps == -1 and (trainer.max_epochs is None or trainer.max_epochs == -1)
    if config.optimizer.schedule in ("cosine", "poly") and endless:
        return [f"optimizer.schedule: {config.optimizer.schedule} needs trainer.max_epochs or trainer.max_steps"]
    return []


def resolved(config: BaseConfig) -> dict[str, Any]:
    """Return the whole config as plain types, composed and complete: it runs as it is, from any folder."""
    return task_of(config).resolved(config)
