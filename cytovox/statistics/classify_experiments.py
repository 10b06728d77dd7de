"""Classification experiments: forests trained on features of images, of true 3D shapes and of predicted ones.

All experiments have the same outer folds and cells. Predicted shapes are given per outer fold, and their tables list
the cells that each shape model was trained on (`cytovox.statistics.feature_tables`). Shapes of a training cell come
from an inner model that was trained on neither this cell nor any test cell. Shapes of a test cell come from the outer
model.

A gain over "2d" alone does not show that the predicted shape adds 3D information. The 3D features of a cylinder (the
mask, extended along z) describe only the outline, and still they gained 0.09 on 101 red blood cells. The cylinder is
therefore the control: a shape model adds information if it gains over "2d+cylinder".
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cytovox.statistics.classify import Forest, Outcome, check_folds, cross_validate, f1_gain, f1_interval
from cytovox.statistics.feature_tables import Fold, Table, joined, stacked

Row = dict[str, str | int | float]

#: Features of each experiment.
EXPERIMENTS: dict[str, str] = {
    "2d": "features of the image and its mask",
    "true_3d": "features of the true object, as if the cell had been imaged in 3D",
    "2d+true_3d": "both of them",
    "cylinder": "control: 3D features of the mask extended along z, which hold nothing but the mask",
    "2d+cylinder": "features of the image, and of the mask extended along z",
    "predicted_3d_mean": "features of the mean of the predicted shapes",
    "predicted_3d_samples": "features of every predicted shape, one row per shape; test cells get mean probabilities",
    "2d+predicted_3d_mean": "features of the image, and of the mean shape",
    "2d+predicted_3d_samples": "features of the image, and of every predicted shape",
    "2d+predicted_3d_augmented": "as 2d+predicted_3d_mean, minority classes filled up with predicted shapes",
    "true_3d_augmented": "as true_3d, minority classes filled up with predicted shapes, as in DISPR's paper",
}


@dataclass(frozen=True)
class PredictedFold:
    """Features of predicted shapes for one outer fold; `seen` is set in every table."""

    train_mean: Table
    """One row per training cell: its mean shape, predicted out of fold."""
    test_mean: Table
    """One row per test cell: its mean shape, predicted by the outer model."""
    train_samples: Table
    """Several rows per training cell, one for each predicted shape."""
    test_samples: Table
    """Several rows per test cell, one for each predicted shape."""

    def __post_init__(self) -> None:
        """Check the origin of the predictions, and that mean shapes and samples have the same cells.

        Raises
        ------
        ValueError
            A table has no `seen`, mean shapes and samples have different cells, or a fold leaks (`Fold`).
        """
        for table in (self.train_mean, self.test_mean, self.train_samples, self.test_samples):
            if not table.seen:
                raise ValueError(
                    "features of predicted shapes: `seen` missing; expected the training cells of each shape model"
                )
        for mean, samples in ((self.train_mean, self.train_samples), (self.test_mean, self.test_samples)):
            if set(mean.cells) != set(samples.cells):
                raise ValueError("mean shapes and samples have different cells")
        Fold(self.train_mean, self.test_mean)
        Fold(self.train_samples, self.test_samples)


def measured_folds(table: Table, folds: Sequence[Sequence[str]]) -> list[Fold]:
    """Return folds of a table of measured features: each list holds the test cells, all other cells are trained on."""
    tested = {cell for fold in folds for cell in fold}
    return [Fold(table.of(tested - set(fold)), table.of(fold)) for fold in folds]


def augmented(train: Table, samples: Table, class_of: Mapping[str, str]) -> Table:
    """Return the training rows, with predicted samples added to each class up to the size of the largest.

    Parameters
    ----------
    train : Table
        Training rows of one fold.
    samples : Table
        Predicted rows of training cells, with the same features.
    class_of : dict of cell -> class
        Class of every cell.

    Returns
    -------
    Table
        `train`, followed by the added samples of each class: the first of every cell, then the second, and so on,
        until there are enough or no more.

    References
    ----------
    Waibel et al. 2022, DISPR, arXiv 2208.14125: predicted shapes of minority classes as augmentation.
    """
    rows = Counter(class_of[cell] for cell in train.cells)
    largest = max(rows.values())
    order = sorted((samples.cells[:i].count(cell), i) for i, cell in enumerate(samples.cells))
    chosen = []
    for _, i in order:
        name = class_of[samples.cells[i]]
        if 0 < rows[name] < largest:
            rows[name] += 1
            chosen.append(i)
    return stacked(train, samples.rows(chosen)) if chosen else train


def experiment_folds(
    image: Table,
    folds: Sequence[Sequence[str]],
    class_of: Mapping[str, str],
    truth: Table | None = None,
    predicted: Sequence[PredictedFold] = (),
    cylinder: Table | None = None,
) -> dict[str, list[Fold]]:
    """Return the folds of every experiment that the tables allow, by the names of `EXPERIMENTS`.

    Parameters
    ----------
    image : Table
        2D features, one row per cell.
    folds : sequence of sequences of cells
        Test cells of each outer fold.
    class_of : dict of cell -> class
        Class of every cell.
    truth : Table, optional
        Features of the true objects, one row per cell. Without it, there are no experiments with true shapes.
    predicted : sequence of PredictedFold, optional
        One per outer fold, in the order of `folds`.
    cylinder : Table, optional
        Features of `cytovox.measurement.solids.cylinder` of the masks, one row per cell.

    Raises
    ------
    ValueError
        The number of predicted folds or the cells of one differ from `folds`, or a table leaks.
    """
    tested = {cell for fold in folds for cell in fold}
    made = {"2d": measured_folds(image, folds)}
    for name, table in (("true_3d", truth), ("cylinder", cylinder)):
        if table is not None:
            made[name] = measured_folds(table, folds)
            made[f"2d+{name}"] = measured_folds(joined(image, table), folds)
    if not predicted:
        return made
    if len(predicted) != len(folds):
        raise ValueError(f"predictions of {len(predicted)} folds for {len(folds)} folds: expected one per fold")
    for fold, of in zip(predicted, folds, strict=True):
        if set(fold.test_mean.cells) != set(of) or set(fold.train_mean.cells) != tested - set(of):
            raise ValueError("the cells of a fold's predictions are not its training and test cells")
    mean = [Fold(p.train_mean, p.test_mean) for p in predicted]
    samples = [Fold(p.train_samples, p.test_samples) for p in predicted]
    image_mean, image_samples = (
        [Fold(joined(image, fold.train), joined(image, fold.test)) for fold in found] for found in (mean, samples)
    )
    made |= {
        "predicted_3d_mean": mean,
        "predicted_3d_samples": samples,
        "2d+predicted_3d_mean": image_mean,
        "2d+predicted_3d_samples": image_samples,
        "2d+predicted_3d_augmented": _augmented_folds(image_mean, image_samples, class_of),
    }
    if truth is not None:
        made["true_3d_augmented"] = _augmented_folds(made["true_3d"], samples, class_of)
    return made


def _augmented_folds(folds: Sequence[Fold], samples: Sequence[Fold], class_of: Mapping[str, str]) -> list[Fold]:
    return [
        Fold(augmented(fold.train, own.train, class_of), fold.test) for fold, own in zip(folds, samples, strict=True)
    ]


def run_experiments(
    folds_of: Mapping[str, Sequence[Fold]], class_of: Mapping[str, str], forest: Forest | None = None
) -> dict[str, Outcome]:
    """Cross-validate every experiment of `experiment_folds`.

    Raises
    ------
    InputError
        A class has fewer cells than there are folds, or a cell has no class. Raised before any forest is trained.
    """
    for folds in folds_of.values():
        check_folds(folds, class_of)
    return {name: cross_validate(folds, class_of, forest) for name, folds in folds_of.items()}


def experiment_rows(outcomes: Mapping[str, Outcome], *, over: str = "2d", resamples: int = 2000) -> list[Row]:
    """Return one row per experiment: macro F1 with its 95 % interval, and its paired gain over one of them.

    Returns
    -------
    list of dict
        `experiment`, `cells`, `macro_f1`, `low`, `high`, `seed_sd` (between forests), `gain`, `gain_low`, `gain_high`.

    Raises
    ------
    KeyError
        `over` is not the name of an experiment.
    """
    rows: list[Row] = []
    for name, outcome in outcomes.items():
        score = f1_interval(outcome, resamples=resamples)
        gain = f1_gain(outcome, outcomes[over], resamples=resamples)
        rows.append(
            {
                "experiment": name,
                "cells": len(outcome.cells),
                "macro_f1": score.value,
                "low": score.low,
                "high": score.high,
                "seed_sd": float(outcome.f1_S().std()),
                **gain.columns("gain"),
            }
        )
    return rows
