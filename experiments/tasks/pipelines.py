"""What is run but not trained: from files to tables. By the name that `task:` gives."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cytovox.errors import InputError
from experiments.compose import Composed, compose
from experiments.errors import ConfigFaults
from experiments.tasks.analyze.config import AnalyzeConfig, CellsFromMasksConfig, PipelineConfig, pipeline_faults
from experiments.validate import find_faults

#: The config of each pipeline.
PIPELINES: dict[str, type[PipelineConfig]] = {"analyze": AnalyzeConfig, "cells_from_masks": CellsFromMasksConfig}


def typed_pipeline(composed: Composed) -> Any:
    """Check a composed tree and make it the config of its pipeline.

    Raises
    ------
    ConfigFaults
        Everything that is wrong with it, at once.
    """
    kind = PIPELINES[str(composed.values["task"])]
    inner = {field.name: field.default_factory for field in dataclasses.fields(kind)}
    faults = find_faults(composed, kind, {n: group for n, group in inner.items() if dataclasses.is_dataclass(group)})  # type: ignore[misc]
    if not faults:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), composed.values))
        assert isinstance(config, kind)
        faults = [
            f"{composed.where(tuple(fault.partition(':')[0].split('.')))}: {fault}" for fault in pipeline_faults(config)
        ]
        if not faults:
            return config
    raise ConfigFaults(list(dict.fromkeys(faults)))


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
