"""Data classes of a plan."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cytovox.networks.registry import NetworkConfig
from experiments.planning.data import Share
from experiments.planning.duration import EpochPlan, RunPlan
from experiments.planning.machine import Machine
from experiments.planning.measure import Measured
from experiments.planning.patch_sizes import USABLE, MemoryModel, Shape, Work


@dataclass(frozen=True)
class FitPlan:
    """Plan of the fit stage."""

    work: Work
    epoch: EpochPlan
    run: RunPlan
    measured: Measured
    host_bytes: int
    """Peak of main memory: process, loader processes, and the batches that they prefetch."""
    loaders_bytes: int
    """Part of it in loader processes and prefetched batches."""
    model: MemoryModel
    network: NetworkConfig | None
    """Network whose patch size can change; None if samples have one size."""
    patch: Shape
    batch: int
    accumulate: int

    def peak_bytes(self, machine: Machine) -> int:
        """Return the memory that must fit: of steps on a GPU, else main memory of all ranks on this machine.

        A validation on a GPU computes fewer windows at once if memory is short.
        """
        return self.measured.gpu_step_bytes if machine.kind == "cuda" else self.host_bytes * machine.local_ranks

    def fits(self, machine: Machine) -> bool:
        """Return whether the peak is within the usable memory."""
        return self.peak_bytes(machine) <= USABLE * machine.memory_bytes

    def largest_batch(self, machine: Machine, patch: Shape | None = None) -> int:
        """Return the largest batch of a rank that fits."""
        shared = 1 if machine.kind == "cuda" else machine.local_ranks
        return self.model.largest_batch(patch or self.patch, machine.memory_bytes / shared)


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
    preparation: dict[str, Share] = field(default_factory=dict)
    """Steps of the preparation of the data by their name, such as `simulating`."""
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
        preparation = sum(share.all_seconds for share in self.preparation.values())
        stages = (self.fit.run if self.fit is not None else None, self.test, self.predict)
        return preparation + sum(stage.seconds for stage in stages if stage is not None)
