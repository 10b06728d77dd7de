"""The search task: a genotype out of a supernet, and the network that it builds, trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from cytovox.models.metadata import SearchMetadata, Weights
from cytovox.networks.supernet import Supernet
from datamodules.search import SearchDataModule
from experiments.progress import Progress
from experiments.stages import Run
from experiments.tasks.organelle import data as organelle_data
from experiments.tasks.organelle.build import metadata_of
from experiments.tasks.organelle.config import tiling
from experiments.tasks.organelle.task import OrganelleTraining
from experiments.tasks.search import stages as search_stages
from experiments.tasks.search.config import CHOICES, SearchTaskConfig, search_task_errors
from experiments.tasks.search.report import search_report
from lightning_modules.search import SearchModule, search_measure
from training.rundir import RunFolder

#: CheckpointMetadata that a search keeps to its end: the key of each, and what it is of.
_OF_A_SEARCH = {
    "operations": ("search.operations", "search space"), "model": ("model", "search space"),
    "cost_measure": ("search.cost.measure", "cost"), "patch_size": ("data.patch_size", "cost"),
}  # fmt: skip


class SearchTask(OrganelleTraining):
    """See `TrainedTask`. Data and scores are those of the organelle task."""

    name = "search"
    config = SearchTaskConfig
    choices = CHOICES

    def require_ready(self, stages: Sequence[str], folder: RunFolder | None) -> None:
        """See `Task`. What is trained again must have been found.

        Raises
        ------
        InputError
            The test stage without a search.
        """
        if "fit" not in stages and stages and (folder is None or not (folder.path / search_stages.GENOTYPE).is_file()):
            raise InputError(
                "stages: test trains what a search has found; add the stage fit, or resume=RUN of a search"
            )

    def errors(self, config: Any) -> list[str]:
        """See `Task`."""
        return search_task_errors(config)

    def data(
        self, config: Any, progress: Progress | None, limit: int | None, splits: Sequence[str]
    ) -> SearchDataModule:
        """See `Task`. Of a dry run two volumes, one for each half."""
        data = SearchDataModule(config.data, config.seed, progress=progress, limit=limit and limit + 1, splits=splits)
        data.joint = config.search.joint
        return data

    def metadata(self, config: Any) -> SearchMetadata:
        """See `Task`."""
        shared, search = vars(metadata_of(config)), config.search
        return SearchMetadata(**shared, operations=list(search.operations), cost_measure=search_measure(search))

    def require_same(self, config: Any, metadata: SearchMetadata) -> None:
        """See `Task`.

        Raises
        ------
        InputError
            Other networks, or other costs, are looked at.
        """
        mine = self.metadata(config)
        for name, (key, what) in _OF_A_SEARCH.items():
            begun, asked = getattr(metadata, name), getattr(mine, name)
            if begun != asked:
                raise InputError(
                    f"{key}: cannot resume: the checkpoint's {what} differs: {begun} there, {asked} here; make them "
                    "the same, or start a new search"
                )

    def for_training(self, config: Any, weights: Weights | None) -> SearchModule:
        """See `Task`."""
        metadata = self.metadata(config)
        network = Supernet(1, len(metadata.organelles), config.model, metadata.operations)
        windows, threshold = tiling(config, metadata.patch_size), config.predict.threshold
        loss = config.loss.build()
        return SearchModule(network, metadata, windows, loss, config.optimizer, config.search, config.seed, threshold)

    def report(self, folder: Path) -> dict[str, Any]:
        """See `Task`."""
        return search_report(folder)

    def prepare(self, data: Any, stages: Sequence[str], progress: Progress) -> None:
        """See `Task`. The test cases are read before the search begins: a broken one must not be found hours later."""
        if "fit" in stages:
            data.require_both_halves()
        organelle_data.prepare(data, stages, progress)

    def on_fit_end(self, run: Run, module: SearchModule) -> None:
        """See `Task`."""
        search_stages.derive(run, module)

    def test(self, run: Run) -> None:
        """Train the searched network from scratch, and score it on the test cases."""
        search_stages.retrain(run)

    def print_summary(self, folder: RunFolder, config: Any) -> None:
        """What was found, what it costs, and how good it is."""
        metrics = folder.metrics()
        if "search/cost_derived" in metrics:
            share = metrics["search/cost_derived"] / metrics["search/cost_published"]
            print(f"genotype: {folder.path / search_stages.GENOTYPE} ({share:.0%} of the published one's cost)")
        super().print_summary(folder, config)
        if (retrained := Path(folder.path / search_stages.RETRAINED)).is_dir():
            print(f"retrained: {retrained}")
