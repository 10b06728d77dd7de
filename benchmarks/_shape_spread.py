"""Whether the spread of sampled shapes is honest: volumes against conformal intervals, and voxel probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import Table
from benchmarks._shape_predicted import Predicted
from cytovox.metrics.reliability import Reliability
from cytovox.metrics.volume_spread import (
    VolumeScores,
    conformal_scores,
    joined,
    log_residuals,
    sampled_scores,
    spread_rows,
)
from cytovox.plots.charts import reliability_figure
from datamodules.shape.cases import ShapeCell

COLUMNS = {"coverage": "inside the 90 % interval", "width": "its width / volume", "relative_crps": "CRPS / volume"}


def spread_tables(
    cells: Sequence[ShapeCell], predictions: Mapping[str, Sequence[Predicted]], reference: str, figures: Path
) -> tuple[list[Table], dict[str, Any]]:
    """Coverage and CRPS of volumes, and the reliability of voxel probabilities.

    Parameters
    ----------
    cells : sequence of ShapeCell
        All of them.
    predictions : mapping of models to their outer folds
        Models with several samples are scored by these; the mean shapes of all get conformal intervals.
    reference : str
        The model whose conformal intervals the others are compared with.
    figures : Path
        Folder for the reliability diagram.
    """
    truth = {cell.name: cell.obj_ZYX for cell in cells if cell.obj_ZYX is not None}
    sampled = {m: folds for m, folds in predictions.items() if folds[0].samples_NSZYX.shape[1] > 1}
    scores = {
        f"{model}: samples": joined([_sampled(fold, truth) for fold in folds]) for model, folds in sampled.items()
    }
    scores |= {f"{model}: conformal": _conformal(folds, truth) for model, folds in predictions.items()}
    group_of = {cell.name: cell.group for cell in cells}
    strata = [group_of[name] for fold in predictions[reference] for name in fold.names]
    rows = spread_rows(scores, f"{reference}: conformal", strata=strata)
    table = Table(
        "Volumes: spread of the samples, and cross-conformal intervals around mean shapes",
        ["forecast", *COLUMNS.values(), f"CRPS against {reference}: conformal, %"],
    )
    for row in rows:
        shown = [f"{row[k]:.3f} [{row[f'{k}_low']:.3f}, {row[f'{k}_high']:.3f}]" for k in COLUMNS]
        change = "" if "crps_change" not in row else _percent(row)
        table.rows.append([str(row["model"]), *shown, change])
    reliable, reliability = _reliability(sampled, truth, figures)
    return [table, reliable], {"volumes": rows, "reliability": reliability}


def _percent(row: Mapping[str, Any]) -> str:
    value, low, high = (100 * row[f"crps_change{end}"] for end in ("", "_low", "_high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _volumes(fold: Predicted, truth: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.array([truth[name].sum() for name in fold.names], np.float64)


def _sampled(fold: Predicted, truth: Mapping[str, np.ndarray]) -> VolumeScores:
    return sampled_scores(fold.samples_NSZYX.sum(axis=(2, 3, 4)), _volumes(fold, truth))


def _conformal(folds: Sequence[Predicted], truth: Mapping[str, np.ndarray]) -> VolumeScores:
    """Each fold with the errors of the other folds' models: all of them on cells that those had not seen."""
    predicted = [fold.mean_NZYX.sum(axis=(1, 2, 3)).astype(np.float64) for fold in folds]
    true = [_volumes(fold, truth) for fold in folds]
    scores = []
    for k in range(len(folds)):
        others = [i for i in range(len(folds)) if i != k]
        residuals = log_residuals(
            np.concatenate([predicted[i] for i in others]), np.concatenate([true[i] for i in others])
        )
        scores.append(conformal_scores(predicted[k], true[k], residuals))
    return joined(scores)


def _reliability(
    sampled: Mapping[str, Sequence[Predicted]], truth: Mapping[str, np.ndarray], figures: Path
) -> tuple[Table, dict[str, Any]]:
    found: dict[str, Reliability] = {}
    for model, folds in sampled.items():
        found[model] = Reliability()
        for fold in folds:
            for name, samples_SZYX in zip(fold.names, fold.samples_NSZYX, strict=True):
                found[model].add(samples_SZYX.mean(axis=0, dtype=np.float64), truth[name])
    reliability_figure(figures / "shape_reliability.png", found)
    columns = ["model", *(f"{k / 10:.1f} to {(k + 1) / 10:.1f}" for k in range(10)), "calibration error"]
    table = Table("Voxels: share truly inside, by the probability they were given", columns)
    for model, one in found.items():
        shown = ["" if np.isnan(value) else f"{value:.2f}" for value in one.observed_B]
        table.rows.append([model, *shown, f"{one.calibration_error():.3f}"])
    return table, {m: {"observed": r.observed_B.tolist(), "error": r.calibration_error()} for m, r in found.items()}
