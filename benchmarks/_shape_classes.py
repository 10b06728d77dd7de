"""What predicted shapes are worth to a classifier: forests on nested folds (5 outer x (1 + 3 inner) shape models)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks._common import Table
from benchmarks._shape_predicted import Predicted
from cytovox.io.atomic import atomic_path
from cytovox.measurement.shape_features import features_2d, features_3d
from cytovox.measurement.shape_features_large import features_2d_large, features_3d_large
from cytovox.measurement.solids import cylinder
from cytovox.statistics.classify import Forest, Outcome, permutation_importance
from cytovox.statistics.classify_experiments import PredictedFold, experiment_folds, experiment_rows, run_experiments
from cytovox.statistics.feature_tables import Fold, stacked, table_of
from cytovox.statistics.feature_tables import Table as FeatureTable
from datamodules.shape.cases import ShapeCell

#: Samples of each cell that a forest sees, a row each.
SAMPLES = 4
#: Features whose importance is shown.
MOST = 10
#: The experiments of a table that do not depend on the shape model.
MEASURED = ("2d", "true_3d", "2d+true_3d", "cylinder", "2d+cylinder")

Features = Callable[[np.ndarray], dict[str, float]]
SETS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], dict[str, float]], Features]] = {
    "small": (features_2d, features_3d),
    "large": (features_2d_large, features_3d_large),
}


def features_of(predicted: Predicted, measure: Features, kept: Path, kind: str) -> tuple[FeatureTable, FeatureTable]:
    """Features of a run's mean shapes, and of its first `SAMPLES` samples; stored in the folder of the run.

    Parameters
    ----------
    predicted : Predicted
    measure : callable
        Features of an object, in voxels.
    kept : Path
        Folder for the features.
    kind : str
        Names the set of features in the file's name.
    """
    path = kept / predicted.model / f"{predicted.run}_{kind}.json"
    shapes = np.packbits(predicted.mean_NZYX), np.packbits(predicted.samples_NSZYX[:, :SAMPLES])
    key = hashlib.sha256(b"".join(part.tobytes() for part in shapes)).hexdigest()
    if path.is_file() and (found := json.loads(path.read_text(encoding="utf-8")))["key"] == key:
        rows = found["rows"]
    else:
        rows = []
        for mean_ZYX, samples_SZYX in zip(predicted.mean_NZYX, predicted.samples_NSZYX[:, :SAMPLES], strict=True):
            mean = measure(mean_ZYX)
            # the one answer of a deterministic model is its mean
            alone = len(samples_SZYX) == 1 and np.array_equal(samples_SZYX[0], mean_ZYX)
            rows.append([mean, mean] if alone else [mean, *(measure(sample) for sample in samples_SZYX)])
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            Path(partial).write_text(json.dumps({"key": key, "rows": rows}), encoding="utf-8")
    count = len(rows[0]) - 1
    seen = [predicted.seen] * len(predicted.names)
    means = table_of([row[0] for row in rows], predicted.names, seen)
    names = [name for name in predicted.names for _ in range(count)]
    return means, table_of([s for row in rows for s in row[1:]], names, [predicted.seen] * len(names))


def predicted_folds(
    outer: Sequence[Predicted], inner: Sequence[Sequence[Predicted]], measure: Features, kept: Path, kind: str
) -> list[PredictedFold]:
    """Of every outer fold: its test cells by the outer model, its training cells by the inner ones."""
    folds = []
    for k, test in enumerate(track(outer, f"features of {outer[0].model}, {kind}")):
        trained = [features_of(run, measure, kept, kind) for run in inner[k]]
        means, samples = trained[0]
        for mean, sample in trained[1:]:
            means, samples = stacked(means, mean), stacked(samples, sample)
        test_means, test_samples = features_of(test, measure, kept, kind)
        folds.append(PredictedFold(means, test_means, samples, test_samples))
    return folds


def class_tables(
    cells: Sequence[ShapeCell],
    predicted: Mapping[str, tuple[Sequence[Predicted], Sequence[Sequence[Predicted]]]],
    kept: Path,
    forest: Forest,
    kinds: Sequence[str] = tuple(SETS),
) -> tuple[list[Table], dict[str, Any]]:
    """Macro F1 of every experiment, its paired gain over 2D and over 2D with a cylinder, and confusions.

    Parameters
    ----------
    cells : sequence of ShapeCell
        All of them.
    predicted : mapping of models to (outer runs, inner runs of each outer fold)
    kept : Path
        Folder for measured features.
    forest : Forest
    kinds : sequence of str
        Of `SETS`.
    """
    tables, rows = [], {}
    for kind in kinds:
        found, folds_of = _experiments(cells, predicted, kept, forest, kind)
        shown = []
        for base in ("2d", "2d+cylinder"):
            rows[f"{kind}: gain over {base}"] = [
                {**row, "experiment": name} for name, row in zip(found, experiment_rows(found, over=base), strict=True)
            ]
        columns = ["experiment", "macro F1", "gain over 2d", "gain over 2d+cylinder"]
        for own, control in zip(*(rows[f"{kind}: gain over {base}"] for base in ("2d", "2d+cylinder")), strict=True):
            f1 = f"{own['macro_f1']:.3f} [{own['low']:.3f}, {own['high']:.3f}]"
            shown.append([str(own["experiment"]), f1, _gain(own), _gain(control)])
        count = {"small": "12 + 15", "large": "50 + 76"}[kind]
        title = f"Classes, {count} features, {SAMPLES} samples a cell at most: macro F1 and paired gains [95 %]"
        tables.append(Table(title, columns, shown))
        best = max((name for name in found if "true" not in name), key=lambda name: found[name].macro_f1)
        tables += [_confusion(kind, name, found[name]) for name in dict.fromkeys(("2d", best))]
        output = permutation_importance(folds_of[best], {cell.name: cell.group for cell in cells}, forest)
        most = [[feature, f"{fall:+.3f}"] for feature, fall in list(output.items())[:MOST]]
        tables.append(Table(f"What {best} rests on, {kind} features", ["feature", "fall of macro F1 without it"], most))
    return tables, rows


def _experiments(
    cells: Sequence[ShapeCell],
    predicted: Mapping[str, tuple[Sequence[Predicted], Sequence[Sequence[Predicted]]]],
    kept: Path,
    forest: Forest,
    kind: str,
) -> tuple[dict[str, Outcome], dict[str, Sequence[Fold]]]:
    flat, solid = SETS[kind]
    names, class_of = [cell.name for cell in cells], {cell.name: cell.group for cell in cells}
    image = table_of([flat(cell.image_YX, cell.mask_YX) for cell in cells], names)
    truth = table_of([solid(cell.obj_ZYX) for cell in cells if cell.obj_ZYX is not None], names)
    thick = table_of([solid(cylinder(cell.mask_YX)) for cell in cells], names)
    found: dict[str, Outcome] = {}
    folds_of: dict[str, Sequence[Fold]] = {}
    for model, (outer, inner) in predicted.items():
        folds = [list(run.names) for run in outer]
        made = experiment_folds(
            image, folds, class_of, truth, predicted_folds(outer, inner, solid, kept, kind), cylinder=thick
        )
        wanted = {name: of for name, of in made.items() if name not in MEASURED or name not in found}
        for name, outcome in run_experiments(wanted, class_of, forest).items():
            label = name if name in MEASURED else f"{name} ({model})"
            found[label], folds_of[label] = outcome, made[name]
    return found, folds_of


def _gain(row: Mapping[str, Any]) -> str:
    return f"{row['gain']:+.3f} [{row['gain_low']:+.3f}, {row['gain_high']:+.3f}]"


def _confusion(kind: str, name: str, outcome: Outcome) -> Table:
    table = Table(
        f"Confusion, {kind} features, {name}: cells by true (row) and predicted class", ["", *outcome.classes]
    )
    for label, row in zip(outcome.classes, outcome.confusion_CC, strict=True):
        table.rows.append([label, *(f"{value:.1f}" for value in row)])
    return table
