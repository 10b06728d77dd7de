"""Base classes of the tasks."""

import dataclasses
import functools
import operator
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from cytovox.errors import InputError
from cytovox.models.load import weights_path
from cytovox.models.metadata import CheckpointMetadata, Weights, read_checkpoint
from cytovox.networks.weights import shipped_weights
from datamodules.cases import FolderCase
from datamodules.organelle import is_annotated
from datamodules.sampling import evaluation_indices
from experiments.check import Audited, check_run
from experiments.progress import Progress
from experiments.schema import STAGES, BaseConfig, Choice, Config
from experiments.session import RunRequest, Work
from experiments.stages import Run, begin_training
from lightning_modules.seen import begun_from, counted_seen, seen_by_all, seen_metrics, seen_note
from training.rundir import RunFolder
from training.signals import StopSignals

#: Splits that each stage needs.
SPLITS_OF = {"fit": ("train", "val"), "test": ("test",)}


class Task(ABC):
    """Base class of a task. Every method may raise `InputError` for invalid input.

    Optional capabilities are separate classes: `TrainedTask`, `UsesWeights`, `Predicts`, `Plans`, `Watches`, `Submits`.
    """

    name: str
    """Value of `task:` in a config."""
    config: type[BaseConfig]
    """Class of the whole config."""
    choices: Mapping[str, Choice] = {}
    """Groups with branches."""
    paths: tuple[tuple[str, ...], ...] = ()
    """Keys of paths or globs, which are absolute in a run's config.yaml."""

    @abstractmethod
    def errors(self, config: Any) -> list[str]:
        """Return the errors of a config whose types are valid, one line each, beginning with the key path."""

    @abstractmethod
    def check(self, request: RunRequest) -> None:
        """Print the errors in the data and what the run would do (`--check`). Nothing is written."""

    @abstractmethod
    def begin(self, request: RunRequest, signals: StopSignals) -> Work | None:
        """Check the request, prepare its inputs, and create the run folder; return None if all stages are done."""

    @abstractmethod
    def report(self, folder: Path) -> dict[str, Any]:
        """Return the contents of the sections of the report, from the files of a run folder."""

    def resolved(self, config: Any) -> dict[str, Any]:
        """Return the complete config as plain types, valid in any working directory."""
        tree = dataclasses.asdict(config)
        tree["base"] = []
        for group, choice in self.choices.items():
            tree[group] = {choice.key: tree[group][choice.key], **tree[group]}
        for *groups, key in (*self.paths, ("runs_dir",), ("resume",)):
            inner = functools.reduce(operator.getitem, groups, tree)
            if key in inner:
                inner[key] = absolute_path(inner[key])
        return tree


class TrainedTask(Task):
    """Base class of a task that trains a network, with the stages fit, test and possibly predict."""

    config: type[Config]
    monitor: str
    """Validation metric that selects `best.ckpt`; larger is better."""
    unit: str
    """Name of a case, such as `volume`."""
    paths: tuple[tuple[str, ...], ...] = (("predict", "checkpoint"), ("init_from",), ("weights", "default"))

    @abstractmethod
    def data(self, config: Any, progress: Progress | None, limit: int | None, splits: Sequence[str]) -> Any:
        """Return the data module for these splits.

        Besides the hooks of Lightning it has `find()`, the cases of every split; `digest()`, a hash of the data;
        `fingerprints(splits)`, which the weights store; and `notes()` about the files for the user.
        """

    @abstractmethod
    def metadata(self, config: Any) -> CheckpointMetadata:
        """Return the metadata that the checkpoints of a run store."""

    @abstractmethod
    def for_training(self, config: Any, weights: Weights | None) -> pl.LightningModule:
        """Return a new module with a `network`; it is initialised from the weights if there are any."""

    @abstractmethod
    def test(self, run: Run) -> None:
        """Score the weights on the test cases, and write tables and figures."""

    @abstractmethod
    def print_summary(self, folder: RunFolder, config: Any) -> None:
        """Print the numbers of a finished run."""

    @abstractmethod
    def audit(self, config: Any, stages: Sequence[str], progress: Progress) -> Audited:
        """Print the errors in the data, and return the result of the audit."""

    def require_device(self, config: Any) -> None:
        """Raise `InputError` if the device of this machine does not support an option of the config."""

    def require_ready(self, stages: Sequence[str], folder: RunFolder | None) -> None:
        """Raise `InputError` if a stage depends on another one that this run has not completed."""

    def require_same(self, config: Any, metadata: Any) -> None:
        """Raise `InputError` if the checkpoint to resume belongs to another search or network."""

    def on_fit_end(self, run: Run, module: Any) -> None:
        """Run after a fit, on every rank; only the first rank writes."""

    def prepare(self, data: Any, stages: Sequence[str], progress: Progress) -> None:
        """Read every file of these stages and fill the cache, before anything is computed.

        Raises
        ------
        InputError
            A file that cannot be used.
        """
        cases = data.find()
        if "test" in stages:
            check_test(cases["test"], progress)
        if "fit" in stages:
            data.prepare_data()

    def data_of(
        self, config: Any, progress: Progress | None = None, dry_run: bool = False, stages: Sequence[str] = STAGES[:2]
    ) -> Any:
        """Return the data module for these stages; a dry run takes one case of each split."""
        splits = [split for stage, found in SPLITS_OF.items() if stage in stages for split in found]
        return self.data(config, progress, 1 if dry_run else None, splits)

    def module_for_training(self, config: Any, start: bool = True) -> pl.LightningModule:
        """Return a new module; with `start`, it is initialised from the weights of `init_from` if there are any."""
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


