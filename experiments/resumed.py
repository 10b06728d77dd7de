"""What `key=value` words change in a run that is resumed: each acts, or is refused with the reason."""

from __future__ import annotations

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

#: Keys of one call: they say what it does, and how, not what the run is.
PER_CALL = ("stages", "resume", "base", "schema_version", "logging", "slurm", "plan", "weights")
#: Keys that make another run.
OF_THE_RUN = ("name", "task", "runs_dir")
#: Which end a training has.
LIMITS = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_time")
#: What the state of a training that has begun fixes, or what would make its beginning and its end two trainings.
FIXED = (
    "seed", "init_from", "data", "loss", "optimizer", "method", "process", "preconditioning", "traits", "field",
    "supervised", "trainer.ema", "trainer.early_stopping",
)  # fmt: skip
#: Of these, what may be elsewhere, or done in another way, on the machine that goes on.
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
#: In which stages a key acts; the longest prefix counts, and a key that is not here acts in all.
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
    """What a call does in a run folder."""

    stages: list[str]
    """To be done, in their order."""
    recorded: list[str]
    """Keys that are another from now on; the run's config.yaml will say so."""
    notes: list[str]
    """What should be said."""


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


def resumption(
    folder: RunFolder, kept: Mapping[str, Any], asked: Mapping[str, Any], named: bool, from_file: str = ""
) -> Resumption:
    """Decide what a call does with a run, from the run's whole config and that which is asked for now.

    Parameters
    ----------
    folder : RunFolder
        Of the run.
    kept, asked : mapping
        Whole configs as plain trees (`experiments.config.resolved`).
    named : bool
        Whether the command line names the stages: they are then done again.
    from_file : str
        The config file of the command line, where one is given beside `resume`: it must be the run's own.

    Raises
    ------
    ConfigErrors
        One line for each key that would change nothing, with the reason.
    """
    stages = [stage for stage in STAGES if stage in asked["stages"]]
    done = folder.status()["stages_done"]
    todo = [stage for stage in stages if named or stage not in done]
    changed = [key for key in changed_keys(kept, asked) if not _is(key, PER_CALL)]
    progress = _progress(checkpoint_path(folder))
    errors, notes = [], []
    limits = [key for key in changed if key in LIMITS]
    more = progress is None or _is_more(asked["trainer"], progress)
    if limits and "fit" not in stages:
        errors += [f"{key}: acts in a training, and stages has no fit: add stages=[fit,test]" for key in limits]
    elif limits and not more and progress is not None:
        errors += [
            f"{key}: the run has trained {progress[0]} epochs ({progress[1]} steps) already: expected limits "
            "(max_epochs, max_steps) beyond that" for key in limits
        ]  # fmt: skip
    elif limits and "fit" not in todo:
        todo = stages  # other weights: what follows from them is done again
    if named and "fit" in todo and not more:
        notes.append(
            "fit: the training has reached its limits: nothing more is trained; give a larger trainer.max_epochs"
        )
    for key in changed:
        if key in limits:
            continue
        if _is(key, OF_THE_RUN):
            errors.append(f"{key}: a run keeps its own ({_at(kept, key)!r}): leave it out, or start a new run")
            continue
        error, again = _other(key, todo, stages, named, begun=progress is not None, run=folder.path)
        errors += [error] if error else []
        todo = [stage for stage in STAGES if stage in (*todo, *again)]
    if errors:
        if from_file:
            errors.append(f"resume: {from_file} differs from the run's own config: leave it out")
        raise ConfigErrors(errors)
    return Resumption(todo, [key for key in changed if not _is(key, ("predict",))], notes)


def _other(
    key: str, todo: Sequence[str], stages: Sequence[str], named: bool, begun: bool, run: Path
) -> tuple[str | None, list[str]]:
    """Why a key cannot act (or None), and the stages that are done again for it."""
    where = _acts_in(key)
    if "fit" in todo and begun and _is(key, FIXED) and not _is(key, MOVABLE):
        return f"{key}: a training that has begun keeps its own: start a new run with init_from={run}", []
    if set(where) & set(todo):
        return None, []
    again = [stage for stage in stages if stage in where and stage != "fit"]
    if again and not named:
        return None, again
    if where == ("fit",):
        return f"{key}: acts in a training only, and this one is done: start a new run with init_from={run}", []
    return f"{key}: acts in {' and '.join(where)}, which this call does not do: add stages=[{where[-1]}]", []


def _is(key: str, prefixes: Sequence[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


def _acts_in(key: str) -> tuple[str, ...]:
    known = [prefix for prefix in ACTS_IN if _is(key, [prefix])]
    return ACTS_IN[max(known, key=len)] if known else STAGES


def _at(tree: Mapping[str, Any], key: str) -> Any:
    return tree.get(key)


def _progress(checkpoint: Path | None) -> tuple[int, int] | None:
    """Epochs and steps that were trained; None where nothing was saved yet."""
    if checkpoint is None:
        return None
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        epochs = state["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        return int(epochs), int(state["global_step"])
    except (RuntimeError, OSError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise InputError(f"resume: {checkpoint}: cannot be read as a checkpoint ({reason})") from None


def _is_more(trainer: Mapping[str, Any], progress: tuple[int, int]) -> bool:
    """Whether these limits leave anything to train."""
    epochs, steps = (_limit(trainer[key]) for key in ("max_epochs", "max_steps"))
    return progress[0] < epochs and progress[1] < steps


def _limit(number: int | None) -> float:
    return math.inf if number in (None, -1) else float(number or 0)
