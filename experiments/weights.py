"""Which weights a run takes, by what its config and its folder say."""

from __future__ import annotations

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
    """Which weights test and predict use, and why."""

    paths: list[Path]
    """More than one are an ensemble."""
    key: str
    """What named them: a config key, or `run` for the run's own, or `newest` for the newest run of the same name."""
    notes: tuple[str, ...] = ()
    """Notes about the choice, for the user."""


def find_weights(config: Config, folder: RunFolder | None, monitor: str) -> Found:
    """Weights for test and predict.

    In this order: just trained; named in the config (`predict.checkpoint`); this run's; `init_from`; the config's
    default (`weights.default`); and only without a default the newest run's of the same name, with a note.

    Raises
    ------
    InputError
        There are none, or one that is named is not there.
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
        note = (
            "weights: none are named, so those of the newest run of this name are used: "
            f"{_described(newest, monitor)}; name them (predict.checkpoint=RUN), or give the config a default "
            "(weights.default)"
        )
        return Found([found], "newest", (note,))
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
    """Note on a run of the same name whose weights the config's default outranks."""
    default = config.weights.default
    shown = default if isinstance(default, str) else ", ".join(default)
    return (
        f"weights: {shown} (weights.default), not those of the newest run of this name, {_described(newest, monitor)}; "
        f"predict.checkpoint={newest.path} uses that run's"
    )


def _described(run: RunFolder, monitor: str) -> str:
    """Folder, age, steps and score of a run."""
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
    """Such as `3 hours`."""
    for unit, size in (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"


def read_weights(config: Config, paths: Sequence[Path]) -> list[Weights]:
    """Checkpoints of the config's task.

    Raises
    ------
    InputError
        One cannot be read, or is of another task.
    """
    return [read_checkpoint(path, config.task, "predict.checkpoint") for path in paths]
