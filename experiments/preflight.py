"""What can be told before a run begins: every fault at once, and nothing written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datamodules.cases import FolderCase
from datamodules.folder import expand
from datamodules.organelle import OrganelleDataModule
from experiments.build import build_for_training, build_from_weights, find_weights, read_weights, require_organelles
from experiments.config import Config, ConfigFaults
from experiments.progress import Bars
from formats import read_volume
from formats.errors import InputError
from lightning_modules.facts import load_network, read_checkpoint
from training.device import require_supported_gpu
from training.mask_notes import require_free
from training.prediction import output_names
from training.rundir import RunFolder
from training.trainer import checkpoint_path
from training.wandb_log import wandb_mode


def preflight(config: Config, stages: list[str], folder: RunFolder | None, dry_run: bool = False) -> list[Path]:
    """Look at the device, the inputs, the weights and the run folder before anything is computed or written.

    Parameters
    ----------
    config : Config
        The run's.
    stages : list of str
        The stages that are still to be done.
    folder : RunFolder, optional
        Of a resumed run.
    dry_run : bool
        Whether W&B is left out.

    Returns
    -------
    list of Path
        Files of the predict stage.

    Raises
    ------
    ConfigFaults
        All that was found, one line each.
    """
    inputs: list[Path] = []
    faults: list[str] = []

    def look(check: Callable[[], None]) -> None:
        try:
            check()
        except InputError as fault:
            faults.extend(str(fault).splitlines())

    look(lambda: require_supported_gpu(config.trainer.accelerator))
    if "predict" in stages:
        look(lambda: inputs.extend(_inputs(config)))
        if config.predict.out is not None:
            out = Path(config.predict.out)
            look(lambda: require_room(out, "predict.out"))
            look(lambda: require_free(out, output_names(inputs), config.predict.format))
    if folder is None:
        look(lambda: require_room(Path(config.runs_dir) / config.name, "runs_dir"))
    if not dry_run:
        look(lambda: _require_key(config))
    look(lambda: _require_weights(config, stages, folder))
    if faults:
        raise ConfigFaults(faults)
    return inputs


def _inputs(config: Config) -> list[Path]:
    """Files of the predict stage, each opened once: a broken one is found before anything is computed."""
    inputs = expand(config.predict.inputs, Path(), "predict.inputs")
    spacing: Any = tuple(config.predict.spacing_um) if config.predict.spacing_um is not None else None
    faults = []
    for path in inputs:
        try:
            read_volume(path, spacing_um=spacing)
        except InputError as fault:
            faults.append(str(fault))
    if faults:
        raise ConfigFaults(faults)
    output_names(inputs)
    return inputs


def require_room(path: Path, key: str) -> None:
    """Refuse a folder that cannot be made or written to, without making it.

    Parameters
    ----------
    path : Path
        The folder.
    key : str
        Config key that chooses it, for the message.

    Raises
    ------
    InputError
        The nearest folder above it that exists is a file, or takes no files.
    """
    above = path.absolute()
    try:
        above = next(p for p in (above, *above.parents) if p.exists() or p.is_symlink())
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as fault:
        raise InputError(
            f"{key}: {path}: cannot be written in {above} ({fault.strerror or fault}); choose another with {key}="
        ) from None


def _require_key(config: Config) -> None:
    wandb_mode(config.logging.wandb)


def _require_weights(config: Config, stages: list[str], folder: RunFolder | None) -> None:
    """Read the weights that the first stage begins with."""
    if "fit" not in stages:
        if stages:
            weights = read_weights(config, find_weights(config, folder))
            build_from_weights(config, weights)
            if "test" in stages:
                require_organelles(config, weights[0].facts)
        return
    last = checkpoint_path(folder) if folder is not None else None
    if last is not None:
        load_network(
            build_for_training(config, start=False).network, read_checkpoint(last, config.task, "resume"), "resume"
        )
    elif config.init_from is not None:
        build_for_training(config)


def prepare(config: Config, data: OrganelleDataModule, stages: list[str], bars: Bars) -> None:
    """Find or simulate the cases and fill the cache: the training begins only when every file was read.

    Raises
    ------
    InputError
        Anything wrong with a tomogram or its masks.
    """
    cases = data.find()
    if "test" in stages:
        if not cases["test"]:
            raise InputError(
                "data: no volume to test on; give a share to data.split.test (or a count to data.test), or leave out "
                "the test stage"
            )
        for done, case in enumerate(cases["test"], start=1):
            if isinstance(case, FolderCase):
                case.load()
                bars("checking test volumes", done, len(cases["test"]))
    if "fit" in stages:
        data.prepare_data()
