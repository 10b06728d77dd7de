"""Few steps against a thousand: the same rectified flow, and DISPR's objective on the same cheap network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import Table
from benchmarks._shape_predicted import Predicted, is_predicted, read_predicted
from benchmarks._shape_runs import ONCE
from benchmarks._shape_train import config_of, fold_cells, predict
from cytovox.metrics.shapes import sample_errors, shape_errors
from cytovox.statistics.bootstrap import interval, mean_of
from datamodules.shape.cases import ShapeCell
from experiments.build import build_from_weights
from experiments.weights import read_weights
from training.rundir import RunFolder

#: Samples of a cell: a thousand steps take a minute of one core for these.
SAMPLES = 5
STEPS = (1, 2, 4, 6, 8, 1000)
ERRORS = ("iou_error", "volume_error", "surface_error", "roughness_error")


def predict_steps(cells: Sequence[ShapeCell], data: Path, work: Path, steps: int) -> Predicted:
    """The first fold's flow, sampled in so many steps; kept, so that it is done once."""
    name = f"flow_{steps}_steps"
    if not is_predicted(work, name, "fold0"):
        trained = read_predicted(work, "flow", "fold0")
        config = config_of("flow", data, trained.steps, [f"sampler.steps={steps}"])
        path = RunFolder(work / "runs" / "flow" / "fold0").last_checkpoint
        module: Any = build_from_weights(config, read_weights(config, [path])).eval()
        _, held = fold_cells(cells, "fold0")
        means_NZYX, samples_NSZYX = predict(module, held, SAMPLES)
        names = tuple(cell.name for cell in held)
        Predicted(name, "fold0", names, trained.seen, means_NZYX, samples_NSZYX, trained.steps, 0.0).write(work)
    return read_predicted(work, name, "fold0")


def steps_table(cells: Sequence[ShapeCell], data: Path, work: Path) -> tuple[Table, dict[str, Any]]:
    """Errors of the first fold's cells by the number of steps.

    Parameters
    ----------
    cells : sequence of ShapeCell
        All of them.
    data : Path
        Their folder.
    work : Path
        Where the trainings are.
    """
    found = {f"rectified flow, {steps} steps": predict_steps(cells, data, work, steps) for steps in STEPS}
    found["DISPR's objective, 1000 steps"] = read_predicted(work, ONCE, "fold0")
    found["traits, one step"] = read_predicted(work, "traits", "fold0")
    truth = {cell.name: cell.obj_ZYX for cell in cells}
    columns = ["model", "cells", "samples", *(f"{kind} {name}" for kind in ("mean", "single") for name in ERRORS)]
    table, rows = Table("Few steps and many, first fold", columns), {}
    reference = _errors(found[f"rectified flow, {STEPS[-1]} steps"], truth)
    for name, predicted in found.items():
        errors = _errors(predicted, truth)
        count = len(predicted.names)
        values = {key: interval(mean_of(errors[key]), count) for key in errors}
        change = interval(mean_of(errors["mean iou_error"] - reference["mean iou_error"]), count)
        rows[name] = {key: vars(value) for key, value in values.items()} | {"mean iou_error change": vars(change)}
        shown = [f"{v.value:.3f} [{v.low:.3f}, {v.high:.3f}]" for v in values.values()]
        table.rows.append([name, str(count), str(predicted.samples_NSZYX.shape[1]), *shown])
    return table, rows


def _errors(predicted: Predicted, truth: Mapping[str, np.ndarray | None]) -> dict[str, np.ndarray]:
    kept: dict[str, list[float]] = {f"{kind} {name}": [] for kind in ("mean", "single") for name in ERRORS}
    for name, mean_ZYX, samples_SZYX in zip(
        predicted.names, predicted.mean_NZYX, predicted.samples_NSZYX[:, :SAMPLES], strict=True
    ):
        obj_ZYX = truth[name]
        assert obj_ZYX is not None
        found = {"mean": shape_errors(mean_ZYX, obj_ZYX), "single": sample_errors(samples_SZYX, obj_ZYX, k=1).single}
        for kind, errors in found.items():
            for error in ERRORS:
                kept[f"{kind} {error}"].append(getattr(errors, error))
    return {key: np.array(values) for key, values in kept.items()}
