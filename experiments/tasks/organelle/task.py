"""The organelle task: tomograms in, masks of organelles out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from cytovox.models.metadata import OrganelleMetadata, Weights
from datamodules.organelle import OrganelleDataModule
from experiments.check import Audited
from experiments.progress import Progress, wide_console
from experiments.stages import Run
from experiments.tasks.base import Plans, Predicts, TrainedTask, UsesWeights
from experiments.tasks.device_defaults import require_compilable
from experiments.tasks.organelle import build, stages
from experiments.tasks.organelle import data as organelle_data
from experiments.tasks.organelle.config import CHOICES, OrganelleConfig, organelle_errors
from experiments.tasks.organelle.report import organelle_report
from lightning_modules.organelle import MONITOR, OrganelleModule
from training.mask_files import require_free
from training.prediction import output_names
from training.rundir import RunFolder


class OrganelleTraining(TrainedTask):
    """What the organelle task and the search of its network share."""

    monitor = MONITOR
    unit = "volume"
    paths = (
        *TrainedTask.paths,
        ("predict", "inputs"),
        ("predict", "out"),
        ("data", "root"),
        ("data", "cache_dir"),
    )

    def data(
        self, config: OrganelleConfig, progress: Progress | None, limit: int | None, splits: Sequence[str]
    ) -> OrganelleDataModule:
        """See `Task`."""
        return organelle_data.build_data(config, progress, limit, splits)

    def report(self, folder: Path) -> dict[str, Any]:
        """See `Task`."""
        return organelle_report(folder)

    def require_device(self, config: OrganelleConfig) -> None:
        """See `Task`."""
        require_compilable(config.predict.compile, config.trainer.accelerator, "predict.compile")

    def prepare(self, data: OrganelleDataModule, stages: Sequence[str], progress: Progress) -> None:
        """See `Task`."""
        organelle_data.prepare(data, stages, progress)

    def audit(self, config: OrganelleConfig, stages: Sequence[str], progress: Progress) -> Audited:
        """See `Task`."""
        from experiments.tasks.organelle.audit import audit_data

        return audit_data(config, stages, progress)

    def print_summary(self, folder: RunFolder, config: OrganelleConfig) -> None:
        """Dice of every organelle, line by line, beside the best single window of refractive index."""
        metrics = folder.metrics()
        per_line = (k.split("/") for k in metrics if k.startswith("test/") and k.endswith("/dice_mean"))
        lines = sorted(parts[1] for parts in per_line if len(parts) == 3)
        lines = lines if len(lines) > 1 else []
        scored = [name for name in (*config.data.organelles, "mean") if f"test/dice_{name}" in metrics]
        if scored:
            table = Table("Dice", "all", *map(escape, lines), "best single RI window", title="test")
            for name in scored:
                keys = [f"test/dice_{name}", *(f"test/{line}/dice_{name}" for line in lines)]
                keys.append(f"test/window_dice_{name}")
                table.add_row(name, *(f"{metrics[key]:.3f}" if key in metrics else "" for key in keys))
            wide_console().print(table)


class OrganelleTask(OrganelleTraining, UsesWeights, Predicts, Plans):
    """See `TrainedTask`."""

    name = "organelle"
    config = OrganelleConfig
    choices = CHOICES

    def errors(self, config: OrganelleConfig) -> list[str]:
        """See `Task`."""
        return organelle_errors(config)

    def metadata(self, config: OrganelleConfig) -> OrganelleMetadata:
        """See `Task`."""
        return build.metadata_of(config)

    def for_training(self, config: OrganelleConfig, weights: Weights | None) -> OrganelleModule:
        """See `Task`."""
        return build.build_for_training(config, weights)

    def from_weights(self, config: OrganelleConfig, ensemble: Sequence[Weights]) -> OrganelleModule:
        """See `Task`."""
        return build.build_from_weights(config, ensemble)

    def require_match(self, config: OrganelleConfig, metadata: OrganelleMetadata) -> None:
        """See `Task`."""
        build.require_organelles(config, metadata)

    def inputs(self, config: OrganelleConfig) -> list[Path]:
        """See `Task`."""
        return organelle_data.find_inputs(config)

    def list_inputs(self, config: OrganelleConfig) -> list[Path]:
        """See `Task`."""
        return organelle_data.list_inputs(config)

    def require_free(self, config: OrganelleConfig, inputs: Sequence[Path]) -> None:
        """See `Task`."""
        if config.predict.out is not None:
            require_free(Path(config.predict.out), output_names(list(inputs)), config.predict.format)

    def test(self, run: Run) -> None:
        """See `Task`."""
        stages.test(run)

    def predict(self, run: Run) -> None:
        """See `Task`."""
        stages.predict(run)

    def plan(self, config: OrganelleConfig, stages: Sequence[str], inputs: Sequence[Path]) -> None:
        """See `Task`."""
        from experiments.tasks.organelle.plan import plan, plan_card

        if config.plan.device is not None:
            plan_card(config, stages)
        else:
            plan(config, stages, inputs)
