"""Data classes of a plan."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cytovox.networks.registry import NetworkConfig
from experiments.planning.data import Preparation
from experiments.planning.duration import EpochPlan, FitTimes, RunPlan
from experiments.planning.machine import Machine
from experiments.planning.patch_sizes import USABLE, MemoryModel, Shape, Work, candidates


@dataclass(frozen=True)
class PatchRow:
    """Estimates for a valid patch size."""

    patch: Shape
    largest_batch: int
    """Largest batch that fits; 0 if not even one patch does."""
    bytes: float
    """Memory at the config's batch size, scaled by voxels."""
    batch_seconds: float
    """Seconds per batch, scaled by voxels."""
    volumes: int
    """Number of prepared volumes that are at least as large; a smaller one is padded with its edge."""


@dataclass(frozen=True)
class FitPlan:
    """Plan of the fit stage."""

    work: Work
    epoch: EpochPlan
    run: RunPlan
    times: FitTimes
    steps: list[float]
    """Seconds of the measured batches."""
    host_bytes: int
    """Peak of main memory: process, loader processes, and the batches that they prefetch."""
    start_bytes: int
    """Part of it that the process had before the training."""
    loaders_bytes: int
    """Part of it in loader processes and prefetched batches."""
    gpu_bytes: int
    """Peak of tensors on the GPU, including validations."""
    gpu_reserved_bytes: int
    """Peak of the GPU memory that torch reserved, including validations."""
    gpu_step_bytes: int
    """Peak of the GPU memory that torch reserved for training steps alone. A validation computes fewer windows at once
    if memory is short."""
    model: MemoryModel
    network: NetworkConfig | None
    """Network whose patch size can change; None if samples have one size."""
    patch: Shape
    batch: int
    accumulate: int

    def peak_bytes(self, machine: Machine) -> int:
        """Return the memory that must fit: of steps on a GPU, else main memory of all ranks on this machine."""
        return self.gpu_step_bytes if machine.kind == "cuda" else self.host_bytes * machine.local_ranks

    def fits(self, machine: Machine) -> bool:
        """Return whether the peak is within the usable memory."""
        return self.peak_bytes(machine) <= USABLE * machine.memory_bytes

    def largest_batch(self, machine: Machine, patch: Shape | None = None) -> int:
        """Return the largest batch of a rank that fits."""
        shared = 1 if machine.kind == "cuda" else machine.local_ranks
        return self.model.largest_batch(patch or self.patch, machine.memory_bytes / shared)

    def patches(self, machine: Machine, shapes: Sequence[tuple[int, ...]]) -> list[PatchRow]:
        """Return estimates for valid patch sizes around the config's."""
        assert self.network is not None
        return [
            PatchRow(
                patch=patch,
                largest_batch=self.largest_batch(machine, patch),
                bytes=self.model.peak(patch, self.batch),
                batch_seconds=self.times.batch * (math.prod(patch) / math.prod(self.patch)),
                volumes=sum(all(n >= p for n, p in zip(shape, patch, strict=True)) for shape in shapes),
            )
            for patch in candidates(self.patch, self.network)
        ]


@dataclass(frozen=True)
class StagePlan:
    """Plan of the test or predict stage of one rank."""

    volumes: int
    """Number of cases or frames."""
    windows: float
    """Windows per case or frame."""
    window_seconds: float
    more_seconds: float
    """Time for reading, scoring, and repeated predictions of the cases that are drawn."""
    piece: str = "window"
    """Name of the unit that is timed."""

    @property
    def seconds(self) -> float:
        """Total time."""
        return self.volumes * self.windows * self.window_seconds + self.more_seconds


@dataclass
class Plan:
    """Plan of a run; None for stages that the run does not have."""

    name: str
    stages: list[str]
    machine: Machine
    cases: dict[str, Sequence[Any]] = field(default_factory=dict)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    """Sizes (z, y, x) of the prepared volumes in the cache."""
    preparation: Preparation | None = None
    fit: FitPlan | None = None
    test: StagePlan | None = None
    predict: StagePlan | None = None
    notes: list[str] = field(default_factory=list)
    unit: str = "volume"
    """Name of a case."""
    sample: str = "patch"
    """Name of a training sample."""

    @property
    def seconds(self) -> float:
        """Time of the whole run."""
        parts = [self.preparation.seconds if self.preparation else 0.0, self.fit.run.seconds if self.fit else 0.0]
        return sum(parts) + sum(stage.seconds for stage in (self.test, self.predict) if stage is not None)
