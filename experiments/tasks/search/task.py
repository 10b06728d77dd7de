"""Search task: find a genotype with a supernet, and train the resulting network from scratch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from cytovox.models.metadata import SearchMetadata, Weights
from cytovox.networks.supernet import Supernet
from cytovox.plots.genotype import search_figure
from datamodules.search import SearchDataModule
from experiments.progress import Progress
from experiments.report.parts import drawn, picture, sections
from experiments.tasks.organelle.config import tiling
from experiments.tasks.organelle.report import organelle_report
from experiments.tasks.organelle.task import OrganelleTraining
from experiments.tasks.search.config import CHOICES, SearchTaskConfig, search_task_errors
from experiments.tasks.search.stages import GENOTYPE, RETRAINED, derive, retrain
from lightning_modules.search import SearchModule, search_measure
from training.rundir import RunFolder, read_json

#: Metadata that must not change when a search is resumed: the config key of each, and what it determines.
_OF_A_SEARCH = {
    "operations": ("search.operations", "search space"), "model": ("model", "search space"),
    "cost_measure": ("search.cost.measure", "cost"), "patch_size": ("data.patch_size", "cost"),
}  # fmt: skip


class SearchTask(OrganelleTraining):
    """See `TrainedTask`. Data and scores are those of the organelle task."""

    name = "search"
    config = SearchTaskConfig
    choices = CHOICES
    errors = staticmethod(search_task_errors)
    on_fit_end = staticmethod(derive)
    test = staticmethod(retrain)

    def require_ready(self, stages: Sequence[str], folder: RunFolder | None) -> None:
        """See `TrainedTask`. The test stage needs the genotype of a search.

        Raises
        ------
        InputError
            The test stage without a search.
        """
        if "fit" not in stages and stages and (folder is None or not (folder.path / GENOTYPE).is_file()):
            raise InputError(
                "stages: test trains what a search has found; add the stage fit, or resume=RUN of a search"
            )

    def data(
        self, config: Any, progress: Progress | None, limit: int | None, splits: Sequence[str]
    ) -> SearchDataModule:
        """See `TrainedTask`. A dry run has two training volumes, one for each half."""
        data = SearchDataModule(config.data, config.seed, progress=progress, limit=limit and limit + 1, splits=splits)
        data.joint = config.search.joint
        return data

    def metadata(self, config: Any) -> SearchMetadata:
        """See `TrainedTask`."""
        shared, search = vars(super().metadata(config)), config.search
        return SearchMetadata(**shared, operations=list(search.operations), cost_measure=search_measure(search))

    def require_same(self, config: Any, metadata: SearchMetadata) -> None:
        """See `TrainedTask`.

        Raises
        ------
        InputError
            The checkpoint's search has other networks or another cost.
        """
        mine = self.metadata(config)
        for name, (key, what) in _OF_A_SEARCH.items():
            begun, wanted = getattr(metadata, name), getattr(mine, name)
            if begun != wanted:
                raise InputError(
                    f"{key}: cannot resume: the checkpoint's {what} differs: {begun} there, {wanted} here; make them "
                    "the same, or start a new search"
                )

    def for_training(self, config: Any, weights: Weights | None) -> SearchModule:
        """See `TrainedTask`."""
        metadata = self.metadata(config)
        network = Supernet(1, len(metadata.organelles), config.model, metadata.operations)
        windows, threshold = tiling(config, metadata.patch_size), config.predict.threshold
        loss = config.loss.build()
        return SearchModule(network, metadata, windows, loss, config.optimizer, config.search, config.seed, threshold)

    def report(self, folder: Path) -> dict[str, Any]:
        """See `Task`."""
        parts = [("genotype", "Genotype"), ("scores", "Scores"), ("cases", "Cases"), ("training", "Training")]
        return {
            **organelle_report(folder / RETRAINED),
            "sections": {**sections("organelle", "Masks", "µm"), "scores": "search_scores.html", "parts": parts},
            "genotype": picture(folder / "figures" / "genotype.png"),
            "course": drawn(folder / "figures" / "search.png", folder / "metrics.csv", search_figure),
            "found": read_json(folder / "metrics.json"),
        }

    def prepare(self, data: Any, stages: Sequence[str], progress: Progress) -> None:
        """See `TrainedTask`. The test cases are read before the search, so that an invalid one is found first."""
        if "fit" in stages:
            data.require_both_halves()
        super().prepare(data, stages, progress)

    def print_summary(self, folder: RunFolder, config: Any) -> None:
        """Print the genotype, its cost and its scores."""
        metrics = folder.metrics()
        if "search/cost_derived" in metrics:
            share = metrics["search/cost_derived"] / metrics["search/cost_published"]
            print(f"genotype: {folder.path / GENOTYPE} ({share:.0%} of the published one's cost)")
        super().print_summary(folder, config)
        if (retrained := folder.path / RETRAINED).is_dir():
            print(f"retrained: {retrained}")
