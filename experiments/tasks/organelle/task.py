"""Organelle task: predict masks of organelles from tomograms."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from cytovox.errors import InputError
from cytovox.io import read_volume
from cytovox.models.metadata import OrganelleMetadata, Weights, load_network
from cytovox.models.networks import organelle_network
from cytovox.models.organelle import require_same_task
from datamodules.folder import expand
from datamodules.organelle import OrganelleDataModule
from experiments.check import Audited
from experiments.errors import ConfigErrors
from experiments.progress import Progress, wide_console
from experiments.tasks.base import Plans, Predicts, TrainedTask, UsesWeights
from experiments.tasks.device_defaults import require_compilable
from experiments.tasks.organelle.config import CHOICES, OrganelleConfig, organelle_errors, tiling
from experiments.tasks.organelle.outputs import match_outputs
from experiments.tasks.organelle.report import organelle_report
from experiments.tasks.organelle.stages import predict, test
from lightning_modules.organelle import MONITOR, OrganelleModule
from training.mask_files import require_free
from training.prediction import output_names
from training.rundir import RunFolder


class OrganelleTraining(TrainedTask):
    """Methods that the organelle task and the search task share."""

    monitor = MONITOR
    unit = "volume"
    paths = (
        *TrainedTask.paths,
        ("predict", "inputs"),
        ("predict", "out"),
        ("data", "root"),
        ("data", "cache_dir"),
    )
    report = staticmethod(organelle_report)

    def data(
        self, config: OrganelleConfig, progress: Progress | None, limit: int | None, splits: Sequence[str]
    ) -> OrganelleDataModule:
        """See `Task`."""
        return OrganelleDataModule(config.data, config.seed, progress=progress, limit=limit, splits=splits)

    def metadata(self, config: OrganelleConfig) -> OrganelleMetadata:
        """See `Task`."""
        data = config.data
        return OrganelleMetadata(
            task=config.task,
            model=dataclasses.asdict(config.model),
            organelles=list(data.organelles),
            resample=data.resample,
            resample_spacing_um=[float(s) for s in data.resample_spacing_um],
            resample_grid=[int(n) for n in data.resample_grid],
            ri_range=[float(v) for v in data.ri_range],
            patch_size=[int(p) for p in data.patch_size],
        )

    def require_device(self, config: OrganelleConfig) -> None:
        """See `Task`."""
        require_compilable(config.predict.compile, config.trainer.accelerator, "predict.compile")

    def audit(self, config: OrganelleConfig, stages: Sequence[str], progress: Progress) -> Audited:
        """See `Task`."""
        from experiments.tasks.organelle.audit import audit_data

        return audit_data(config, stages, progress)

    def print_summary(self, folder: RunFolder, config: OrganelleConfig) -> None:
        """Print the Dice of every organelle, for each cell line and for the best single window of refractive index."""
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
    errors = staticmethod(organelle_errors)
    test = staticmethod(test)
    predict = staticmethod(predict)

    def for_training(self, config: OrganelleConfig, weights: Weights | None) -> OrganelleModule:
        """See `Task`."""
        metadata = self.metadata(config)
        network = config.model.build(1, len(metadata.organelles))
        notes: list[str] = []
        if weights is not None:
            weights, notes = match_outputs(weights, network, config.model.build, metadata.organelles)
            load_network(network, weights, "init_from")
        windows, loss = tiling(config, metadata.patch_size), config.loss.build()
        module = OrganelleModule(network, metadata, windows, loss, config.optimizer, config.predict.threshold)
        module.notes = notes
        return module

    def from_weights(self, config: OrganelleConfig, ensemble: Sequence[Weights]) -> OrganelleModule:
        """Return the networks of checkpoints, with the grid and normalisation they were trained with.

        Parameters
        ----------
        config : OrganelleConfig
            Config with the windows and the threshold.
        ensemble : sequence of Weights
            One or more; the probabilities of several are averaged.

        Raises
        ------
        InputError
            A network cannot be built here or does not accept the config's windows, or the checkpoints do not belong
            together.
        """
        first, predict = ensemble[0], config.predict
        for other in ensemble[1:]:
            require_same_task(first, other, "predict.checkpoint")
        windows = tiling(config, first.metadata.patch_size)
        networks = [organelle_network(weights, windows.window, "predict.checkpoint") for weights in ensemble]
        return OrganelleModule(
            networks[0], first.metadata, windows, threshold=predict.threshold, ensemble_members=networks[1:],
            flips=predict.flips, memory_gb=predict.memory_gb, compile=predict.compile,
        )  # fmt: skip

    def require_match(self, config: OrganelleConfig, metadata: OrganelleMetadata) -> None:
        """Raise `InputError` if the weights predict other organelles than the masks show, or in another order."""
        wanted, given = list(config.data.organelles), list(metadata.organelles)
        if wanted != given:
            raise InputError(
                f"data.organelles: the weights predict {', '.join(given)}, but this config asks for "
                f"{', '.join(wanted)}; make them the same"
            )

    def inputs(self, config: OrganelleConfig) -> list[Path]:
        """See `Task`."""
        inputs, predict, errors = self.list_inputs(config), config.predict, []
        if predict.shard is not None:
            return inputs  # each of many thousands of files is checked when it is read
        spacing: Any = tuple(predict.spacing_um) if predict.spacing_um is not None else None
        for path in inputs:
            try:
                read_volume(path, spacing, predict.spacing_from, predict.series)
            except InputError as error:
                errors.append(str(error))
        if errors:
            raise ConfigErrors(errors)
        return inputs

    def list_inputs(self, config: OrganelleConfig) -> list[Path]:
        """See `Task`."""
        inputs = expand(config.predict.inputs, Path(), "predict.inputs")
        output_names(inputs)
        return inputs

    def require_free(self, config: OrganelleConfig, inputs: Sequence[Path]) -> None:
        """See `Task`."""
        if config.predict.out is not None:
            require_free(Path(config.predict.out), output_names(list(inputs)), config.predict.format)

    def plan(self, config: OrganelleConfig, stages: Sequence[str], inputs: Sequence[Path]) -> None:
        """See `Task`."""
        from experiments.tasks.organelle.plan import OrganellePlanner

        OrganellePlanner(self, config, list(stages), list(inputs)).run()
