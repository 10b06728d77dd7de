"""What every config has, whatever its task; the rest is the task's own (`experiments.tasks`)."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from cytovox.errors import InputError
from datamodules.config import TEXTS, TEXTS_OR_NULL
from experiments.submit.config import SlurmConfig
from training.trainer import TrainerConfig

#: Version of the config's layout; a config of another version is refused, not guessed at.
SCHEMA_VERSION = 1

STAGES = ("fit", "test", "predict")


@dataclass
class LoggingConfig:
    """`logging:`."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto`: online where a W&B key is set, else offline."""
    project: str = "cytovox"
    """W&B project."""
    entity: str | None = None
    """W&B team or user."""
    group: str | None = None
    """W&B group."""
    tags: list[str] = field(default_factory=list)
    """W&B tags."""


@dataclass
class WeightsConfig:
    """`weights:`, what test and predict use where nothing else says it."""

    default: Any = field(default=None, metadata=TEXTS_OR_NULL)
    """Weights of this config: a shipped name, a weights file or a run folder; a list is an ensemble. They rank below
    `predict.checkpoint`, the run's own weights and `init_from`. Null: the newest run of the same name, which is then
    named with its age, steps and score."""


@dataclass
class PlanConfig:
    """`plan:`, of `--plan` alone."""

    device: str | None = None
    """A card that need not be there, such as V100-32GB: memory and largest batch are counted for it, and nothing is
    measured. Null measures on this machine."""
    json: str | None = None
    """File that the plan's figures are written to, too."""


@dataclass
class BaseConfig:
    """The keys of every task."""

    schema_version: int = SCHEMA_VERSION
    """Layout of this file."""
    name: str = "run"
    """Runs lie in runs/<name>/."""
    task: str = "organelle"
    """What is done: a name in `experiments.tasks.TASKS`."""
    base: Any = field(default_factory=list, metadata=TEXTS)
    """Configs that this one starts from."""
    runs_dir: str = "runs"
    """Where runs lie."""
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    """What `--submit` asks of a cluster."""


@dataclass
class Config(BaseConfig):
    """The keys of every task that trains. Groups with branches (`data` for one) are chosen by their first key."""

    seed: int = 0
    """Random seed."""
    stages: list[str] = field(default_factory=lambda: ["fit", "test"])
    """Some of fit, test, predict."""
    resume: str | None = None
    """Run folder to resume."""
    init_from: str | None = None
    """Checkpoint or run folder whose weights the network starts from."""
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    """Default weights of test and predict."""
    data: Any = None
    """`source:` and its keys."""
    model: Any = None
    """The network and its options."""
    loss: Any = None
    """`name:` and its options."""
    optimizer: Any = None
    """`name:` and its options."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """Lightning's own names."""
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    """W&B."""
    plan: PlanConfig = field(default_factory=PlanConfig)
    """What `--plan` plans for."""
    predict: Any = None
    """What is predicted, and how."""


def name_errors(name: str) -> list[str]:
    """What is wrong with the name of runs: it is a folder's, a job's, and a line of that job's script."""
    if name and name.isprintable() and not any(c in name for c in '<>:"/\\|?*') and name.strip(". ") == name:
        return []
    return [f"name: expected a name that can be a folder's, got {name!r}"]


@dataclass(frozen=True)
class Choice:
    """A group whose keys depend on one of them."""

    key: str
    """The key that chooses."""
    default: str
    """Its value where it is not given."""
    kinds: Mapping[str, type]
    """The dataclass of each value."""
    find: Callable[[str], type] | None = None
    """Finds them instead, where other packages may add some."""


def branch(group: str, choice: Choice, chosen: str) -> type:
    """The dataclass of a group; the choosing key is one of its fields.

    Raises
    ------
    InputError
        No such choice; the nearest one is named.
    """
    if choice.find is not None:
        return with_key(choice.find(chosen), choice.key, chosen)
    if chosen not in choice.kinds:
        near = difflib.get_close_matches(chosen, choice.kinds, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"{group}.{choice.key}: expected one of {', '.join(choice.kinds)}, got {chosen!r}{hint}")
    return with_key(choice.kinds[chosen], choice.key, chosen)


def with_key(kind: type, key: str, choice: str) -> type:
    """The same dataclass with the choosing key as its first field."""
    if any(f.name == key for f in dataclasses.fields(kind)):
        return kind
    frozen = kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    return dataclasses.make_dataclass(kind.__name__, [(key, str, field(default=choice))], bases=(kind,), frozen=frozen)


def to_yaml(tree: dict[str, Any]) -> str:
    """Return plain YAML, keys in the order of the schema."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)
