"""What a task is to the command line: its keys, its objects, and what its stages do."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl

from cytovox.models.load import weights_path
from cytovox.models.metadata import CheckpointMetadata, Weights, read_checkpoint
from cytovox.networks.weights import shipped_weights
from experiments.check import Audited, check_run
from experiments.progress import Progress
from experiments.schema import STAGES, BaseConfig, Choice, Config
from experiments.session import RunRequest, Work
from experiments.stages import Run, begin_training
from lightning_modules.seen import begun_from, seen_by_all
from training.rundir import RunFolder
from training.signals import StopSignals

#: The splits that each stage needs.
SPLITS_OF = {"fit": ("train", "val"), "test": ("test",)}


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


class Task(ABC):
    """One task. Every method may raise `InputError` for invalid input.

    What only some tasks can do is a class of its own: `TrainedTask`, `UsesWeights`, `Predicts`, `Plans`, `Watches`.
    """

    name: str
    """Value of `task:` in a config."""
    config: type[BaseConfig]
    """The whole config; its fields that are no group come first."""
    choices: Mapping[str, Choice] = {}
    """The groups with branches."""
    paths: tuple[tuple[str, ...], ...] = ()
    """Keys that hold paths or globs, made absolute in a run's config.yaml."""

    @abstractmethod
    def errors(self, config: Any) -> list[str]:
        """Return what cannot work although every type is right, one line each, beginning with the key path."""

    @abstractmethod
    def check(self, request: RunRequest) -> None:
        """Print what is wrong with the data, and what the run would do (`--check`). Nothing is written."""

    @abstractmethod
    def begin(self, request: RunRequest, signals: StopSignals) -> Work | None:
        """Check the request, prepare what it reads, and make the folder; None where nothing is left to do."""

    @abstractmethod
    def report(self, folder: Path) -> dict[str, Any]:
        """Return what the sections of the report show, from the files of a run folder."""

    def resolved(self, config: Any) -> dict[str, Any]:
        """Return the whole config as plain types, composed and complete: it runs as it is, from any folder."""
        tree = dataclasses.asdict(config)
        tree["base"] = []
        for group, choice in self.choices.items():
            tree[group] = {choice.key: tree[group][choice.key], **tree[group]}
        for *groups, key in (*self.paths, ("runs_dir",), ("resume",)):
            inner = tree
            for group in groups:
                inner = inner[group]
            if key in inner:
                inner[key] = absolute_path(inner[key])
        return tree


class TrainedTask(Task):
    """A task that trains a network: stages fit, test and perhaps predict."""

    config: type[Config]
    monitor: str
    """Validation metric, larger is better, that picks `best.ckpt`."""
    unit: str
    """What its data are counted in, such as `volume`."""
    paths: tuple[tuple[str, ...], ...] = (("predict", "checkpoint"), ("init_from",), ("weights", "default"))

    @abstractmethod
    def data(self, config: Any, progress: Progress | None, limit: int | None, splits: Sequence[str]) -> Any:
        """Return the data module, for these splits."""

    @abstractmethod
    def metadata(self, config: Any) -> CheckpointMetadata:
        """Return what the checkpoints of a run will say of themselves."""

    @abstractmethod
    def for_training(self, config: Any, weights: Weights | None) -> pl.LightningModule:
        """Return a new module with a `network`; it starts from the weights if there are any."""

    @abstractmethod
    def prepare(self, data: Any, stages: Sequence[str], progress: Progress) -> None:
        """Read every file of these stages, and fill the cache: nothing is computed before."""

    @abstractmethod
    def test(self, run: Run) -> None:
        """Score the weights on the test cases, and write tables and figures."""

    @abstractmethod
    def print_summary(self, folder: RunFolder, config: Any) -> None:
        """Print the numbers of a finished run."""

    @abstractmethod
    def audit(self, config: Any, stages: Sequence[str], progress: Progress) -> Audited:
        """Print what is wrong with the data."""

    def require_device(self, config: Any) -> None:
        """Raise `InputError` if the config asks for something that the device of this machine cannot do."""

    def require_ready(self, stages: Sequence[str], folder: RunFolder | None) -> None:
        """Refuse stages that build on others which this run has not done."""

    def require_same(self, config: Any, metadata: Any) -> None:
        """Refuse to resume a training whose checkpoint is of another search or network."""

    def on_fit_end(self, run: Run, module: Any) -> None:
        """Finish a fit, on every rank; the first one writes."""

    def data_of(
        self, config: Any, progress: Progress | None = None, dry_run: bool = False, stages: Sequence[str] = STAGES[:2]
    ) -> Any:
        """Return the data module for these stages; a dry run takes one case of each split."""
        splits = [split for stage, found in SPLITS_OF.items() if stage in stages for split in found]
        return self.data(config, progress, 1 if dry_run else None, splits)

    def module_for_training(self, config: Any, start: bool = True) -> pl.LightningModule:
        """Return a new module; with `start`, it begins with the weights of `init_from` if there are any."""
        weights = None
        if start and config.init_from is not None:
            weights = read_checkpoint(weights_path(config.init_from, "init_from"), config.task, "init_from")
        module: Any = self.for_training(config, weights)
        module.metadata = begun_from(module.metadata, None if weights is None else weights.metadata)
        return module

    def check(self, request: RunRequest) -> None:
        """See `Task`."""
        check_run(self, request)

    def begin(self, request: RunRequest, signals: StopSignals) -> Work | None:
        """See `Task`."""
        return begin_training(self, request, signals)


