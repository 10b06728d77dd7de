"""What preparing the data still takes: volumes that are not in the cache, and how long one of them is."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cytovox.simulation import Request, simulate_many
from datamodules.cache import PreparedCase, cache_root
from datamodules.cases import Case, FolderCase
from datamodules.config import OrganelleData, SimulatorData
from datamodules.organelle import OrganelleDataModule
from datamodules.prepare import Preparer
from datamodules.simulated import cases_of, cores, requests_of

#: Seconds for looking through the cache: a folder that was never read is not read for this.
LOOK_S = 5.0


@dataclass(frozen=True)
class Share:
    """Volumes that something is still to be done with."""

    missing: int
    total: int
    seconds: float
    """Of one; 0 where none is missing."""
    workers: int = 1
    """How many are done at once."""

    @property
    def all_seconds(self) -> float:
        """Of all that are missing."""
        return math.ceil(self.missing / self.workers) * self.seconds


@dataclass(frozen=True)
class Preparation:
    """What happens before the first step."""

    simulate: Share
    prepare: Share
    check: Share
    """Reading every test volume of a folder once."""

    @property
    def seconds(self) -> float:
        """In all."""
        return self.simulate.all_seconds + self.prepare.all_seconds + self.check.all_seconds


def all_cases(config: OrganelleData, seed: int) -> dict[str, Sequence[Case]]:
    """Cases of every split; simulated ones are named, not made."""
    if not isinstance(config, SimulatorData):
        return OrganelleDataModule(config, seed).find()
    return dict(cases_of(config, requests_of(config)))


@dataclass(frozen=True)
class Looked:
    """What the cache holds of some cases."""

    missing: int
    """Cases without a prepared volume."""
    entries: list[PreparedCase]
    """Prepared volumes that were found."""


def look_through(cases: Sequence[Case], config: OrganelleData, look_s: float = LOOK_S) -> Looked:
    """Find prepared volumes in the cache, and make none.

    A case's place in the cache is named by the content of its files. Where reading them all would take longer than
    `look_s` seconds, the share among those that were looked at stands for the rest.
    """
    preparer, begun = Preparer(config), time.perf_counter()
    found, looked = [], 0
    for case in cases:
        if time.perf_counter() - begun > look_s:
            break
        looked += 1
        entry = preparer.find(case)
        if entry is not None:
            found.append(entry)
    missing = round((looked - len(found)) / looked * len(cases)) if looked else 0
    return Looked(missing, found)


def simulate_some(config: OrganelleData, data: OrganelleDataModule) -> Share:
    """Simulate what the data module needs, with a clock, and count what is missing then."""
    if not isinstance(config, SimulatorData):
        data.find()
        return Share(0, 0, 0.0)
    root = cache_root(config.cache_dir) / "simulated"
    requests = list(dict.fromkeys(r for found in requests_of(config).values() for r in found))

    def missing() -> list[Request]:
        return [r for r in requests if not (root / r.filename).is_file()]

    before, begun = missing(), time.perf_counter()
    data.find()
    took, after = time.perf_counter() - begun, missing()
    made = len(before) - len(after)
    if made:
        one = took * min(made, cores()) / made
    elif after:
        begun = time.perf_counter()
        simulate_many(after[:1], root)
        one, after = time.perf_counter() - begun, after[1:]
    else:
        one = 0.0
    return Share(len(after), len(requests), one, max(1, min(cores(), len(after))))


def measure_preparing(missing: int, total: int, ready: Case, config: OrganelleData) -> Share:
    """Prepare a case that can be read, in a folder that is thrown away, if any are missing."""
    if not missing:
        return Share(0, total, 0.0)
    with tempfile.TemporaryDirectory(prefix="cytovox-plan-") as folder:
        begun = time.perf_counter()
        Preparer(dataclasses.replace(config, cache_dir=folder)).prepare([ready])
        return Share(missing, total, time.perf_counter() - begun)


def measure_checking(cases: Sequence[Case]) -> Share:
    """Read one test case; a run reads all of a folder's before it begins."""
    if not cases or not isinstance(cases[0], FolderCase):
        return Share(0, 0, 0.0)
    begun = time.perf_counter()
    cases[0].load()
    return Share(len(cases), len(cases), time.perf_counter() - begun)


def prepared_shapes(entries: Sequence[PreparedCase]) -> list[tuple[int, ...]]:
    """Sizes (z, y, x) of prepared volumes."""
    return [tuple(entry.arrays()["image"].shape[1:]) for entry in entries if entry.usable()]
