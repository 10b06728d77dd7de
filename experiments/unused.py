"""Keys of a config that have no effect on its run, and why."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from datamodules.config import ChannelLabels
from experiments.compose import Composed
from experiments.schema import Config


@dataclass(frozen=True)
class Rule:
    """Condition under which keys have no effect."""

    keys: tuple[str, ...]
    """Key paths; one that ends in a dot stands for all keys of its group."""
    when: Callable[[Any], bool]
    """Returns whether the keys have no effect in a config."""
    why: str
    """Reason, from which the user can see what to change."""
    tasks: tuple[str, ...] = ()
    """Tasks that the rule applies to; empty for all."""


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
    Rule(tuple(f"data.fluorescence.{key.name}" for key in dataclasses.fields(ChannelLabels)),
         lambda c: not c.data.labels_from, "data.labels_from names no channel"),
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

#: Keys that change where and how fast a run works, but not its numbers.
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

#: Keys that training and validation do not read.
OF_THE_TEST: tuple[Rule, ...] = (
    Rule(("data.test.", "trainer.limit_test_batches", "predict.flips", "predict.compile", "predict.checkpoint"),
         lambda config: True, "only the test reads it"),
    Rule(("seeds.",), lambda config: True, "validation starts from true nuclei; only the test reads it", ("cells",)),
    Rule(("predict.samples",), lambda config: True, "only the test and predictions read it", ("shape", "shapr")),
    Rule(("traits.thickness", "traits.tilt", "traits.height"), lambda config: True,
         "validation scores the mean shape, for which no trait is drawn", ("shape",)),
)  # fmt: skip


def unused_keys(config: Config, rules: Iterable[Rule] = SWITCHED_OFF) -> dict[str, str]:
    """Return the keys without effect and the reasons.

    Parameters
    ----------
    config : Config
        Config of any task.
    rules : iterable of Rule
        By default those for keys that another key switches off.

    Returns
    -------
    dict of str to str
        Reason by key path; a path that ends in a dot stands for all keys of its group.
    """
    of_task = [rule for rule in rules if not rule.tasks or config.task in rule.tasks]
    return {key: rule.why for rule in of_task for key in rule.keys if _is_unused(key, rule, config)}


def _is_unused(key: str, rule: Rule, config: Config) -> bool:
    """Return whether a config has a key and the rule applies."""
    with contextlib.suppress(AttributeError):  # a key of another branch
        attrgetter(key.removesuffix("."))(config)
        return rule.when(config)
    return False


def without_effect(key: str, unused: dict[str, str]) -> str | None:
    """Return why a key has no effect, by the result of `unused_keys`; None if it has one."""
    return next((why for known, why in unused.items() if f"{key}.".startswith(f"{known.removesuffix('.')}.")), None)


def sweep_rules(metric: str) -> tuple[Rule, ...]:
    """Return the rules for keys that a sweep varies.

    Parameters
    ----------
    metric : str
        Metric of the sweep; keys of the test have an effect if its name starts with test/.
    """
    return (*SWITCHED_OFF, NEUTRAL, *(() if metric.startswith("test/") else OF_THE_TEST))


def unused_notes(composed: Composed, config: Config) -> list[str]:
    """Return one line for each key that a file or the command line sets and another key switches off.

    A key that is set to its default is left out: shipped configs contain some of these.
    """
    unused, keys = unused_keys(config), {".".join(path): origin for path, origin in composed.origin.items()}
    set_keys = [key for key in unused if key in keys and not _is_default(config, key)]
    return sorted(f"{keys[key]}: {key}: has no effect: {unused[key]}" for key in set_keys)


def _is_default(config: Any, key: str) -> bool:
    groups, _, last = key.rpartition(".")
    group = attrgetter(groups)(config) if groups else config
    try:
        return bool(getattr(type(group)(), last) == getattr(group, last))
    except TypeError:
        return False
