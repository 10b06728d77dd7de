"""Keys of the tasks that find cells with trained weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cytovox.io.labels import LABEL_KINDS
from cytovox.segmentation.field import SeedRule
from cytovox.segmentation.seeds import MIN_VOLUME_UM3
from datamodules.config import spacing_errors
from experiments.schema import BaseConfig
from experiments.submit.config import SlurmConfig


def _is_label_kind(value: Any) -> bool:
    return value in LABEL_KINDS if isinstance(value, str) else _is_kind_of_each(value)


def _is_kind_of_each(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) and one in LABEL_KINDS for one in value.values())


LABELS = {"accepts": _is_label_kind, "expects": "auto, binary or instances, or one of them for each of some organelles"}


@dataclass
class SeedsConfig:
    """`seeds:` which parts of a nucleus mask are one nucleus each."""

    min_volume_um3: float = MIN_VOLUME_UM3
    """Smaller components are no nuclei."""
    min_voxels: int = 0
    """The same in voxels of a grid of 64 x 128 x 128, as published (200 there); 0 leaves it to the volume."""
    split_depth_um: float | None = None
    """Components are cut at necks narrower by this, in radius, than both sides (0.5 is a start); null leaves them whole
    (published). `method: offsets` splits touching nuclei in either case."""

    def rule(self) -> SeedRule:
        """The rule itself."""
        return SeedRule(self.min_volume_um3, self.min_voxels, self.split_depth_um)


@dataclass
class CellFinderConfig(BaseConfig):
    """What finds cells, and where it runs."""

    method: Literal["offsets", "network", "watershed"] = "offsets"
    """How cells are distinguished: `offsets`, centre offsets, all in one pass; `network`, one pass per nucleus
    (published); `watershed`, no learning."""
    cell_weights: str | None = None
    """Weights of `offsets` or `network`: a checkpoint, a run folder or a shipped name; null for the shipped ones."""
    seeds: SeedsConfig = field(default_factory=SeedsConfig)
    """What one nucleus is."""
    slurm: SlurmConfig = field(default_factory=lambda: SlurmConfig(gpus_per_node=0))
    """What `--submit` asks of a cluster."""


def cell_finder_errors(config: Any) -> list[str]:
    """Return what is wrong with the seeds and the voxel size, one line each, beginning with the key path."""
    errors, seeds = [], config.seeds
    if not seeds.min_volume_um3 >= 0:
        errors.append(f"seeds.min_volume_um3: expected 0 or more, got {seeds.min_volume_um3}")
    if seeds.min_voxels < 0:
        errors.append(f"seeds.min_voxels: expected 0 or more, got {seeds.min_voxels}")
    if seeds.split_depth_um is not None and not seeds.split_depth_um > 0:
        errors.append(f"seeds.split_depth_um: expected a length above 0 or null, got {seeds.split_depth_um}")
    spacing = config.spacing_um
    if spacing is not None and (len(spacing) != 3 or any(s <= 0 for s in spacing)):
        errors.append(f"spacing_um: expected three positive numbers (z, y, x) in um, got {spacing}")
    return errors + spacing_errors(config.spacing_from, spacing)
