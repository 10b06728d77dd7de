"""What a model trained for the benchmark of shapes predicted of the cells it had not seen: one file a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cytovox.io.atomic import atomic_path


@dataclass(frozen=True)
class Predicted:
    """The predictions of one run."""

    model: str
    run: str
    """`fold2`, or `fold2_inner0`."""
    names: tuple[str, ...]
    """Of the cells that were predicted: held out of the training."""
    seen: frozenset[str]
    """Names of the cells that the model was trained on."""
    mean_NZYX: np.ndarray
    """bool, (N, 64, 64, 64): the mean shapes."""
    samples_NSZYX: np.ndarray
    """bool, (N, S, 64, 64, 64); S is 1 of a deterministic model."""
    steps: int
    """Of the training."""
    seconds: float
    """Of the training."""

    def write(self, folder: Path) -> None:
        """Keep it, eight voxels a byte."""
        path = _path(folder, self.model, self.run)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                names=np.array(self.names),
                seen=np.array(sorted(self.seen)),
                mean=np.packbits(self.mean_NZYX, axis=-1),
                samples=np.packbits(self.samples_NSZYX, axis=-1),
                fit=np.array([self.steps, self.seconds]),
            )


def is_predicted(folder: Path, model: str, run: str) -> bool:
    """Whether a run is done."""
    return _path(folder, model, run).is_file()


def read_predicted(folder: Path, model: str, run: str) -> Predicted:
    """What `Predicted.write` left there."""
    with np.load(_path(folder, model, run), allow_pickle=False) as kept:
        return Predicted(
            model=model,
            run=run,
            names=tuple(map(str, kept["names"])),
            seen=frozenset(map(str, kept["seen"])),
            mean_NZYX=np.unpackbits(kept["mean"], axis=-1).astype(bool),
            samples_NSZYX=np.unpackbits(kept["samples"], axis=-1).astype(bool),
            steps=int(kept["fit"][0]),
            seconds=float(kept["fit"][1]),
        )


def _path(folder: Path, model: str, run: str) -> Path:
    return folder / model / f"{run}.npz"
