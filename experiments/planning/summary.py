"""What a plan says."""

from __future__ import annotations

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
    """A patch that the network takes."""

    patch: Shape
    largest_batch: int
    """That fits; 0 where not even one patch does."""
    bytes: float
    """At the config's batch, estimated by voxels."""
    batch_seconds: float
    """The same."""
    volumes: int
    """Prepared volumes that are at least as large; a smaller one is padded with its edge."""


@dataclass(frozen=True)
class FitPlan:
    """The fit stage."""

    work: Work
    epoch: EpochPlan
    run: RunPlan
    times: FitTimes
    steps: list[float]
    """Seconds of the batches that were measured."""
    host_bytes: int
    """Peak of main memory: process, loader processes, batches between them."""
    start_bytes: int
    """Of it, what the process had before the training."""
    loaders_bytes: int
    """Of it, loader processes and batches between them."""
    gpu_bytes: int
    """Peak of tensors on the GPU, validations included."""
    gpu_reserved_bytes: int
    """The same of what torch keeps there."""
    gpu_step_bytes: int
    """The same of training steps alone: a validation computes fewer windows at once where memory is short."""
    model: MemoryModel
    network: NetworkConfig | None
    """Whose patches may be smaller or larger; None where samples have one size."""
    patch: Shape
    batch: int
    accumulate: int

    def peak_bytes(self, machine: Machine) -> int:
        """What must fit: on a GPU what torch keeps there for steps, else the main memory of all ranks here."""
        return self.gpu_step_bytes if machine.kind == "cuda" else self.host_bytes * machine.local_ranks

    def fits(self, machine: Machine) -> bool:
        """With some room left."""
        return self.peak_bytes(machine) <= USABLE * machine.memory_bytes

    def largest_batch(self, machine: Machine, patch: Shape | None = None) -> int:
        """Largest batch of a rank that fits."""
        shared = 1 if machine.kind == "cuda" else machine.local_ranks
        return self.model.largest_batch(patch or self.patch, machine.memory_bytes / shared)

    def patches(self, machine: Machine, shapes: Sequence[tuple[int, ...]]) -> list[PatchRow]:
        """Legal patches around the config's."""
        rows = []
        assert self.network is not None
        for patch in candidates(self.patch, self.network):
            z, y, x = patch
            share = z * y * x / (self.patch[0] * self.patch[1] * self.patch[2])
            large = sum(all(n >= p for n, p in zip(shape, patch, strict=True)) for shape in shapes)
            peak = self.model.peak(patch, self.batch)
            rows.append(PatchRow(patch, self.largest_batch(machine, patch), peak, self.times.batch * share, large))
        return rows


@dataclass(frozen=True)
class StagePlan:
    """The test or predict stage of one rank."""

    volumes: int
    """Cases, or frames."""
    windows: float
    """Of each."""
    window_seconds: float
    more_seconds: float
    """Reading, scoring and predicting again what is drawn."""
    piece: str = "window"
    """What is timed."""

    @property
    def seconds(self) -> float:
        """In all."""
        return self.volumes * self.windows * self.window_seconds + self.more_seconds


@dataclass
class Plan:
    """All of it; what is not asked for is None."""

    name: str
    stages: list[str]
    machine: Machine
    cases: dict[str, Sequence[Any]] = field(default_factory=dict)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    """Of the prepared volumes that the cache holds."""
    preparation: Preparation | None = None
    fit: FitPlan | None = None
    test: StagePlan | None = None
    predict: StagePlan | None = None
    notes: list[str] = field(default_factory=list)
    unit: str = "volume"
    """What a case is called."""
    sample: str = "patch"
    """What a training sample is called."""

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        parts = [self.preparation.seconds if self.preparation else 0.0, self.fit.run.seconds if self.fit else 0.0]
        return sum(parts) + sum(stage.seconds for stage in (self.test, self.predict) if stage is not None)
