"""A config that has been read, checked and typed."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from datamodules.config import FolderData, OrganelleData, data_faults
from experiments.compose import Composed, compose
from experiments.schema import CHOICES, SCHEMA_VERSION, STAGES, Config, branch, known_keys
from experiments.validate import Branches, find_faults
from formats.errors import InputError
from lightning_modules.optim import optimizer_faults
from networks.weights import shipped_weights
from training.trainer import TrainerConfig, trainer_faults
from transforms.tiling import SlidingWindow


class ConfigFaults(InputError):
    """All faults of a config, a line each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def load_config(config: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read, compose, check and type a config.

    Parameters
    ----------
    config : str or Path
        A file, or the name of a shipped config.
    overrides : iterable of str
        `key.path=value` words.

    Raises
    ------
    ConfigFaults
        Everything that is wrong with it, at once.
    InputError
        It cannot be read at all.
    """
    composed = compose(config, overrides, known_keys)
    return typed_config(composed)


def typed_config(composed: Composed) -> Config:
    """Check a composed tree and make it a `Config`."""
    branches, faults = _branches(composed)
    faults += find_faults(composed, Config, branches)
    if not faults:
        result = _typed(composed.values, branches)
        faults = [f"{composed.where(tuple(f.partition(':')[0].split('.')))}: {f}" for f in value_faults(result)]
        if not faults:
            if hasattr(result.model, "portable"):  # config.yaml and checkpoints are read where its files are not
                result.model = result.model.portable()
            return result
    raise ConfigFaults(list(dict.fromkeys(faults)))


def _branches(composed: Composed) -> tuple[Branches, list[str]]:
    """The dataclass of every group, and faults of the keys that choose them."""
    found: Branches = {}
    faults = []
    for field in dataclasses.fields(Config):
        if field.name in CHOICES:
            chosen, key = CHOICES[field.name].default, CHOICES[field.name].key
            group = composed.values.get(field.name)
            if isinstance(group, dict):
                chosen = str(group.get(key, chosen))
            try:
                found[field.name] = branch(field.name, chosen)
            except InputError as fault:
                text = str(fault)
                path = f"{field.name}.{key}"
                shown = text if text.startswith(path) else f"{path}: {text}"
                faults.append(f"{composed.where((field.name, key))}: {shown}")
                found[field.name] = branch(field.name, CHOICES[field.name].default)
                if isinstance(group, dict):
                    # its keys cannot be judged without the branch
                    composed.values[field.name] = {}
        elif dataclasses.is_dataclass(field.default_factory):
            found[field.name] = field.default_factory
    return found, faults


def _typed(values: dict[str, Any], branches: Branches) -> Config:
    typed: dict[str, Any] = {}
    for name, kind in branches.items():
        tree = OmegaConf.merge(OmegaConf.structured(kind), values.get(name) or {})
        typed[name] = OmegaConf.to_object(tree)
    top = {k: v for k, v in values.items() if k not in branches}
    return Config(**{**top, **typed})


def value_faults(config: Config) -> list[str]:
    """What cannot work although every type is right, one line each, beginning with the key path."""
    faults = []
    if config.schema_version != SCHEMA_VERSION:
        faults.append(f"schema_version: this Cytovox reads version {SCHEMA_VERSION}, got {config.schema_version}")
    if not config.name or any(c in config.name for c in '<>:"/\\|?*') or config.name.strip(". ") != config.name:
        faults.append(f"name: expected a name that can be a folder's, got {config.name!r}")
    if not 0 <= config.seed < 2**32:
        faults.append(f"seed: expected 0 to {2**32 - 1}, got {config.seed}")
    faults += _stage_faults(config)
    faults += [f"data.{f}" for f in data_faults(config.data)]
    faults += [f"optimizer.{f}" for f in optimizer_faults(config.optimizer)]
    faults += [f"loss: {f}" for f in config.loss.faults(len(config.data.organelles))]
    faults += [f"trainer.{f}" for f in trainer_faults(config.trainer)]
    faults += _schedule_faults(config)
    patch = config.data.patch_size
    faults += (own := [f"model.{f}" for f in config.model.faults()])
    if not own and len(patch) == 3 and all(p > 0 for p in patch):
        faults += [f"data.patch_size: {f}" for f in config.model.faults(tuple(patch))]
        faults += _predict_faults(config)
    return faults


def _stage_faults(config: Config) -> list[str]:
    faults = []
    for stage in config.stages:
        if stage not in STAGES:
            near = difflib.get_close_matches(str(stage), STAGES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            faults.append(f"stages: expected some of {', '.join(STAGES)}, got {stage!r}{hint}")
    if not config.stages:
        faults.append(f"stages: expected at least one of {', '.join(STAGES)}")
    if "predict" in config.stages and not config.predict.inputs:
        faults.append("predict.inputs: nothing to predict; give tomograms, such as predict.inputs=[data/*.TCF]")
    return faults


def _schedule_faults(config: Config) -> list[str]:
    trainer: TrainerConfig = config.trainer
    endless = trainer.max_steps == -1 and (trainer.max_epochs is None or trainer.max_epochs == -1)
    if config.optimizer.schedule in ("cosine", "poly") and endless:
        return [f"optimizer.schedule: {config.optimizer.schedule} needs trainer.max_epochs or trainer.max_steps"]
    return []


def _predict_faults(config: Config) -> list[str]:
    faults = []
    predict = config.predict
    if not 0 < predict.threshold < 1:
        faults.append(f"predict.threshold: expected a probability between 0 and 1, got {predict.threshold}")
    if predict.spacing_um is not None and (len(predict.spacing_um) != 3 or any(s <= 0 for s in predict.spacing_um)):
        faults.append(f"predict.spacing_um: expected three positive numbers (z, y, x) in um, got {predict.spacing_um}")
    if predict.overlap is not None:
        if predict.stride is not None:
            faults.append("predict.overlap: give either predict.stride or predict.overlap, not both")
        if len(predict.overlap) != 3 or any(not 0 <= o < 1 for o in predict.overlap):
            faults.append(f"predict.overlap: expected three parts from 0 to below 1 (z, y, x), got {predict.overlap}")
    if set(predict.flips) - set("zyx") or len(set(predict.flips)) < len(predict.flips):
        faults.append(f"predict.flips: expected some of z, y, x, each once, got {predict.flips}")
    if not predict.memory_gb >= 0:
        faults.append(f"predict.memory_gb: expected 0 or more, got {predict.memory_gb}")
    if predict.window is not None:
        faults += [f"predict.window: {f}" for f in config.model.faults(tuple(predict.window))]
    if not faults:
        try:
            tiling(config, config.data.patch_size)
        except InputError as fault:
            faults.append(str(fault))
    return faults


def tiling(config: Config, patch_size: list[int]) -> SlidingWindow:
    """Windows of validation, test and prediction for a network trained on patches of this size.

    Raises
    ------
    InputError
        They cannot be: a stride beyond the window, for one.
    """
    predict = config.predict
    window = predict.window or patch_size
    overlap = predict.overlap or [0.5, 0.5, 0.5]
    # rounded down to whole voxels of step, as MONAI does; a window of one voxel still moves on
    stride = predict.stride or [max(1, int(w * (1 - o))) for w, o in zip(window, overlap, strict=True)]
    pad = predict.pad_yx if predict.pad_yx is not None else [w // 2 for w in window[1:]]
    try:
        return SlidingWindow(
            window=(window[0], window[1], window[2]),
            stride=tuple(stride),  # type: ignore[arg-type]
            weight=predict.weight,
            z=predict.z,
            pad_yx=tuple(pad),  # type: ignore[arg-type]
            pad_mode=predict.pad_mode,
            sw_batch_size=predict.batch_size,
            skip_below=predict.skip_below,
        )
    except InputError as fault:
        raise InputError(f"predict: {fault}") from None


def resolved(config: Config) -> dict[str, Any]:
    """The whole config as plain types, composed and complete: it reruns as it is, from any folder."""
    tree = dataclasses.asdict(config)
    tree["base"] = []
    data: OrganelleData = config.data
    if isinstance(data, FolderData):
        tree["data"]["root"] = _absolute(data.root)
    for group, choice in CHOICES.items():
        tree[group] = {choice.key: tree[group][choice.key], **tree[group]}
    for group, key in (("data", "cache_dir"), ("predict", "inputs"), ("predict", "checkpoint"), ("predict", "out")):
        tree[group][key] = _absolute(tree[group][key])
    for key in ("runs_dir", "init_from", "resume"):
        tree[key] = _absolute(tree[key])
    return tree


def _absolute(value: Any) -> Any:
    """Paths and globs, one or a list of them, from where we are now; names of shipped weights as they are."""
    if isinstance(value, str):
        return value if value in shipped_weights() and not Path(value).exists() else str(Path(value).absolute())
    return [_absolute(one) for one in value] if isinstance(value, list) else value


def to_yaml(tree: dict[str, Any]) -> str:
    """Plain YAML, keys in the order of the schema."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)
