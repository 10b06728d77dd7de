"""What a task is to the command line: its keys, its objects, and what its stages do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytorch_lightning as pl
from rich.console import Console

from cytovox.models.metadata import CheckpointMetadata, Weights
from experiments.schema import Choice, Config
from training.rundir import RunFolder

if TYPE_CHECKING:
    from experiments.stages import Run

#: Called with (what, done, all).
Progress = Callable[[str, int, int], None]


class DataModule(Protocol):
    """What every task's data module offers beside Lightning's own hooks."""

    def find(self) -> Mapping[str, Sequence[Any]]:
        """Cases of train, val and test; simulated ones are made here."""

    def digest(self) -> str:
        """Hash of the data of the run."""

    def fingerprints(self, splits: Sequence[str]) -> list[str]:
        """Of the cells or volumes of these splits: what weights will say they have seen."""

    def notes(self) -> list[str]:
        """What was accepted in the files, but should be said."""

    def prepare_data(self) -> None:
        """Fill the cache."""


@dataclass
class Audited:
    """What an audit of the data came to."""

    counts: dict[str, int] = field(default_factory=dict)
    """Cases of each split."""
    inputs: int = 0
    """Files to predict."""
    errors: int = 0
    """What would stop a run, or spoil it."""
    told: set[str] = field(default_factory=set)
    """Messages that were printed already."""


class Task(ABC):
    """One task. All that is asked for may raise `InputError` for what the user can mend."""

    name: str
    """As `task:` says it."""
    config: type[Config]
    """The whole config; its fields that are no group come first."""
    choices: Mapping[str, Choice]
    """The groups with branches."""
    monitor: str
    """Validation metric, larger is better, that picks `best.ckpt`."""
    unit: str
    """What its data are counted in, such as `volume`."""

    @abstractmethod
    def errors(self, config: Any) -> list[str]:
        """What cannot work although every type is right, one line each, beginning with the key path."""

    @abstractmethod
    def data(self, config: Any, progress: Progress | None, limit: int | None, splits: Sequence[str]) -> Any:
        """The data module, for these splits."""

    @abstractmethod
    def metadata(self, config: Any) -> CheckpointMetadata:
        """What the checkpoints of a run will say of themselves."""

    @abstractmethod
    def for_training(self, config: Any, weights: Weights | None) -> pl.LightningModule:
        """A new module with a `network`; it starts from the weights if there are any."""

    @abstractmethod
    def from_weights(self, config: Any, ensemble: Sequence[Weights]) -> pl.LightningModule:
        """The module for test and predict."""

    @abstractmethod
    def require_match(self, config: Any, metadata: Any) -> None:
        """Refuse to test weights that answer another question than the data do."""

    @abstractmethod
    def inputs(self, config: Any) -> list[Path]:
        """Files of the predict stage, each looked at once: a broken one is found before anything is computed."""

    def list_inputs(self, config: Any) -> list[Path]:
        """The same files, not looked at: what the tasks of an array share."""
        return self.inputs(config)

    @abstractmethod
    def require_free(self, config: Any, inputs: Sequence[Path]) -> None:
        """Refuse to write predictions over what is something else."""

    @abstractmethod
    def prepare(self, data: Any, stages: Sequence[str], progress: Progress) -> None:
        """Read every file of these stages, and fill the cache: nothing is computed before."""

    def require_device(self, config: Any) -> None:  # noqa: B027 - most tasks run on any device
        """Raise `InputError` if the config asks for something that the device of this machine cannot do."""

    #: Whether test and predict begin with weights of this very task.
    tests_weights: bool = True

    def require_ready(self, stages: Sequence[str], folder: RunFolder | None) -> None:  # noqa: B027 - as below
        """Refuse stages that build on others which this run has not done."""

    def require_same(self, config: Any, metadata: Any) -> None:  # noqa: B027 - as below
        """Refuse to go on with a training whose checkpoint says that it was another."""

    def on_fit_end(self, run: Run, module: Any) -> None:  # noqa: B027 - most tasks have nothing to add
        """On every rank, when a fit has ended: what there is to find out and, on the first, to write."""

    @abstractmethod
    def test(self, run: Run) -> None:
        """Score the weights on the test cases, and leave tables and figures."""

    @abstractmethod
    def predict(self, run: Run) -> None:
        """Predict every input; what is done is not done again."""

    @abstractmethod
    def print_summary(self, folder: RunFolder, config: Any) -> None:
        """Print the numbers of a finished run."""

    @abstractmethod
    def audit(self, config: Any, stages: Sequence[str], progress: Progress) -> Audited:
        """`--check`: print what is wrong with the data."""

    @abstractmethod
    def plan(self, config: Any, stages: Sequence[str], inputs: Sequence[Path]) -> None:
        """`--plan`: measure a little of the run, and print what all of it would take."""

    #: Keys that hold paths or globs, made absolute in a run's config.yaml.
    paths: tuple[tuple[str, ...], ...] = (("predict", "inputs"), ("predict", "checkpoint"), ("predict", "out"))


def wide_console() -> Console:
    """The terminal; in a log file, wide enough for a column a cell line."""
    console = Console()
    return console if console.is_terminal else Console(width=120)
