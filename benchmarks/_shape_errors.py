"""Errors of all models on the same cells: mean shape, single sample and best of five, and what limits them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks._common import Table
from benchmarks._shape_predicted import Predicted
from cytovox.measurement.solids import cylinder, ellipsoid
from cytovox.metrics.shapes import ERRORS, ShapeErrors, change_rows, sample_errors, score_rows, shape_errors
from datamodules.shape.cases import ShapeCell

BEST_OF = 5
#: The slice that is imaged.
SLICE = 32
FITS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"cylinder": cylinder, "ellipsoid": ellipsoid}
SHOWN = {"iou_error": "1 - IoU", "volume_error": "volume", "surface_error": "surface", "roughness_error": "roughness"}


@dataclass
class ModelErrors:
    """Errors of one model, cell by cell in the order of all cells."""

    mean: list[ShapeErrors] = field(default_factory=list)
    mesh: list[ShapeErrors] = field(default_factory=list)
    """Of the mean shape, its surface measured on a mesh."""
    single: list[ShapeErrors] = field(default_factory=list)
    best: list[ShapeErrors] = field(default_factory=list)
    """Empty of a model that gives fewer than five samples."""
    minutes: float = 0.0
    steps: int = 0


def model_errors(cells: Sequence[ShapeCell], predictions: Mapping[str, Sequence[Predicted]]) -> dict[str, ModelErrors]:
    """Errors of the fits to the mask, and of every model whose folds are all there.

    Parameters
    ----------
    cells : sequence of ShapeCell
        All cells, in the order of the errors.
    predictions : mapping of models to their outer folds
        Together of every cell, each once.
    """
    found = {name: _fitted(cells, fit) for name, fit in FITS.items()}
    return found | {name: _predicted(name, cells, folds) for name, folds in predictions.items()}


def _fitted(cells: Sequence[ShapeCell], fit: Callable[[np.ndarray], np.ndarray]) -> ModelErrors:
    found = ModelErrors()
    for cell in cells:
        _add(found, fit(cell.mask_YX), None, _truth(cell))
    return found


def _predicted(name: str, cells: Sequence[ShapeCell], folds: Sequence[Predicted]) -> ModelErrors:
    found = ModelErrors(minutes=float(np.mean([fold.seconds for fold in folds])) / 60, steps=folds[0].steps)
    place = {cell: (fold, i) for fold in folds for i, cell in enumerate(fold.names)}
    for cell in track(cells, f"scoring {name}"):
        fold, i = place[cell.name]
        _add(found, fold.mean_NZYX[i], fold.samples_NSZYX[i], _truth(cell))
    return found


def _add(found: ModelErrors, mean_ZYX: np.ndarray, samples_SZYX: np.ndarray | None, truth_ZYX: np.ndarray) -> None:
    found.mean.append(shape_errors(mean_ZYX, truth_ZYX))
    found.mesh.append(shape_errors(mean_ZYX, truth_ZYX, surface="mesh"))
    if samples_SZYX is None or len(samples_SZYX) < BEST_OF:
        found.single.append(found.mean[-1])
        return
    drawn = sample_errors(samples_SZYX, truth_ZYX, k=BEST_OF)
    found.single.append(drawn.single)
    found.best.append(drawn.best)


def error_tables(cells: Sequence[ShapeCell], found: Mapping[str, ModelErrors]) -> tuple[list[Table], dict[str, Any]]:
    """The table of all models, that of the classes, and the paired change against SHAPR."""
    groups = [cell.group for cell in cells]
    columns = ["model", "shape", *SHOWN.values(), "surface (mesh)", "minutes", "steps"]
    table = Table(f"Errors on {len(cells)} cells, 5 folds: mean [95 %, bootstrap over cells]", columns)
    rows: dict[str, Any] = {}
    for name, errors in found.items():
        mesh = score_rows({name: errors.mesh}, strata=groups)[0]
        for kind in ("mean", "single", "best"):
            scored = getattr(errors, kind)
            if not scored or (kind == "single" and not errors.best):
                continue
            row = score_rows({name: scored}, strata=groups)[0]
            rows[f"{name}: {kind}"] = row
            area = _interval(mesh, "surface_error") if kind == "mean" else ""
            cost = [f"{errors.minutes:.1f}", str(errors.steps)] if errors.steps and kind == "mean" else ["", ""]
            table.rows.append([name, kind, *(_interval(row, e) for e in ERRORS), area, *cost])
    tables = [table, _class_table(groups, found)]
    if "shapr" in found:
        changes = change_rows({name: errors.mean for name, errors in found.items()}, "shapr", strata=groups)
        rows["change against shapr"] = changes
        tables.append(_change_table(changes))
    return tables, rows


def _class_table(groups: Sequence[str], found: Mapping[str, ModelErrors]) -> Table:
    names = sorted(set(groups))
    sizes = {name: groups.count(name) for name in names}
    table = Table("1 - IoU / volume of the mean shape by class", ["model", *(f"{n} ({sizes[n]})" for n in names)])
    for model, errors in found.items():
        shown = []
        for name in names:
            own = [e for e, group in zip(errors.mean, groups, strict=True) if group == name]
            shown.append(" / ".join(f"{np.mean([getattr(e, what) for e in own]):.3f}" for what in ERRORS[:2]))
        table.rows.append([model, *shown])
    return table


def _change_table(changes: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("Change of the mean shape's errors against SHAPR's, paired, %", ["model", *SHOWN.values()])
    for row in changes:
        shown = [" ".join(_percent(row, what)) for what in ERRORS]
        table.rows.append([str(row["model"]), *shown])
    return table


def _percent(row: Mapping[str, Any], what: str) -> tuple[str, str]:
    low, high = (100 * row[f"{what}_{end}"] for end in ("low", "high"))
    return f"{100 * row[what]:+.1f}", f"[{low:+.1f}, {high:+.1f}]"


def _interval(row: Mapping[str, Any], what: str) -> str:
    return f"{row[what]:.3f} [{row[f'{what}_low']:.3f}, {row[f'{what}_high']:.3f}]"


def limits_table(cells: Sequence[ShapeCell], folds: Sequence[Predicted]) -> tuple[Table, dict[str, Any]]:
    """What limits 1 - IoU: how thick each column (y, x) of a cell is, or where along z it lies.

    A mirror image of a cell in the imaged plane has the same mask, so nothing but a lopsided optics could tell the two
    apart; whoever answers one shape for both can at best be right about thickness.
    """
    place = {cell: fold.mean_NZYX[i] for fold in folds for i, cell in enumerate(fold.names)}
    kinds: dict[str, list[float]] = {}
    for cell in cells:
        truth, pred = _truth(cell), place[cell.name]
        inside, middle, thick = _columns(truth)
        pred_inside, pred_middle, pred_thick = _columns(pred)
        mirrored = np.roll(truth[::-1], 2 * SLICE - len(truth) + 1, axis=0)
        for what, shape in {
            "the mean shape as predicted": pred,
            "predicted thickness, true middles": _stacked(np.where(inside, middle, pred_middle), pred_thick),
            "true thickness, predicted middles": _stacked(np.where(pred_inside, pred_middle, SLICE), thick),
            "true thickness, all middles in the imaged plane": _stacked(np.full_like(middle, SLICE), thick),
            "the truth mirrored in the imaged plane": mirrored,
            "the truth together with its mirror image": truth | mirrored,
        }.items():
            kinds.setdefault(what, []).append(1 - float((shape & truth).sum() / (shape | truth).sum()))
    table = Table("What limits 1 - IoU: each answer against the truth", ["answer", "1 - IoU"])
    table.rows = [[what, f"{np.mean(values):.3f}"] for what, values in kinds.items()]
    return table, {what: float(np.mean(values)) for what, values in kinds.items()}


def _columns(obj_ZYX: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each column: whether it has anything inside, the middle of its ends, and how many voxels it has."""
    inside_YX = obj_ZYX.any(axis=0)
    first_YX, last_YX = obj_ZYX.argmax(axis=0), len(obj_ZYX) - 1 - obj_ZYX[::-1].argmax(axis=0)
    return inside_YX, np.where(inside_YX, (first_YX + last_YX) / 2, SLICE), obj_ZYX.sum(axis=0)


def _stacked(middle_YX: np.ndarray, thickness_YX: np.ndarray, depth: int = 64) -> np.ndarray:
    """Solid columns of these middles and thicknesses."""
    return np.abs(np.arange(depth)[:, None, None] - middle_YX) < thickness_YX / 2


def _truth(cell: ShapeCell) -> np.ndarray:
    assert cell.obj_ZYX is not None
    return cell.obj_ZYX
