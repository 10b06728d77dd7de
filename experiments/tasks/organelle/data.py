"""What an organelle run reads: its cases, and the tomograms to predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from cytovox.io import read_volume
from datamodules.cases import Case, FolderCase
from datamodules.folder import expand
from datamodules.loading import Progress
from datamodules.organelle import OrganelleDataModule
from experiments.errors import ConfigErrors
from experiments.tasks.organelle.config import OrganelleConfig
from training.prediction import output_names


def build_data(
    config: OrganelleConfig, progress: Progress | None, limit: int | None, splits: Sequence[str]
) -> OrganelleDataModule:
    """The data module, for these splits."""
    return OrganelleDataModule(config.data, config.seed, progress=progress, limit=limit, splits=splits)


def find_inputs(config: OrganelleConfig) -> list[Path]:
    """Files of the predict stage, each opened once: a broken one is found before anything is computed."""
    inputs = list_inputs(config)
    if config.predict.shard is not None:
        return inputs  # one of thousands may be broken, and is reported when it is read
    spacing: Any = tuple(config.predict.spacing_um) if config.predict.spacing_um is not None else None
    errors = []
    for path in inputs:
        try:
            read_volume(path, spacing, config.predict.spacing_from, config.predict.series)
        except InputError as error:
            errors.append(str(error))
    if errors:
        raise ConfigErrors(errors)
    return inputs


def list_inputs(config: OrganelleConfig) -> list[Path]:
    """The same files, not looked at."""
    inputs = expand(config.predict.inputs, Path(), "predict.inputs")
    output_names(inputs)
    return inputs


def check_test(cases: Sequence[Case], progress: Progress) -> None:
    """Read every test case.

    Raises
    ------
    InputError
        Anything wrong with a tomogram or its masks, or no case at all.
    """
    if not cases:
        raise InputError(
            "data: no volume to test on; give a share to data.split.test (or a count to data.test), or leave out "
            "the test stage"
        )
    for done, case in enumerate(cases, start=1):
        if isinstance(case, FolderCase):
            case.load()
            progress("checking test volumes", done, len(cases))


def prepare(data: OrganelleDataModule, stages: Sequence[str], progress: Progress) -> None:
    """Find or simulate the cases and fill the cache: the training begins only when every file was read.

    Raises
    ------
    InputError
        Anything wrong with a tomogram or its masks.
    """
    cases = data.find()
    if "test" in stages:
        check_test(cases["test"], progress)
    if "fit" in stages:
        data.prepare_data()
