"""Schema of the keys that all tasks share; each task adds its own keys (`experiments.tasks`)."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from cytovox.errors import InputError
from datamodules.config import TEXTS, TEXTS_OR_NULL
from experiments.errors import not_one_of
from experiments.submit.config import SlurmConfig
from training.trainer import TrainerConfig

#: Version of the config's layout; configs of other versions are refused.
SCHEMA_VERSION = 1

STAGES = ("fit", "test", "predict")


@dataclass
class LoggingConfig:
    """Group `logging:`."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto`: online with a W&B key, else offline."""
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
    """Group `weights:`, the default weights of test and predict."""

    default: Any = field(default=None, metadata=TEXTS_OR_NULL)
    """Weights of this config: a shipped name, a weights file or a run folder; a list is an ensemble.
    `predict.checkpoint`, the run's own weights and `init_from` take precedence. Null: the newest run of the same name;
    its age, steps and score are printed."""


@dataclass
class PlanConfig:
    """Group `plan:`, used by `--plan` only."""

    device: str | None = None
    """GPU to plan for, such as V100-32GB: memory and largest batch are computed and nothing is measured. Null: measure
    on this machine."""
    json: str | None = None
    """JSON file for the numbers of the plan."""


@dataclass
class BaseConfig:
    """Keys of every task."""

    schema_version: int = SCHEMA_VERSION
    """Version of the config's layout."""
    name: str = "run"
    """Name of the run; its folder is runs/<name>/<id>/."""
    task: str = "organelle"
    """Task: a name in `experiments.tasks.TASKS`."""
    base: Any = field(default_factory=list, metadata=TEXTS)
    """Configs that this one extends."""
    runs_dir: str = "runs"
    """Folder of all runs."""
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    """Resources that `--submit` requests from SLURM."""


@dataclass
class Config(BaseConfig):
    """Keys of every task that trains. In groups with branches, such as `data`, the first key chooses the branch."""

    seed: int = 0
    """Random seed."""
    stages: list[str] = field(default_factory=lambda: ["fit", "test"])
    """Stages of the run, out of fit, test and predict."""
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
    """Options of Lightning's trainer."""
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    """Options of W&B."""
    plan: PlanConfig = field(default_factory=PlanConfig)
    """Options of `--plan`."""
    predict: Any = None
    """Inputs and options of the prediction."""


def name_errors(name: str) -> list[str]:
    """Return the error in a run's name, which is also that of a folder and of a SLURM job; empty if it is valid."""
    if name and name.isprintable() and not any(c in name for c in '<>:"/\\|?*') and name.strip(". ") == name:
        return []
    return [f"name: expected a name that can be a folder's, got {name!r}"]


@dataclass(frozen=True)
class Choice:
    """A group with branches: one of its keys chooses which other keys it has."""

    key: str
    """Key that chooses the branch."""
    default: str
    """Default of that key."""
    kinds: Mapping[str, type]
    """Dataclass of each branch."""
    find: Callable[[str], type] | None = None
    """Function that returns the dataclass of a branch, if other packages may add some."""


def branch(group: str, choice: Choice, chosen: str) -> type:
    """Return the dataclass of a branch; the key that chooses it is one of its fields.

    Parameters
    ----------
    group : str
        Name of the group, for the message.
    choice : Choice
        The group.
    chosen : str
        Name of the branch.

    Raises
    ------
    InputError
        There is no such branch; the message names the most similar one.
    """
    key = choice.key
    if choice.find is None and chosen not in choice.kinds:
        raise InputError(not_one_of(f"{group}.{key}", choice.kinds, chosen))
    kind: Any = choice.kinds[chosen] if choice.find is None else choice.find(chosen)
    if any(f.name == key for f in dataclasses.fields(kind)):
        return kind
    frozen = kind.__dataclass_params__.frozen
    return dataclasses.make_dataclass(kind.__name__, [(key, str, field(default=chosen))], bases=(kind,), frozen=frozen)


def to_yaml(tree: dict[str, Any]) -> str:
    """Return a config as YAML, keys in the order of the schema."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)
