"""Shape task and SHAPR: predict 3D shapes of cells from 2D images and masks."""

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from cytovox.errors import InputError
from cytovox.models.metadata import ShapeMetadata, SHAPRMetadata, Weights, load_network
from cytovox.models.networks import config_of
from cytovox.preprocess.shape_fields import OccupancyConfig
from datamodules.shape.datamodule import ShapeDataModule
from datamodules.shape.folder import find_inputs, read_shapes
from experiments.check import Audited
from experiments.progress import Progress, wide_console
from experiments.schema import branch
from experiments.tasks.base import Plans, Predicts, TrainedTask, UsesWeights
from experiments.tasks.shape.config import (
    SHAPE_CHOICES,
    SHAPR_CHOICES,
    ShapeConfig,
    SHAPRConfig,
    shape_errors,
    shapr_errors,
)
from experiments.tasks.shape.report import ERRORS, SCORED, shape_report
from experiments.tasks.shape.stages import predict, test
from lightning_modules.shape import Parts, ShapeModule
from lightning_modules.shape_base import MONITOR, ShapeBase
from lightning_modules.shapr import SHAPRModule
from training.rundir import RunFolder
from training.shape_files import read_note

#: Config groups that a checkpoint of the shape task stores besides its network.
PARTS = ("field", "process", "preconditioning", "traits")


class _Shapes(TrainedTask, UsesWeights, Predicts, Plans):
    """Methods that the shape task and SHAPR share."""

    monitor = MONITOR
    unit = "cell"
    paths = (
        *TrainedTask.paths,
        ("predict", "inputs"),
        ("predict", "out"),
        ("data", "root"),
        ("data", "cache_dir"),
    )
    distances: bool
    """Whether the network is trained on distances to the surface; otherwise on the object itself."""
    report = staticmethod(shape_report)
    test = staticmethod(test)
    predict = staticmethod(predict)

    def data(self, config: Any, progress: Progress | None, limit: int | None, splits: Sequence[str]) -> ShapeDataModule:
        """See `Task`."""
        return ShapeDataModule(
            config.data, config.seed, progress=progress, limit=limit, splits=splits, distances=self.distances
        )

    def inputs(self, config: Any) -> list[Path]:
        """Return the folders of the predict stage, after reading every cell in them.

        Raises
        ------
        InputError
            An invalid image or mask, or two cells of one name.
        """
        given = config.predict.inputs
        folders = [Path(folder) for folder in ([given] if isinstance(given, str) else given)]
        owner: dict[str, Path] = {}
        for folder in folders:
            cells = find_inputs(folder)
            read_shapes(cells)
            for cell in cells:
                if cell.name in owner:
                    raise InputError(
                        f"predict.inputs: {cell.name} is in {owner[cell.name]} and in {folder}: their shapes would "
                        "have the same name; predict them separately"
                    )
                owner[cell.name] = folder
        return folders

    def require_free(self, config: Any, inputs: Sequence[Path]) -> None:
        """See `Task`."""
        out = Path(config.predict.out)
        for path in (out / cell.name for folder in inputs for cell in find_inputs(folder)):
            if path.exists() and not read_note(path):
                raise InputError(
                    f"predict.out: {path}: exists already and holds no predicted shapes; choose another folder"
                )

    def prepare(self, data: ShapeDataModule, stages: Sequence[str], progress: Progress) -> None:
        """See `Task`."""
        for stage in stages:
            if stage in ("fit", "test"):
                data.setup(stage)

    def audit(self, config: Any, stages: Sequence[str], progress: Progress) -> Audited:
        """Read every cell; print notes, and one line for each invalid cell."""
        done = Audited()
        try:
            data = self.data(config, progress, None, ("train", "val", "test"))
            done.counts = {split: len(cells) for split, cells in data.find().items()}
            for note in data.notes():
                print(f"note: {note}")
        except InputError as error:
            done.errors = len(str(error).splitlines())
            print(error)
        if "predict" in stages:
            try:
                done.inputs = sum(len(find_inputs(folder)) for folder in self.inputs(config))
            except InputError:
                done.inputs = 0  # the preflight reports the error
        return done

    def plan(self, config: Any, stages: Sequence[str], inputs: Sequence[Path]) -> None:
        """See `Task`."""
        from experiments.tasks.shape.plan import ShapePlanner

        ShapePlanner(self, config, list(stages), list(inputs)).run()

    @abstractmethod
    def module(self, config: Any, metadata: Any, weights: Weights | None, key: str) -> ShapeBase:
        """Return a module with the network that the metadata describe, initialised from the weights if there are any.

        Parameters
        ----------
        config : ShapeConfig or SHAPRConfig
            Config of the run.
        metadata : ShapeMetadata or SHAPRMetadata
            Metadata of the run or of the weights.
        weights : Weights, optional
            Weights of the network.
        key : str
            Config key of the weights, for error messages.
        """

    def for_training(self, config: Any, weights: Weights | None) -> ShapeBase:
        """See `Task`."""
        return self.module(config, self.metadata(config), weights, "init_from")

    def from_weights(self, config: Any, ensemble: Sequence[Weights]) -> ShapeBase:
        """See `Task`. Shapes of several networks have no common samples, so there is no ensemble."""
        if len(ensemble) > 1:
            raise InputError("predict.checkpoint: expected one checkpoint: there is no ensemble of shapes")
        return self.module(config, ensemble[0].metadata, ensemble[0], "predict.checkpoint")

    def print_summary(self, folder: RunFolder, config: Any) -> None:
        """Print the errors of the mean shape, of a single sample and of the best of five."""
        metrics = folder.metrics()
        if "test/iou_error" not in metrics:
            return
        table = Table("errors", *ERRORS.values(), title=f"test, {int(metrics['test/cases'])} cells")
        for prefix, what in SCORED.items():
            keys = [f"test/{prefix}{name}" for name in ERRORS]
            if keys[0] in metrics:
                table.add_row(what, *(f"{metrics[key]:.3f}" if key in metrics else "" for key in keys))
        wide_console().print(table)
        if "test/volume_coverage_90" in metrics:
            print(f"true volumes inside the 90 % interval: {100 * metrics['test/volume_coverage_90']:.0f} %")

    def part(self, group: str, options: dict[str, Any]) -> Any:
        """Return the config of a group from the metadata of a checkpoint; keys of other versions are left out."""
        choice = self.choices[group]
        return config_of(branch(group, choice, str(options[choice.key])), options)


