"""What predicted 3D shapes are good for: the same forests on images, on true shapes and on predicted ones.

All experiments have the same outer folds and cells. What is predicted comes in per outer fold, and its tables say what
each shape model saw (`cytovox.statistics.feature_tables`): a training cell's shapes come from an inner model that saw
neither the cell nor any test cell, a test cell's from the outer model.

A gain over "2d" alone does not show that a model knows the third dimension: the 3D features of a cylinder, which is
nothing but the mask made thick, say the same of the outline in other words, and on 101 red blood cells they gained 0.09
as well. So the cylinder is an experiment of its own, and what a model adds is its gain over "2d+cylinder".
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cytovox.statistics.classify import Forest, Outcome, check_folds, cross_validate, f1_gain, f1_interval
from cytovox.statistics.feature_tables import Fold, Table, joined, stacked

Row = dict[str, str | int | float]

#: What each experiment trains on and is tested on.
EXPERIMENTS: dict[str, str] = {
    "2d": "features of the image and its mask",
    "true_3d": "features of the true object, as if the cell had been seen in 3D",
    "2d+true_3d": "both of them",
    "cylinder": "features of the mask made thick, the control: 3D features without anything that is not in the mask",
    "2d+cylinder": "features of the image, and of the mask made thick",
    "predicted_3d_mean": "features of the mean of the predicted shapes",
    "predicted_3d_samples": "features of every predicted shape, a training row each; test cells get mean probabilities",
    "2d+predicted_3d_mean": "features of the image, and of the mean shape",
    "2d+predicted_3d_samples": "features of the image, and of every predicted shape",
    "2d+predicted_3d_augmented": "as 2d+predicted_3d_mean, minority classes filled up with predicted shapes",
    "true_3d_augmented": "as true_3d, minority classes filled up with predicted shapes, as in DISPR's paper",
}


@dataclass(frozen=True)
class PredictedFold:
    """Features of predicted shapes for one outer fold. Every table's `seen` is filled."""

    train_mean: Table
    """One row a training cell: its mean shape, predicted out of fold."""
    test_mean: Table
    """One row a test cell: its mean shape, predicted by the outer model."""
    train_samples: Table
    """Several rows a training cell."""
    test_samples: Table
    """Several rows a test cell."""

    def __post_init__(self) -> None:
        """Refuse predictions of unknown origin, and tables that do not speak of the same cells.

        Raises
        ------
        ValueError
            A table does not say what its shape models saw; mean and samples are of other cells; or rows leak.
        """
        for table in (self.train_mean, self.test_mean, self.train_samples, self.test_samples):
            if not table.seen:
                raise ValueError("features of predicted shapes must say which cells their shape model saw")
        for mean, samples in ((self.train_mean, self.train_samples), (self.test_mean, self.test_samples)):
            if set(mean.cells) != set(samples.cells):
                raise ValueError("mean shapes and samples are of other cells")
        Fold(self.train_mean, self.test_mean)
        Fold(self.train_samples, self.test_samples)


def measured_folds(table: Table, folds: Sequence[Sequence[str]]) -> list[Fold]:
    """Folds of a table that nobody learnt, from the test cells of each: all others are trained on."""
    tested = {cell for fold in folds for cell in fold}
    return [Fold(table.of(tested - set(fold)), table.of(fold)) for fold in folds]


