"""Keys of a config that have no effect on what its run does, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from experiments.compose import Composed
from experiments.schema import Config


@dataclass(frozen=True)
class Rule:
    """When a key has no effect."""

    keys: tuple[str, ...]
    """Key paths; one that ends in a dot stands for all keys of its group."""
    when: Callable[[Any], bool]
    """Asked with a config that has one of the keys."""
    why: str
    """What to do about it is in these words, too."""
    tasks: tuple[str, ...] = ()
    """Tasks that it holds for; empty for all."""


#: Keys that another key of the same config switches off.
SWITCHED_OFF: tuple[Rule, ...] = (
    Rule(("optimizer.factor", "optimizer.patience"), lambda c: c.optimizer.schedule != "plateau",
         "only optimizer.schedule: plateau reads it"),
    Rule(("optimizer.power",), lambda c: c.optimizer.schedule != "poly", "only optimizer.schedule: poly reads it"),
    Rule(("optimizer.lr_min_ratio",), lambda c: c.optimizer.schedule not in ("cosine", "poly"),
         "only optimizer.schedule: cosine and poly read it"),
    Rule(("data.resample_spacing_um",), lambda c: c.data.resample == "grid", "data.resample is grid"),
    Rule(("data.resample_grid",), lambda c: c.data.resample != "grid", "data.resample is spacing_um"),
    Rule(("data.scale",), lambda c: c.data.scale_probability == 0, "data.scale_probability is 0"),
    Rule(("data.scale_probability",), lambda c: list(c.data.scale) == [1, 1], "data.scale is [1, 1]"),
    Rule(("data.patch_size", "data.foreground"), lambda c: c.data.resample == "grid",
         "with data.resample grid a sample is the whole field", ("cells",)),
    Rule(("data.elastic_probability",), lambda c: c.data.elastic == 0, "data.elastic is 0: no cell is deformed"),
    Rule(("data.elastic",), lambda c: c.data.elastic_probability == 0, "data.elastic_probability is 0"),
    Rule(("data.fold", "data.fold_seed"), lambda c: c.data.folds == 0, "data.folds is 0: there are no folds"),
    Rule(("field.blur",), lambda c: c.field.sharpen == 0, "field.sharpen is 0"),
    Rule(("process.mean", "process.std"), lambda c: c.process.density == "uniform",
         "only process.density: logit_normal reads it"),
    Rule(("preconditioning.data_std",), lambda c: c.preconditioning.scaling == "none",
         "only preconditioning.scaling: edm reads it"),
    Rule(("loss.data_std",), lambda c: c.loss.weighting != "edm", "only loss.weighting: edm reads it"),
    Rule(("loss.limit",), lambda c: c.loss.weighting == "uniform", "loss.weighting is uniform"),
)  # fmt: skip

#: Keys that change where and how fast a run works, and none of its numbers.
NEUTRAL = Rule(
    (
        "name", "runs_dir", "resume", "logging.", "slurm.", "plan.", "data.num_workers", "data.cache_dir",
        "trainer.enable_progress_bar", "trainer.log_every_n_steps", "trainer.save_every_minutes", "predict.inputs",
        "predict.out", "predict.format", "predict.probabilities", "predict.memory_gb", "predict.shard",
        "predict.voxel_um", "predict.spacing_um", "predict.batch_size",
    ),
    lambda config: True,
    "it changes no number of a run",
)  # fmt: skip

#: Keys that training and its validation do not read.
OF_THE_TEST: tuple[Rule, ...] = (
    Rule(("data.test.", "trainer.limit_test_batches", "predict.flips", "predict.compile", "predict.checkpoint"),
         lambda config: True, "only the test reads it"),
    Rule(("seeds.",), lambda config: True, "validation starts from true nuclei; only the test reads it", ("cells",)),
    Rule(("predict.samples",), lambda config: True, "only the test and predictions read it", ("shape", "shapr")),
    Rule(("traits.thickness", "traits.tilt", "traits.height"), lambda config: True,
         "validation scores the mean shape, for which no trait is drawn", ("shape",)),
)  # fmt: skip


def unused_keys(config: Config, rules: Iterable[Rule] = SWITCHED_OFF) -> dict[str, str]:
    """Return the keys without effect.

    Parameters
    ----------
    config : Config
        Of any task.
    rules : iterable of Rule
        What is looked for: by default keys that another key switches off.

    Returns
    -------
    dict of str to str
        Key path, or the beginning of one that ends in a dot, to the reason.
    """
    found = {}
    for rule in rules:
        if rule.tasks and config.task not in rule.tasks:
            continue
        for key in rule.keys:
            if _has(config, key.removesuffix(".")) and _holds(rule, config):
                found[key] = rule.why
    return found


def without_effect(key: str, unused: dict[str, str]) -> str | None:
    """Return why a key has no effect, out of what `unused_keys` found; None where it has one."""
    return next((why for known, why in unused.items() if key == known or key.startswith(_group(known))), None)


def sweep_rules(metric: str) -> tuple[Rule, ...]:
    """Return the rules for keys that a sweep varies to make a metric better.

    Parameters
    ----------
    metric : str
        Its name; keys of the test count where it begins with test/.
    """
    tested = metric.startswith("test/")
    return (*SWITCHED_OFF, NEUTRAL, *(() if tested else OF_THE_TEST))


def unused_notes(composed: Composed, config: Config) -> list[str]:
    """Return one line for each key that a file or the command line sets and another key switches off.

    A key that is set to what it is by default is left out: shipped configs spell some of them out.
    """
    unused = unused_keys(config)
    notes = []
    for path, origin in composed.origin.items():
        key = ".".join(path)
        if key in unused and not _is_default(config, key):
            notes.append(f"{origin}: {key}: has no effect: {unused[key]}")
    return sorted(notes)


def _group(known: str) -> str:
    return known if known.endswith(".") else f"{known}."


def _has(config: Any, key: str) -> bool:
    for part in key.split("."):
        if not hasattr(config, part):
            return False
        config = getattr(config, part)
    return True


def _holds(rule: Rule, config: Any) -> bool:
    try:
        return rule.when(config)
    except AttributeError:  # a key of another branch of the group
        return False


def _is_default(config: Any, key: str) -> bool:
    *groups, last = key.split(".")
    for group in groups:
        config = getattr(config, group)
    try:
        return bool(getattr(type(config)(), last) == getattr(config, last))
    except TypeError:
        return False
