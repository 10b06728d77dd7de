"""Which weights a run takes, by what its config and its folder say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.schema import Config
from formats.errors import InputError
from lightning_modules.facts import Weights, read_checkpoint
from networks.weights import DEFAULTS, shipped_weights
from training.rundir import RunFolder, newest_run


def weights_path(given: str, key: str) -> Path:
    """A .ckpt or .safetensors file, the best (else last) checkpoint of a run folder, or weights that are shipped.

    Raises
    ------
    InputError
        A folder without a checkpoint, or nothing there.
    """
    path = Path(given)
    if path.is_dir():
        found = RunFolder(path).weights()
        if found is None:
            raise InputError(f"{key}: {path}: no checkpoints/best.ckpt or last.ckpt in it; give a run that was trained")
        return found
    if path.is_file():
        return path
    shipped = shipped_weights()
    if given in shipped:
        return shipped[given]
    raise InputError(
        f"{key}: {path}: no such checkpoint; expected a .ckpt file, a run folder that has one, or shipped weights "
        f"({', '.join(shipped) or 'none in this installation'})"
    )


def find_weights(config: Config, folder: RunFolder | None) -> list[Path]:
    """Weights for test and predict; more than one are an ensemble.

    In this order: just trained; named in the config; this run's; `init_from`; the newest run's of the same name;
    those that come with Cytovox.

    Raises
    ------
    InputError
        There are none, or one that is named is not there.
    """
    own = folder.weights() if folder is not None else None
    if "fit" in config.stages and own is not None:
        return [own]
    named = config.predict.checkpoint
    if named:
        chosen = [weights_path(one, "predict.checkpoint") for one in ([named] if isinstance(named, str) else named)]
        if len({path.resolve() for path in chosen}) < len(chosen):
            raise InputError("predict.checkpoint: the same checkpoint is named twice")
        return chosen
    if own is not None:
        return [own]
    if config.init_from is not None:
        return [weights_path(config.init_from, "init_from")]
    newest = newest_run(Path(config.runs_dir), config.name)
    if newest is not None and (found := newest.weights()) is not None:
        return [found]
    shipped = shipped_weights().get(DEFAULTS.get(config.task, ""))
    if shipped is not None:
        return [shipped]
    raise InputError(
        f"predict.checkpoint: no weights: none named, none in this run, no earlier run in "
        f"{config.runs_dir}/{config.name}, and none shipped for task {config.task}; give "
        "predict.checkpoint=RUN_FOLDER, or train with stages=[fit,test]"
    )


def read_weights(config: Config, paths: Sequence[Path]) -> list[Weights]:
    """Checkpoints of the config's task.

    Raises
    ------
    InputError
        One cannot be read, or is of another task.
    """
    return [read_checkpoint(path, config.task, "predict.checkpoint") for path in paths]
