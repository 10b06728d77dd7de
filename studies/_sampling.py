"""Samples of many cells in one batch, kept on disk so that a stopped study continues."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cytovox.errors import InputError
from cytovox.inference.ensemble import autocast
from cytovox.io.atomic import atomic_path
from cytovox.models.shape import condition
from datamodules.shape.cases import ShapeCell
from datamodules.shape.dataset import shape_sample
from lightning_modules.shape import ShapeModule
from studies._common import LINE_S, synchronised_seconds

#: Evaluations that the time of a batch is estimated from, after one that does not count.
TIMED = 2


@dataclass(frozen=True)
class SampleStore:
    """Samples on disk, one file per cell: `NAME.npz` with packed bits and the seconds that one sample took."""

    folder: Path

    @classmethod
    def of(cls, root: Path, provenance: Sequence[object]) -> SampleStore:
        """Return the store of these weights and settings: with others, nothing in it is found."""
        return cls(root / hashlib.sha256(repr(tuple(provenance)).encode()).hexdigest()[:16])

    def has(self, name: str) -> bool:
        """Whether the samples of a cell are there."""
        return self._path(name).is_file()

    def write(self, name: str, samples_SZYX: np.ndarray, seconds: float) -> None:
        """Keep the samples of a cell, bool (S, Z, Y, X), and the seconds that one of them took."""
        with atomic_path(self._path(name)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file, bits=np.packbits(samples_SZYX), shape=np.array(samples_SZYX.shape), seconds=np.array(seconds)
            )

    def read(self, name: str) -> tuple[np.ndarray, float]:
        """Return the samples of a cell, bool (S, Z, Y, X), and the seconds that one of them took."""
        with np.load(self._path(name)) as content:
            shape, bits, seconds = content["shape"], content["bits"], float(content["seconds"])
        count = int(np.prod(shape))
        return np.unpackbits(bits, count=count).reshape(shape).astype(bool), seconds

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"


@dataclass(frozen=True)
class SamplingPlan:
    """How cells are sampled."""

    samples: int
    """Of each cell."""
    batch: int
    """Samples that the network evaluates at once; several cells share a batch."""
    precision: str
    """Lightning's word, such as `bf16-mixed`."""
    seed: int
    minutes: float
    """Of sampling in this call."""


def sample_cells(module: ShapeModule, cells: Sequence[ShapeCell], plan: SamplingPlan, store: SampleStore) -> int:
    """Sample every cell that the store lacks, as far as the time allows.

    The samples are the network's own: the imaged slice is not written into them. A cell's samples depend on the seed
    and on its place, never on the batch.

    Parameters
    ----------
    module : ShapeModule
        On its device, in evaluation mode.
    cells : sequence of ShapeCell
    plan : SamplingPlan
    store : SampleStore
        Where the samples go.

    Returns
    -------
    int
        Cells that the store still lacks.

    Raises
    ------
    InputError
        Not even one batch fits the time.
    """
    begun, together = time.perf_counter(), max(1, plan.batch // plan.samples)
    first = done = next((place for place, cell in enumerate(cells) if not store.has(cell.name)), len(cells))
    while done < len(cells):
        some = cells[done : done + together]
        conditions_BCYX = conditions(some, plan.samples).to(module.device)
        expected = estimate_seconds(module, conditions_BCYX, plan.precision)
        left = 60 * plan.minutes - (time.perf_counter() - begun)
        print(f"{len(some)} cells in a batch of {len(conditions_BCYX)}: about {expected:.0f} s", flush=True)
        if expected > left:
            if done > first:
                break
            raise InputError(
                f"--minutes: a batch of {len(conditions_BCYX)} samples takes about {expected / 60:.1f} min, and "
                f"{left / 60:.1f} are left; give more, or lower --batch or --sampling-steps"
            )
        fields, seconds = draw(module, conditions_BCYX, seeds_from(plan.seed, done * plan.samples), plan.precision)
        for cell, own in zip(some, fields.split(plan.samples), strict=True):
            store.write(cell.name, (own[:, 0] > 0).cpu().numpy(), seconds / len(conditions_BCYX))
        done += len(some)
        print(f"{done} of {len(cells)} cells, {seconds:.1f} s the batch", flush=True)
    return len(cells) - done


def seeds_from(seed: int, number: int) -> torch.Generator:
    """Return a generator that gives the seeds of the samples from this number on (see `noise.Draws`)."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(number):
        torch.randint(2**62, (1,), generator=generator)
    return generator


def conditions(cells: Sequence[ShapeCell], samples: int) -> torch.Tensor:
    """Return what the network sees of each cell, `samples` times in turn: float32 (cells * samples, 2, Y, X)."""
    shown = [shape_sample(cell, 0) for cell in cells]
    images_BCYX, masks_BCYX = (torch.stack([sample[key] for sample in shown]) for key in ("image", "mask"))
    return condition(images_BCYX, masks_BCYX).repeat_interleave(samples, dim=0)


def draw(
    module: ShapeModule, conditions_BCYX: torch.Tensor, generator: torch.Generator, precision: str
) -> tuple[torch.Tensor, float]:
    """Return one field per condition, float32 (B, 1, Z, Y, X), and the seconds that the batch took."""
    lines = EvaluationLines(module.parts.sampler.evaluations)
    with lines.of(module.network), autocast(module.device.type, precision):
        found, seconds = synchronised_seconds(
            module.device, lambda: module.draw(conditions_BCYX, generator).samples_BCZYX.float()
        )
    return found, seconds


class EvaluationLines:
    """Print a line every half minute while a network is evaluated."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0

    @contextlib.contextmanager
    def of(self, network: torch.nn.Module) -> Iterator[None]:
        """Count the evaluations of this network."""
        self._begun = self._printed = time.perf_counter()
        hook = network.register_forward_hook(self._count)
        try:
            yield
        finally:
            hook.remove()

    def _count(self, *_: Any) -> None:
        self._done, now = self._done + 1, time.perf_counter()
        if now - self._printed > LINE_S:
            self._printed = now
            print(f"{now - self._begun:.0f} s: evaluation {self._done} of {self._total}", flush=True)


def estimate_seconds(module: ShapeModule, conditions_BCYX: torch.Tensor, precision: str) -> float:
    """Return the seconds that the samples of these conditions will take, from a few evaluations."""
    size, process = module.field.size, module.parts.process
    x_BCZYX = torch.randn(len(conditions_BCYX), 1, size, size, size, device=module.device)
    t_B = process.sampling_times(1)[0].to(module.device).expand(len(x_BCZYX))

    def evaluate(times: int) -> None:
        for _ in range(times):
            module.denoiser(x_BCZYX, t_B, conditions_BCYX)

    with torch.no_grad(), autocast(module.device.type, precision):
        evaluate(1)
        _, seconds = synchronised_seconds(module.device, lambda: evaluate(TIMED))
    return seconds / TIMED * module.parts.sampler.evaluations
