"""What is run but not trained: from files to tables. By the name that `task:` gives."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cytovox.errors import InputError
from experiments.compose import Composed, compose
from experiments.errors import ConfigErrors
from experiments.tasks.analyze.config import AnalyzeConfig, CellsFromMasksConfig, PipelineConfig, pipeline_errors
from experiments.validate import find_errors

#: The config of each pipeline.
PIPELINES: dict[str, type[PipelineConfig]] = {"analyze": AnalyzeConfig, "cells_from_masks": CellsFromMasksConfig}


def typed_pipeline(composed: Composed) -> Any:
    """Check a composed tree and make it the config of its pipeline.

    Raises
    ------
    ConfigErrors
        Everything that is wrong with it, at once.
    """
    kind = PIPELINES[str(composed.values["task"])]
    inner = {field.name: field.default_factory for field in dataclasses.fields(kind)}
    errors = find_errors(composed, kind, {n: group for n, group in inner.items() if dataclasses.is_dataclass(group)})  # type: ignore[misc]
    if not errors:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), composed.values))
        assert isinstance(config, kind)
        errors = [
            f"{composed.where(tuple(error.partition(':')[0].split('.')))}: {error}" for error in pipeline_errors(config)
        ]
        if not errors:
            return config
    raise ConfigErrors(list(dict.fromkeys(errors)))


def resolved_pipeline(config: PipelineConfig) -> dict[str, Any]:
    """The whole config as plain types; it reruns as it is."""
    return {**dataclasses.asdict(config), "base": []}


def asks_for_pipeline(config: str, overrides: list[str]) -> bool:
    """Whether a command line names a pipeline, not a model to train."""
    resumed = [word.partition("=")[2] for word in overrides if word.startswith("resume=")]
    source = config or (str(Path(resumed[-1]) / "config.yaml") if resumed and resumed[-1] else "")
    try:
        return bool(source) and compose(source, overrides).values.get("task") in PIPELINES
    except InputError:
        return False  # told where it is read again
