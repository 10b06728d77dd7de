"""Effects of `key=value` arguments on a resumed run: each takes effect, or is refused with the reason."""

import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cytovox.errors import InputError
from experiments.errors import ConfigErrors
from experiments.schema import STAGES
from training.rundir import RunFolder
from training.trainer import checkpoint_path

#: Keys that concern one call only, not the run itself.
PER_CALL = ("stages", "resume", "base", "schema_version", "logging", "slurm", "plan", "weights")
#: Keys that identify a run.
OF_THE_RUN = ("name", "task", "runs_dir")
#: Limits of a training.
LIMITS = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_time")
#: Keys that a training keeps once it has started: they are part of its state, or would make it another training.
FIXED = (
    "seed", "init_from", "data", "loss", "optimizer", "method", "process", "preconditioning", "traits", "field",
    "supervised", "trainer.ema", "trainer.early_stopping",
)  # fmt: skip
#: Those of the fixed keys that may differ on another machine.
MOVABLE = (
    "data.root", "data.table", "data.volumes", "data.masks", "data.corrections", "data.cache_dir", "data.num_workers",
    "data.test",
)  # fmt: skip
_MACHINE = (
    "accelerator", "devices", "num_nodes", "strategy", "precision", "enable_progress_bar", "deterministic", "benchmark",
    "detect_anomaly",
)  # fmt: skip
_OF_PREDICT = (
    "inputs", "out", "format", "probabilities", "spacing_um", "spacing_from", "series", "labels", "shard", "voxel_um",
)  # fmt: skip
#: Stages in which a key takes effect. The longest prefix counts; keys that are not listed take effect in all stages.
ACTS_IN: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("model", "loss", "optimizer", "process", "preconditioning", "traits", "field"), ("fit",)),
    **dict.fromkeys(("method", "supervised", "search", "init_from", "trainer"), ("fit",)),
    **dict.fromkeys(("retrain", "data.test", "trainer.limit_test_batches"), ("test",)),
    **dict.fromkeys(("data", "seeds"), ("fit", "test")),
    **{f"trainer.{key}": STAGES for key in _MACHINE},
    **{f"predict.{key}": ("predict",) for key in _OF_PREDICT},
}


@dataclass(frozen=True)
class Resumption:
    """Effect of a call on a resumed run."""

    stages: list[str]
    """Stages to do, in their order."""
    recorded: list[str]
    """Keys with a new value, which is written to the run's config.yaml."""
    notes: list[str]
    """Notes for the user."""


def changed_keys(kept: Mapping[str, Any], asked: Mapping[str, Any], path: str = "") -> list[str]:
    """Return the dotted keys whose values differ in two config trees."""
    found = []
    for key in dict.fromkeys([*kept, *asked]):
        here, old, new = f"{path}{key}", kept.get(key), asked.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += changed_keys(old, new, f"{here}.")
        elif old != new:
            found.append(here)
    return found


def resumption(folder: RunFolder, kept: Mapping[str, Any], asked: Mapping[str, Any], named: bool) -> Resumption:
    """Return the stages that a call does in a run, and the keys that it changes.

    Parameters
    ----------
    folder : RunFolder
        Run folder.
    kept, asked : mapping
        The complete config of the run and the requested one (`experiments.config.resolved`).
    named : bool
        Whether the command line names the stages: these are then done again.

    Raises
    ------
    ConfigErrors
        One line for each key that would have no effect, with the reason.
    """
    stages = [stage for stage in STAGES if stage in asked["stages"]]
    todo = [stage for stage in stages if named or stage not in folder.status()["stages_done"]]
    changed = [key for key in changed_keys(kept, asked) if not _is(key, PER_CALL)]
    progress = _progress(checkpoint_path(folder))
    errors, notes = [], []
    limits = [key for key in changed if key in LIMITS]
    more = progress is None or _is_more(asked["trainer"], progress)
    if limits and "fit" not in stages:
        errors += [
            f"{key}: has an effect in training only, and stages has no fit: add stages=[fit,test]" for key in limits
        ]
    elif limits and not more and progress is not None:
        errors += [
            f"{key}: the run has trained {progress[0]} epochs ({progress[1]} steps) already: expected limits "
            "(max_epochs, max_steps) beyond that" for key in limits
        ]  # fmt: skip
    elif limits and "fit" not in todo:
        todo = stages  # the later stages are repeated with the new weights
    if named and "fit" in todo and not more:
        notes.append(
            "fit: the training has reached its limits: nothing more is trained; give a larger trainer.max_epochs"
        )
    for key in (key for key in changed if key not in limits):
        if _is(key, OF_THE_RUN):
            errors.append(f"{key}: a run keeps its own ({kept.get(key)!r}): leave it out, or start a new run")
            continue
        error, again = _other(key, todo, stages, named, begun=progress is not None, run=folder.path)
        errors += [error] if error else []
        todo = [stage for stage in STAGES if stage in (*todo, *again)]
    if errors:
        raise ConfigErrors(errors)
    return Resumption(todo, [key for key in changed if not _is(key, ("predict",))], notes)


def _other(
    key: str, todo: Sequence[str], stages: Sequence[str], named: bool, begun: bool, run: Path
) -> tuple[str | None, list[str]]:
    """Return why a key has no effect (or None), and the stages that are repeated because of it."""
    where = _acts_in(key)
    if "fit" in todo and begun and _is(key, FIXED) and not _is(key, MOVABLE):
        return f"{key}: a training that has begun keeps its own: start a new run with init_from={run}", []
    if set(where) & set(todo):
        return None, []
    again = [stage for stage in stages if stage in where and stage != "fit"]
    if again and not named:
        return None, again
    if where == ("fit",):
        return f"{key}: has an effect in training only, and this one is done: start a new run with init_from={run}", []
    return (
        f"{key}: has an effect in {' and '.join(where)} only, which this call does not run: add stages=[{where[-1]}]",
        [],
    )


def _is(key: str, prefixes: Sequence[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


def _acts_in(key: str) -> tuple[str, ...]:
    known = [prefix for prefix in ACTS_IN if _is(key, [prefix])]
    return ACTS_IN[max(known, key=len)] if known else STAGES


def _progress(checkpoint: Path | None) -> tuple[int, int] | None:
    """Return the number of trained epochs and steps; None without a checkpoint."""
    if checkpoint is None:
        return None
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        return int(state["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]), int(state["global_step"])
    except (RuntimeError, OSError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise InputError(f"resume: {checkpoint}: cannot be read as a checkpoint ({reason})") from None


def _is_more(trainer: Mapping[str, Any], progress: tuple[int, int]) -> bool:
    """Return whether the limits of a trainer exceed the epochs and steps that are trained already."""
    limits = [math.inf if trainer[key] in (None, -1) else trainer[key] for key in ("max_epochs", "max_steps")]
    return progress[0] < limits[0] and progress[1] < limits[1]
