"""Test scores of the shape task by cell, over all ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from cytovox.metrics.reliability import Reliability
from cytovox.metrics.shapes import ShapeErrors, as_metrics, sample_errors, shape_errors
from cytovox.metrics.volume_spread import central_interval, sampled_scores
from cytovox.models.shape import Shapes
from lightning_modules.scoring import gathered

#: Number of samples from which the best is chosen.
BEST_OF = 5


@dataclass(frozen=True)
class CellScore:
    """Scores of one test cell."""

    index: int
    """Position among the test cells."""
    mean: ShapeErrors
    """Errors of the mean shape."""
    single: ShapeErrors
    """Errors of a single sample: the mean over all samples."""
    best: ShapeErrors | None
    """Errors of the best of five samples by IoU; None with fewer samples."""
    volume: int
    """True volume in voxels."""
    volumes: tuple[int, ...]
    """Volumes of the samples in voxels."""
    mean_volume: int
    """Volume of the mean shape in voxels."""


class ShapeScores:
    """Scores of the test cells, in the order of the test set."""

    def __init__(self) -> None:
        self.cells: list[CellScore] = []
        self.reliability = Reliability()
        """Calibration of the voxel probabilities of cells with more than one sample."""

    def add(self, index: int, shapes: Shapes, truth_ZYX: torch.Tensor) -> None:
        """Score a cell.

        Parameters
        ----------
        index : int
            Position among the test cells.
        shapes : Shapes
            Predicted shapes.
        truth_ZYX : bool tensor
            True object.
        """
        samples, truth = shapes.samples_NZYX.numpy(), truth_ZYX.numpy()
        if len(samples) > 1:
            self.reliability.add(shapes.probability_ZYX.numpy(), truth)
        enough = len(samples) >= BEST_OF
        found = sample_errors(samples, truth, k=BEST_OF if enough else 1)
        self.cells.append(
            CellScore(
                index=index,
                mean=shape_errors(shapes.mean_ZYX.numpy(), truth),
                single=found.single,
                best=found.best if enough else None,
                volume=int(truth.sum()),
                volumes=tuple(int(sample.sum()) for sample in samples),
                mean_volume=int(shapes.mean_ZYX.sum()),
            )
        )

    def gather(self) -> None:
        """Collect the cells of all ranks, each once, in the order of the test set."""
        ranks = gathered((self.cells, self.reliability))
        by_index = {cell.index: cell for cells, _ in ranks for cell in cells}
        self.cells, self.reliability = [cell for _, cell in sorted(by_index.items())], Reliability()
        for _, reliability in ranks:
            self.reliability.merge(reliability)

    def means(self) -> dict[str, float]:
        """Return mean errors of the mean shape, a single sample and the best of five, and scores of the volumes."""
        if not self.cells:
            return {}
        found = as_metrics([cell.mean for cell in self.cells], "")
        found |= as_metrics([cell.single for cell in self.cells], "single/")
        best = [cell.best for cell in self.cells if cell.best is not None]
        if best:
            found |= as_metrics(best, f"best_of_{BEST_OF}/")
        if len(self.cells[0].volumes) > 1:
            volumes_NS = np.array([cell.volumes for cell in self.cells])
            spread = sampled_scores(volumes_NS, np.array([cell.volume for cell in self.cells]))
            if not np.isnan(spread.covered_N).any():  # nan: too few samples for such an interval
                found["volume_coverage_90"] = float(spread.covered_N.mean())
            found["volume_crps"] = float(spread.relative_crps_N.mean())
            found["calibration_error"] = self.reliability.calibration_error()
        return found

    def rows(self, names: list[str], groups: list[str]) -> list[dict[str, object]]:
        """Return one table row per cell, given the names and classes of all test cells."""
        return [
            {
                "cell": names[cell.index],
                "class": groups[cell.index],
                **asdict(cell.mean),
                **{f"single_{k}": v for k, v in asdict(cell.single).items()},
                **({f"best_{k}": v for k, v in asdict(cell.best).items()} if cell.best is not None else {}),
                "volume": cell.volume,
                "volume_mean_shape": cell.mean_volume,
                **volume_columns(cell.volumes),
            }
            for cell in self.cells
        ]

    def examples(self) -> dict[str, CellScore]:
        """Return the best, the median and the worst cell by the IoU of their mean shape."""
        ranked = sorted(self.cells, key=lambda cell: cell.mean.iou_error)
        if not ranked:
            return {}
        return {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}


def volume_columns(volumes: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Return the table columns of the central 90 % interval of a cell's sampled volumes.

    `ShapeScores.means` scores the same interval.

    Parameters
    ----------
    volumes : sequence of float
        Volumes of the samples of one cell.

    Returns
    -------
    dict
        `volume_low` and `volume_high` in the unit of the volumes, and `volume_interval_coverage`, the probability that
        one more sample lies between them; nan with fewer than 19 samples.
    """
    found = central_interval(np.asarray(volumes, np.float64)[None])
    return {
        "volume_low": float(found.low_N[0]),
        "volume_high": float(found.high_N[0]),
        "volume_interval_coverage": found.coverage,
    }


#: Columns of the errors in a table.
ERROR_COLUMNS = [f.name for f in dataclasses.fields(ShapeErrors)]