class UsesWeights(ABC):
    """A trained task whose test and prediction start from weights of the task itself."""

    @abstractmethod
    def from_weights(self, config: Any, ensemble: Sequence[Weights]) -> pl.LightningModule:
        """Return the module for test and predict."""

    def require_match(self, config: Any, metadata: Any) -> None:  # noqa: B027 - most weights fit any data
        """Refuse to test weights that answer another question than the data do."""

    def module_from_weights(self, config: Any, ensemble: Sequence[Weights]) -> pl.LightningModule:
        """Return the networks that checkpoints hold, with what surrounded them in training.

        Raises
        ------
        InputError
            A network cannot be built here, or the checkpoints do not belong together.
        """
        module: Any = self.from_weights(config, ensemble)
        module.metadata = seen_by_all(module.metadata, [weights.metadata for weights in ensemble])
        return module


class Predicts(ABC):
    """A trained task with the stage predict."""

    @abstractmethod
    def inputs(self, config: Any) -> list[Path]:
        """Return the files to predict, each opened once: a broken one is found before anything is computed."""

    def list_inputs(self, config: Any) -> list[Path]:
        """Return the same files without opening them: what the jobs of an array share."""
        return self.inputs(config)

    @abstractmethod
    def require_free(self, config: Any, inputs: Sequence[Path]) -> None:
        """Refuse to write predictions over other files."""

    @abstractmethod
    def predict(self, run: Run) -> None:
        """Predict every input; what is done is not done again."""


class Plans(ABC):
    """A task with `--plan`."""

    @abstractmethod
    def plan(self, config: Any, stages: Sequence[str], inputs: Sequence[Path]) -> None:
        """Measure a few steps of the run, and print what all of it would take."""


class Watches(ABC):  # noqa: B024 - its work does it
    """A task with `--watch DIR`: `RunRequest.watch` is the folder."""


class Submits(ABC):
    """A task without training that `--submit` gives to SLURM."""

    @abstractmethod
    def run_path(self, config: Any) -> Path:
        """Return the folder of the run, made or not."""

    @abstractmethod
    def list_inputs(self, config: Any) -> list[Path]:
        """Return the inputs that the jobs of an array share."""


def absolute_path(value: Any) -> Any:
    """Return paths and globs, one or a list of them, as they are from anywhere; names of shipped weights stay."""
    if isinstance(value, str):
        return value if value in shipped_weights() and not Path(value).exists() else str(Path(value).absolute())
    return [absolute_path(one) for one in value] if isinstance(value, list) else value