def _shared(config: ShapeConfig | SHAPRConfig) -> dict[str, Any]:
    predict = config.predict
    return {
        "optimizer": config.optimizer,
        "samples": predict.samples,
        "views": predict.views,
        "seed": config.seed,
    }


class ShapeTask(_Shapes):
    """Diffusion and flow models of shapes (DISPR and faster variants)."""

    name = "shape"
    config = ShapeConfig
    choices = SHAPE_CHOICES
    distances = True
    errors = staticmethod(shape_errors)

    def metadata(self, config: ShapeConfig) -> ShapeMetadata:
        """See `Task`."""
        parts: dict[str, Any] = {part: dataclasses.asdict(getattr(config, part)) for part in PARTS}
        return ShapeMetadata(task=config.task, model=dataclasses.asdict(config.model), **parts)

    def module(self, config: ShapeConfig, metadata: ShapeMetadata, weights: Weights | None, key: str) -> ShapeModule:
        """See `_Shapes`."""
        field, process, preconditioning, traits = (self.part(name, getattr(metadata, name)) for name in PARTS)
        network = self.part("model", metadata.model).build(
            size=field.size, outputs=preconditioning.outputs, extra_channels=traits.channels
        )
        if weights is not None:
            load_network(network, weights, key)
        sampler, validates = config.sampler, None
        if getattr(sampler, "validation_steps", None) is not None:
            validates = dataclasses.replace(sampler, steps=min(sampler.validation_steps, sampler.steps)).build()
        parts = Parts(process.build(), preconditioning.build(), config.loss.build(), sampler.build(), validates)
        # the user chooses the distribution of sampled traits; the weights determine whether the network has traits
        chosen = config.traits if config.traits.name == traits.name else traits
        return ShapeModule(
            parts, chosen.build(), network=network, metadata=metadata, field=field.build(), **_shared(config)
        )


class SHAPRTask(_Shapes):
    """SHAPR, the deterministic baseline."""

    name = "shapr"
    config = SHAPRConfig
    choices = SHAPR_CHOICES
    distances = False
    errors = staticmethod(shapr_errors)

    def metadata(self, config: SHAPRConfig) -> SHAPRMetadata:
        """See `Task`."""
        return SHAPRMetadata(task=config.task, model=dataclasses.asdict(config.model))

    def module(self, config: SHAPRConfig, metadata: SHAPRMetadata, weights: Weights | None, key: str) -> SHAPRModule:
        """See `_Shapes`."""
        model = self.part("model", metadata.model)
        network = model.build()
        if weights is not None:
            load_network(network, weights, key)
        discriminator = model.build_discriminator() if config.supervised < 1 else None
        return SHAPRModule(
            discriminator, config.loss.build(), config.supervised, network=network, metadata=metadata,
            field=OccupancyConfig().build(), **_shared(config),
        )  # fmt: skip
