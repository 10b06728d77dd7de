"""Choose the weights of a run, by its config and its folder."""

import contextlib
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cytovox.errors import InputError
from cytovox.models.load import weights_path
from cytovox.models.metadata import Weights, read_checkpoint
from cytovox.networks.weights import shipped_weights
from experiments.schema import Config
from training.rundir import RunFolder, newest_run


@dataclass(frozen=True)
class Found:
    """Weights for test and predict."""

    paths: list[Path]
    """Weights files; several are an ensemble."""
    key: str
    """Source of the weights: a config key, `run` for the run's own, or `newest` for the newest run of the same name."""
    notes: tuple[str, ...] = ()
    """Notes about the choice, for the user."""


def find_weights(config: Config, folder: RunFolder | None, monitor: str) -> Found:
    """Return the weights for test and predict.

    In this order: those of the training of this call; `predict.checkpoint`; those of the run; `init_from`;
    `weights.default`; without a default, those of the newest run of the same name, with a note.

    Parameters
    ----------
    config : Config
        Config of the run.
    folder : RunFolder or None
        Run folder, if there is one already.
    monitor : str
        Validation metric, for the notes.

    Raises
    ------
    InputError
        There are no weights, or weights that are named do not exist.
    """
    own = folder.weights() if folder is not None else None
    if "fit" in config.stages and own is not None:
        return Found([own], "run")
    if config.predict.checkpoint:
        return Found(_named(config.predict.checkpoint, "predict.checkpoint"), "predict.checkpoint")
    if own is not None:
        return Found([own], "run")
    if config.init_from is not None:
        return Found([weights_path(config.init_from, "init_from")], "init_from")
    newest = newest_run(Path(config.runs_dir), config.name)
    if config.weights.default:
        notes = () if newest is None else (_unused(newest, config, monitor),)
        return Found(_named(config.weights.default, "weights.default"), "weights.default", notes)
    if newest is not None and (found := newest.weights()) is not None:
        return Found(
            [found],
            "newest",
            (
                "weights: none are named, so those of the newest run of this name are used: "
                f"{_described(newest, monitor)}; name them (predict.checkpoint=RUN), or give the config a default "
                "(weights.default)",
            ),
        )
    raise InputError(
        "predict.checkpoint: no weights: none named, none in this run, no weights.default in the config and no earlier "
        f"run in {config.runs_dir}/{config.name}; give predict.checkpoint=RUN_FOLDER, or shipped weights "
        f"({', '.join(shipped_weights())}), or train with stages=[fit,test]"
    )


def _named(given: str | Sequence[str], key: str) -> list[Path]:
    chosen = [weights_path(one, key) for one in ([given] if isinstance(given, str) else given)]
    if len({path.resolve() for path in chosen}) < len(chosen):
        raise InputError(f"{key}: the same checkpoint is named twice")
    return chosen


def _unused(newest: RunFolder, config: Config, monitor: str) -> str:
    """Return the note that the config's default takes precedence over the newest run of the same name."""
    default = config.weights.default
    shown = default if isinstance(default, str) else ", ".join(default)
    return (
        f"weights: {shown} (weights.default), not those of the newest run of this name, {_described(newest, monitor)}; "
        f"predict.checkpoint={newest.path} uses that run's"
    )


def _described(run: RunFolder, monitor: str) -> str:
    """Return folder, age, steps and score of a run, as text."""
    found = run.weights()
    assert found is not None
    metrics = run.metrics()
    steps = metrics.get("fit/steps")
    if steps is None:
        with contextlib.suppress(OSError, RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError):
            steps = torch.load(found, map_location="cpu", weights_only=True, mmap=True)["global_step"]
    score = metrics.get(monitor)
    return (
        f"{run.path} ({_age(time.time() - found.stat().st_mtime)} old, "
        f"{'an unknown number of' if steps is None else int(steps)} steps, "
        f"{monitor} {'unknown' if score is None else f'{score:.4g}'}, {run.status()['status']})"
    )


def _age(seconds: float) -> str:
    """Return a duration such as `3 hours`."""
    counts = {unit: int(seconds // size) for unit, size in (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0))}
    shown = (f"{count} {unit}{'s' if count > 1 else ''}" for unit, count in counts.items() if count >= 1)
    return next(shown, "less than a minute")


def read_weights(config: Config, paths: Sequence[Path]) -> list[Weights]:
    """Read checkpoints of the config's task.

    Raises
    ------
    InputError
        A checkpoint cannot be read, or belongs to another task.
    """
    return [read_checkpoint(path, config.task, "predict.checkpoint") for path in paths]
