"""Simulated cases: the volumes that a config names, and their files in the simulator's cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from cytovox.simulation import Options, Request, simulate_many
from datamodules.cache import cache_root
from datamodules.cases import SimulatedCase
from datamodules.config import SimulatorData, simulated_names
from datamodules.splits import SPLITS


def requests_of(config: SimulatorData, limit: int | None = None) -> dict[str, list[Request]]:
    """Return the volumes of every split, or only the first `limit` of each."""
    (low, high), (few, many) = config.noise_ri, config.density
    options = Options(config.medium_ri, config.medium_spread, (low, high), density=(few, many))
    (z, y, x), (dz, dy, dx) = config.shape, config.spacing_um
    return {
        split: [Request(*name, (z, y, x), (dz, dy, dx), options) for name in simulated_names(getattr(config, split))]
        [:limit]
        for split in SPLITS
    }  # fmt: skip


def cases_of(config: SimulatorData, requests: Mapping[str, Sequence[Request]]) -> dict[str, Sequence[SimulatedCase]]:
    """Return the cases of every split; the volumes themselves need not exist yet."""
    root, organelles = cache_root(config.cache_dir) / "simulated", tuple(config.organelles)
    return {
        split: [SimulatedCase(r.preset, r.seed, root / r.filename, organelles) for r in found]
        for split, found in requests.items()
    }


def make_volumes(
    config: SimulatorData, wanted: Sequence[Request], progress: Callable[[int, int], None] | None = None
) -> None:
    """Simulate the volumes that are not in the cache yet, on all cores."""
    simulate_many(wanted, cache_root(config.cache_dir) / "simulated", workers=cores(), progress=progress)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
