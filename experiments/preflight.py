"""Check a run before it starts: all errors at once, and nothing is written."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from cytovox.inference.device import require_supported_gpu
from cytovox.models.metadata import load_network, read_checkpoint
from experiments.errors import ConfigErrors
from experiments.schema import Config
from experiments.weights import find_weights, read_weights
from training.rundir import RunFolder
from training.slurm import require_srun
from training.trainer import checkpoint_path, require_divisible
from training.wandb_log import wandb_mode


def preflight(
    task: Any, config: Config, stages: list[str], folder: RunFolder | None, dry_run: bool = False
) -> list[Path]:
    """Check device, inputs, weights and run folder before anything is computed or written.

    Parameters
    ----------
    task : TrainedTask
        Task of the run.
    config : Config
        Config of the run.
    stages : list of str
        Stages to do.
    folder : RunFolder, optional
        Folder of a resumed run.
    dry_run : bool
        Do not check the W&B key.

    Returns
    -------
    list of Path
        Files of the predict stage.

    Raises
    ------
    ConfigErrors
        One line per error.
    """
    inputs: list[Path] = []
    errors: list[str] = []

    def look(check: Callable[..., object], *arguments: Any) -> None:
        try:
            check(*arguments)
        except InputError as error:
            errors.extend(str(error).splitlines())

    look(require_supported_gpu, config.trainer.accelerator)
    look(task.require_device, config)
    look(require_srun)
    if "fit" in stages:
        look(require_divisible, config.trainer, config.data.batch_size)
    if "predict" in stages:
        look(lambda: inputs.extend(task.inputs(config)))
        if config.predict.out is not None:
            look(require_room, Path(config.predict.out), "predict.out")
            look(task.require_free, config, inputs)
    if folder is None:
        look(require_room, Path(config.runs_dir) / config.name, "runs_dir")
    if not dry_run:
        look(wandb_mode, config.logging.wandb)
    look(_require_weights, task, config, stages, folder)
    if errors:
        raise ConfigErrors(errors)
    return inputs


def require_room(path: Path, key: str) -> None:
    """Refuse a folder that cannot be created or written to, without creating it.

    Parameters
    ----------
    path : Path
        The folder.
    key : str
        Config key that chooses it, for the message.

    Raises
    ------
    InputError
        Its nearest existing parent is no folder, or cannot be written to.
    """
    above = path.absolute()
    try:
        above = next(p for p in (above, *above.parents) if p.exists() or p.is_symlink())
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise InputError(
            f"{key}: {path}: cannot be written in {above} ({error.strerror or error}); choose another with {key}="
        ) from None


def _require_weights(task: Any, config: Config, stages: list[str], folder: RunFolder | None) -> None:
    """Read the weights that the first stage starts with, and refuse those that do not fit the config."""
    task.require_ready(stages, folder)
    if "fit" not in stages:
        if stages and hasattr(task, "from_weights"):
            weights = read_weights(config, find_weights(config, folder, task.monitor).paths)
            task.module_from_weights(config, weights)
            if "test" in stages:
                task.require_match(config, weights[0].metadata)
        return
    last = checkpoint_path(folder) if folder is not None else None
    if last is not None:
        module: Any = task.module_for_training(config, start=False)
        begun = read_checkpoint(last, config.task, "resume")
        task.require_same(config, begun.metadata)
        load_network(module.network, begun, "resume")
    elif config.init_from is not None:
        task.module_for_training(config)