def augmented(train: Table, samples: Table, class_of: Mapping[str, str]) -> Table:
    """Training rows with the smaller classes filled up by samples until each has as many rows as the largest.

    Parameters
    ----------
    train : Table
        Training rows of one fold.
    samples : Table
        Predicted rows of training cells, of the same features.
    class_of : dict of cell -> class

    Returns
    -------
    Table
        `train`, then what was added: of each class the first sample of every cell, then the second, and so on, as
        far as the samples reach.

    References
    ----------
    Waibel et al. 2022, DISPR, arXiv 2208.14125: predicted shapes of minority classes as augmentation.
    """
    rows = Counter(class_of[cell] for cell in train.cells)
    largest = max(rows.values())
    nth: Counter[str] = Counter()
    turn = []
    for i, cell in enumerate(samples.cells):
        turn.append((nth[cell], i))
        nth[cell] += 1
    chosen = []
    for _, i in sorted(turn):
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
    """The folds of every experiment that the tables allow, by the names of `EXPERIMENTS`.

    Parameters
    ----------
    image : Table
        2D features, one row a cell.
    folds : sequence of sequences of cells
        Test cells of each outer fold.
    class_of : dict of cell -> class
    truth : Table, optional
        Features of the true objects, one row a cell; no experiment with them otherwise.
    predicted : sequence of PredictedFold, optional
        One an outer fold, in the order of `folds`.
    cylinder : Table, optional
        Features of `cytovox.measurement.solids.cylinder` of the masks, one row a cell.

    Raises
    ------
    ValueError
        There are predictions for another number of folds, or a fold's are not of its cells; or tables leak.
    """
    tested = {cell for fold in folds for cell in fold}
    made = {"2d": measured_folds(image, folds)}
    if truth is not None:
        made["true_3d"] = measured_folds(truth, folds)
        made["2d+true_3d"] = measured_folds(joined(image, truth), folds)
    if cylinder is not None:
        made["cylinder"] = measured_folds(cylinder, folds)
        made["2d+cylinder"] = measured_folds(joined(image, cylinder), folds)
    if not predicted:
        return made
    if len(predicted) != len(folds):
        raise ValueError(f"predictions of {len(predicted)} folds for {len(folds)} folds")
    for fold, of in zip(predicted, folds, strict=True):
        if set(fold.test_mean.cells) != set(of) or set(fold.train_mean.cells) != tested - set(of):
            raise ValueError("a fold's predictions are not of its training and test cells")
    made["predicted_3d_mean"] = [Fold(p.train_mean, p.test_mean) for p in predicted]
    made["predicted_3d_samples"] = [Fold(p.train_samples, p.test_samples) for p in predicted]
    mean = [Fold(joined(image, p.train_mean), joined(image, p.test_mean)) for p in predicted]
    samples = [Fold(joined(image, p.train_samples), joined(image, p.test_samples)) for p in predicted]
    made["2d+predicted_3d_mean"], made["2d+predicted_3d_samples"] = mean, samples
    made["2d+predicted_3d_augmented"] = [
        Fold(augmented(m.train, s.train, class_of), m.test) for m, s in zip(mean, samples, strict=True)
    ]
    if truth is not None:
        made["true_3d_augmented"] = [
            Fold(augmented(measured.train, p.train_samples, class_of), measured.test)
            for measured, p in zip(made["true_3d"], predicted, strict=True)
        ]
    return made


def run_experiments(
    folds_of: Mapping[str, Sequence[Fold]], class_of: Mapping[str, str], forest: Forest | None = None
) -> dict[str, Outcome]:
    """Cross-validate every experiment; parameters from `experiment_folds`.

    Raises
    ------
    InputError
        A class has fewer cells than there are folds, or a cell has no class: before any forest is grown.
    """
    for folds in folds_of.values():
        check_folds(folds, class_of)
    return {name: cross_validate(folds, class_of, forest) for name, folds in folds_of.items()}


def experiment_rows(outcomes: Mapping[str, Outcome], *, over: str = "2d", resamples: int = 2000) -> list[Row]:
    """One row per experiment: macro F1 with its 95 % interval, and its paired gain over one of them.

    Returns
    -------
    list of dict
        `experiment`, `cells`, `macro_f1`, `low`, `high`, `seed_sd` (between forests), `gain`, `gain_low`, `gain_high`.

    Raises
    ------
    KeyError
        `over` is none of the experiments.
    """
    base = outcomes[over]
    rows: list[Row] = []
    for name, outcome in outcomes.items():
        score, gain = f1_interval(outcome, resamples=resamples), f1_gain(outcome, base, resamples=resamples)
        rows.append(
            {
                "experiment": name,
                "cells": len(outcome.cells),
                "macro_f1": score.value,
                "low": score.low,
                "high": score.high,
                "seed_sd": float(outcome.f1_S().std()),
                "gain": gain.value,
                "gain_low": gain.low,
                "gain_high": gain.high,
            }
        )
    return rows
