"""The shape task and SHAPR: an image and its mask in, 3D shapes out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from cytovox.errors import InputError
from cytovox.models.metadata import ShapeMetadata, SHAPRMetadata, Weights
from datamodules.shape.datamodule import ShapeDataModule
from datamodules.shape.folder import find_inputs as find_folder
from experiments.check import Audited
from experiments.planning.card import plan_on_card
from experiments.progress import Progress, wide_console
from experiments.stages import Run
from experiments.tasks.base import Plans, Predicts, TrainedTask, UsesWeights
from experiments.tasks.shape import build, stages
from experiments.tasks.shape.config import (
    SHAPE_CHOICES,
    SHAPR_CHOICES,
    ShapeConfig,
    SHAPRConfig,
    shape_errors,
    shapr_errors,
)
from experiments.tasks.shape.plan import ShapePlanner, fake_cells
from experiments.tasks.shape.report import shape_report
from lightning_modules.shape_base import MONITOR, ShapeBase
from training.rundir import RunFolder
from training.shape_files import read_note

#: Rows of the summary: what is printed for which errors.
SCORED = {"mean shape": "", "single sample": "single/", "best of 5": "best_of_5/"}
ERRORS = {"1 - IoU": "iou_error", "volume": "volume_error", "surface": "surface_error", "roughness": "roughness_error"}


class _Shapes(TrainedTask, UsesWeights, Predicts, Plans):
    """What the shape task and SHAPR have in common."""

    monitor = MONITOR
    unit = "cell"
    paths = (
        *TrainedTask.paths,
        ("predict", "inputs"),
        ("predict", "out"),
        ("data", "root"),
        ("data", "cache_dir"),
    )

    def data(self, config: Any, progress: Progress | None, limit: int | None, splits: Sequence[str]) -> ShapeDataModule:
        """See `Task`."""
        return build.build_data(config, progress, limit, splits)

    def inputs(self, config: Any) -> list[Path]:
        """See `Task`."""
        return build.find_inputs(config.predict)

    def require_free(self, config: Any, inputs: Sequence[Path]) -> None:
        """See `Task`."""
        out = Path(config.predict.out)
        for folder in inputs:
            for cell in find_folder(folder):
                there = out / cell.name
                if there.exists() and not read_note(there):
                    raise InputError(
                        f"predict.out: {there}: is there already and holds no shapes of ours; choose another folder"
                    )

    def report(self, folder: Path) -> dict[str, Any]:
        """See `Task`."""
        return shape_report(folder)

    def prepare(self, data: ShapeDataModule, stages: Sequence[str], progress: Progress) -> None:
        """See `Task`."""
        for stage in stages:
            if stage in ("fit", "test"):
                data.setup(stage)

    def audit(self, config: Any, stages: Sequence[str], progress: Progress) -> Audited:
        """Read every cell; print one line for each that cannot be used, and notes."""
        done = Audited()
        try:
            data = build.build_data(config, progress, None, ("train", "val", "test"))
            done.counts = {split: len(cells) for split, cells in data.find().items()}
            for note in data.notes():
                print(f"note: {note}")
        except InputError as error:
            done.errors = len(str(error).splitlines())
            print(error)
        if "predict" in stages:
            try:
                done.inputs = sum(len(find_folder(folder)) for folder in build.find_inputs(config.predict))
            except InputError:
                done.inputs = 0  # the preflight tells why
        return done

    def plan(self, config: Any, stages: Sequence[str], inputs: Sequence[Path]) -> None:
        """See `Task`."""
        if config.plan.device is not None:
            plan_on_card(config, lambda chosen: self.for_training(chosen, None), fake_cells, list(stages))
            return
        planner = ShapePlanner(
            config,
            lambda splits: build.build_data(config, None, None, splits),
            lambda: self.for_training(config, None),
            lambda ensemble: self.from_weights(config, ensemble),
        )
        planner(stages, inputs)

    @abstractmethod
    def for_training(self, config: Any, weights: Weights | None) -> ShapeBase:
        """See `Task`."""

    @abstractmethod
    def from_weights(self, config: Any, ensemble: Sequence[Weights]) -> ShapeBase:
        """See `Task`."""

    def test(self, run: Run) -> None:
        """See `Task`."""
        stages.test(run)

    def predict(self, run: Run) -> None:
        """See `Task`."""
        stages.predict(run)

    def print_summary(self, folder: RunFolder, config: Any) -> None:
        """Errors of the mean shape, of a single sample and of the best of five."""
        metrics = folder.metrics()
        if "test/iou_error" not in metrics:
            return
        table = Table("errors", *ERRORS, title=f"test, {int(metrics['test/cases'])} cells")
        for what, prefix in SCORED.items():
            keys = [f"test/{prefix}{name}" for name in ERRORS.values()]
            if keys[0] in metrics:
                table.add_row(what, *(f"{metrics[key]:.3f}" if key in metrics else "" for key in keys))
        wide_console().print(table)
        if "test/volume_coverage_90" in metrics:
            print(f"true volumes inside the 90 % interval: {100 * metrics['test/volume_coverage_90']:.0f} %")


class ShapeTask(_Shapes):
    """DISPR and its faster kin."""

    name = "shape"
    config = ShapeConfig
    choices = SHAPE_CHOICES

    def errors(self, config: ShapeConfig) -> list[str]:
        """See `Task`."""
        return shape_errors(config)

    def metadata(self, config: ShapeConfig) -> ShapeMetadata:
        """See `Task`."""
        return build.shape_metadata(config)

    def for_training(self, config: ShapeConfig, weights: Weights | None) -> ShapeBase:
        """See `Task`."""
        return build.shape_module(config, build.shape_metadata(config), weights, "init_from")

    def from_weights(self, config: ShapeConfig, ensemble: Sequence[Weights]) -> ShapeBase:
        """See `Task`."""
        weights = build.only(ensemble)
        return build.shape_module(config, weights.metadata, weights, "predict.checkpoint")


class SHAPRTask(_Shapes):
    """SHAPR, the deterministic baseline."""

    name = "shapr"
    config = SHAPRConfig
    choices = SHAPR_CHOICES

    def errors(self, config: SHAPRConfig) -> list[str]:
        """See `Task`."""
        return shapr_errors(config)

    def metadata(self, config: SHAPRConfig) -> SHAPRMetadata:
        """See `Task`."""
        return build.shapr_metadata(config)

    def for_training(self, config: SHAPRConfig, weights: Weights | None) -> ShapeBase:
        """See `Task`."""
        return build.shapr_module(config, build.shapr_metadata(config), weights, "init_from")

    def from_weights(self, config: SHAPRConfig, ensemble: Sequence[Weights]) -> ShapeBase:
        """See `Task`."""
        weights = build.only(ensemble)
        return build.shapr_module(config, weights.metadata, weights, "predict.checkpoint")
