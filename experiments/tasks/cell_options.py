"""Config options that the tasks analyze and cells_from_masks share."""

from dataclasses import dataclass, field
from typing import Any, Literal

from cytovox.io.labels import LABEL_KINDS
from cytovox.segmentation.field import SeedRule
from cytovox.segmentation.seeds import MIN_VOLUME_UM3
from datamodules.config import spacing_errors
from experiments.schema import BaseConfig
from experiments.submit.config import SlurmConfig


def _is_label_kind(value: Any) -> bool:
    kinds = value.values() if isinstance(value, dict) else [value]
    return all(isinstance(kind, str) and kind in LABEL_KINDS for kind in kinds)


#: Metadata of a config field that holds a kind of labels, or one for each organelle.
LABELS = {"accepts": _is_label_kind, "expects": "auto, binary or instances, or one of them for each of some organelles"}


@dataclass
class SeedsConfig:
    """`seeds:` rule that separates nuclei in a nucleus mask."""

    min_volume_um3: float = MIN_VOLUME_UM3
    """Least volume of a nucleus; smaller components are ignored."""
    min_voxels: int = 0
    """Least size in voxels of a grid of 64 x 128 x 128 (published: 200); 0 for `min_volume_um3` alone."""
    split_depth_um: float | None = None
    """Least difference in radius between a neck and both sides at which a component is split (try 0.5); null does not
    split components (published). `method: offsets` always splits touching nuclei."""

    def rule(self) -> SeedRule:
        """Return the rule."""
        return SeedRule(self.min_volume_um3, self.min_voxels, self.split_depth_um)


@dataclass
class CellFinderConfig(BaseConfig):
    """Options of the cell finder and of its SLURM jobs."""

    method: Literal["offsets", "network", "watershed"] = "offsets"
    """Method that separates cells: `offsets`, centre offsets, one pass for all cells; `network`, one pass per nucleus
    (published); `watershed`, without learning."""
    cell_weights: str | None = None
    """Weights of `offsets` or `network`: a checkpoint, a run folder or a shipped name; null for the shipped ones."""
    seeds: SeedsConfig = field(default_factory=SeedsConfig)
    """Definition of one nucleus."""
    slurm: SlurmConfig = field(default_factory=lambda: SlurmConfig(gpus_per_node=0))
    """Resources that `--submit` requests from SLURM."""


def cell_finder_errors(config: Any) -> list[str]:
    """Return the errors of the seeds and the voxel size, one line each, beginning with the key path."""
    seeds, spacing, depth = config.seeds, config.spacing_um, config.seeds.split_depth_um
    checks = (
        (seeds.min_volume_um3 >= 0, f"seeds.min_volume_um3: expected 0 or more, got {seeds.min_volume_um3}"),
        (seeds.min_voxels >= 0, f"seeds.min_voxels: expected 0 or more, got {seeds.min_voxels}"),
        (depth is None or depth > 0, f"seeds.split_depth_um: expected a length above 0 or null, got {depth}"),
        (
            spacing is None or (len(spacing) == 3 and all(s > 0 for s in spacing)),
            f"spacing_um: expected three positive numbers (z, y, x) in um, got {spacing}",
        ),
    )
    return [error for valid, error in checks if not valid] + spacing_errors(config.spacing_from, spacing)
