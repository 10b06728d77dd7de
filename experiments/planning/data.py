"""Plan the preparation of the data: which volumes are not in the cache, and how long one of them takes."""

import dataclasses
import itertools
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cytovox.simulation import Request, simulate_many
from datamodules.cache import cache_root
from datamodules.cases import Case, FolderCase
from datamodules.config import OrganelleData, SimulatorData
from datamodules.organelle import OrganelleDataModule, is_annotated
from datamodules.prepare import Preparer
from datamodules.simulated import cases_of, cores, requests_of

#: Seconds for the search in the cache. The plan does not read a whole folder whose files were never read before.
LOOK_S = 5.0


@dataclass(frozen=True)
class Share:
    """Volumes that a step of the preparation still has to process."""

    missing: int
    total: int
    seconds: float
    """Time of one volume; 0 if none is missing."""
    workers: int = 1
    """Number of volumes processed at once."""

    @property
    def all_seconds(self) -> float:
        """Time of all missing volumes."""
        return math.ceil(self.missing / self.workers) * self.seconds


def all_cases(config: OrganelleData, seed: int) -> dict[str, Sequence[Case]]:
    """Return the cases of every split; simulated volumes are named and not computed."""
    if not isinstance(config, SimulatorData):
        return OrganelleDataModule(config, seed).find()
    return dict(cases_of(config, requests_of(config)))


def find_prepared(
    cases: Sequence[Case], config: OrganelleData, look_s: float = LOOK_S
) -> tuple[int, list[tuple[int, ...]]]:
    """Return how many cases have no prepared volume in the cache, and the sizes (z, y, x) of those that have one.

    The key of a case in the cache depends on the content of its files. If reading them all would take longer than
    `look_s` seconds, the fraction among those that were read stands for the others.
    """
    preparer, end = Preparer(config), time.perf_counter() + look_s
    entries = [preparer.find(case) for case in itertools.takewhile(lambda _: time.perf_counter() <= end, cases)]
    missing = round(entries.count(None) / len(entries) * len(cases)) if entries else 0
    usable = [entry for entry in entries if entry is not None and entry.usable()]
    return missing, [tuple(entry.arrays()["image"].shape[1:]) for entry in usable]


def simulate_some(config: OrganelleData, data: OrganelleDataModule) -> Share:
    """Simulate the volumes that the data module needs, measure the time, and count those still missing."""
    if not isinstance(config, SimulatorData):
        data.find()
        return Share(0, 0, 0.0)
    root = cache_root(config.cache_dir) / "simulated"
    requests = list(dict.fromkeys(r for found in requests_of(config).values() for r in found))

    def missing() -> list[Request]:
        return [r for r in requests if not (root / r.filename).is_file()]

    before, begun = missing(), time.perf_counter()
    data.find()
    seconds, after = time.perf_counter() - begun, missing()
    made, one = len(before) - len(after), 0.0
    if made:
        one = seconds * min(made, cores()) / made
    elif after:
        begun = time.perf_counter()
        simulate_many(after[:1], root)
        one, after = time.perf_counter() - begun, after[1:]
    return Share(len(after), len(requests), one, max(1, min(cores(), len(after))))


def measure_preparing(missing: int, total: int, ready: Case, config: OrganelleData) -> Share:
    """Measure the preparation of a readable case in a temporary folder, if any volumes are missing."""
    if not missing:
        return Share(0, total, 0.0)
    with tempfile.TemporaryDirectory(prefix="cytovox-plan-") as folder:
        begun = time.perf_counter()
        Preparer(dataclasses.replace(config, cache_dir=folder)).prepare([ready])
        return Share(missing, total, time.perf_counter() - begun)


def measure_checking(cases: Sequence[Case]) -> Share:
    """Measure the reading of one test case; a run reads all test cases of a folder before it starts."""
    if not cases or not isinstance(cases[0], FolderCase):
        return Share(0, 0, 0.0)
    begun = time.perf_counter()
    is_annotated(cases[0])
    return Share(len(cases), len(cases), time.perf_counter() - begun)