def check_test(cases: Sequence[Any], progress: Progress) -> None:
    """Read every test case; one without any annotated voxel gets a note, since the test leaves it out.

    Raises
    ------
    InputError
        An invalid tomogram or mask, or no case at all, or none with an annotated voxel.
    """
    if not cases:
        raise InputError(
            "data: no volume to test on; give a share to data.split.test (or a count to data.test), or leave out "
            "the test stage"
        )
    annotated = 0
    for done, case in enumerate(cases, start=1):
        if isinstance(case, FolderCase):
            annotated += is_annotated(case)
            progress("checking test volumes", done, len(cases))
    if isinstance(cases[0], FolderCase) and not annotated:
        raise InputError(
            f"data: none of {len(cases)} test volumes has an annotated voxel; annotate a part of one, or leave out the "
            "test stage"
        )


def predict_each(run: Run, module: pl.LightningModule, items: Sequence[Any]) -> None:
    """Predict items one at a time, each on one rank, and wait for all ranks."""
    sampler = evaluation_indices(len(items), run.trainer.global_rank, run.trainer.world_size)
    loader: DataLoader[Any] = DataLoader(items, batch_size=None, sampler=sampler)  # type: ignore[arg-type]
    run.trainer.predict(module, loader, return_predictions=False)
    run.trainer.strategy.barrier("predict")


def record_seen(run: Run, module: Any, fingerprints: Sequence[str], stage: str, what: str, consequence: str) -> None:
    """Count the inputs that the weights have seen in training, for the metrics and a note to the user.

    Parameters
    ----------
    run : Run
        Run with the metrics.
    module : LightningModule
        Module with the metadata of the weights.
    fingerprints : sequence of str
        Fingerprints of the inputs.
    stage : str
        Stage of the inputs.
    what : str
        Plural name of the inputs.
    consequence : str
        What the user must know about seen inputs.
    """
    _, counted = counted_seen(module.metadata, fingerprints)
    run.folder.update_metrics(seen_metrics(counted, stage))
    if note := seen_note(counted, what, consequence):
        print(note, file=sys.stderr)


class UsesWeights(ABC):
    """Mixin of a trained task whose test and predict stages use weights of this task."""

    @abstractmethod
    def from_weights(self, config: Any, ensemble: Sequence[Weights]) -> pl.LightningModule:
        """Return the module for test and predict."""

    def require_match(self, config: Any, metadata: Any) -> None:  # noqa: B027 - most weights fit any data
        """Raise `InputError` if the outputs of the weights do not match the data."""

    def module_from_weights(self, config: Any, ensemble: Sequence[Weights]) -> pl.LightningModule:
        """Return the networks of checkpoints, with the preprocessing and postprocessing of their training.

        Raises
        ------
        InputError
            A network cannot be built here, or the checkpoints do not belong together.
        """
        module: Any = self.from_weights(config, ensemble)
        module.metadata = seen_by_all(module.metadata, [weights.metadata for weights in ensemble])
        return module


class Predicts(ABC):
    """Mixin of a trained task with the stage predict."""

    @abstractmethod
    def inputs(self, config: Any) -> list[Path]:
        """Return the files to predict; each is opened once, so an invalid one is found before anything is computed."""

    def list_inputs(self, config: Any) -> list[Path]:
        """Return the same files without opening them; the jobs of an array share them."""
        return self.inputs(config)

    @abstractmethod
    def require_free(self, config: Any, inputs: Sequence[Path]) -> None:
        """Raise `InputError` if predictions would overwrite other files."""

    @abstractmethod
    def predict(self, run: Run) -> None:
        """Predict every input. Finished inputs are not predicted again."""


class Plans(ABC):
    """Mixin of a task with `--plan`."""

    @abstractmethod
    def plan(self, config: Any, stages: Sequence[str], inputs: Sequence[Path]) -> None:
        """Measure a few steps of the run, and print the time and memory of the whole run."""


class Watches(ABC):  # noqa: B024 - its Work implements it
    """Mixin of a task with `--watch DIR`; `RunRequest.watch` is the folder."""


class Submits(ABC):
    """Mixin of a task without training that `--submit` can submit to SLURM."""

    @abstractmethod
    def run_path(self, config: Any) -> Path:
        """Return the folder of the run, which need not exist."""

    @abstractmethod
    def list_inputs(self, config: Any) -> list[Path]:
        """Return the inputs that the jobs of an array share."""


def absolute_path(value: Any) -> Any:
    """Return a path or glob, or a list of them, as absolute; names of shipped weights are not changed."""
    if isinstance(value, str):
        return value if value in shipped_weights() and not Path(value).exists() else str(Path(value).absolute())
    return [absolute_path(one) for one in value] if isinstance(value, list) else value
