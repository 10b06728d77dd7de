"""Experiments on a toy in which only the third dimension tells the classes apart."""

import numpy as np
import pytest

from cytovox.errors import InputError
from cytovox.statistics.classify import Forest
from cytovox.statistics.classify_experiments import (
    EXPERIMENTS,
    PredictedFold,
    augmented,
    experiment_folds,
    experiment_rows,
    run_experiments,
)
from cytovox.statistics.feature_tables import Table

SMALL = Forest(trees=12, depth=5, seeds=(0,))
COUNTS = {"A": 12, "B": 6, "C": 4}
CELLS = [f"{name}{i}" for name, n in COUNTS.items() for i in range(n)]
CLASS_OF = {cell: cell[0] for cell in CELLS}
FOLDS = [CELLS[i::3] for i in range(3)]


def heights(cells, noise, seed):
    rng = np.random.default_rng(seed)
    return np.array([["ABC".index(c[0]) + rng.normal(0, noise)] for c in cells])


IMAGE = Table(tuple(CELLS), ("area",), np.random.default_rng(0).normal(size=(len(CELLS), 1)))
TRUTH = Table(tuple(CELLS), ("height",), heights(CELLS, 0.05, 1))
BLIND = Table(tuple(CELLS), ("height",), np.ones((len(CELLS), 1)))


def predicted(fold, seed, samples=3):
    """What an honest caller hands in: inner models leave a third of the training cells out in turn."""
    train = [cell for cell in CELLS if cell not in FOLDS[fold]]
    inner = {cell: frozenset(train) - frozenset(train[i::3]) for i in range(3) for cell in train[i::3]}
    outer = dict.fromkeys(FOLDS[fold], frozenset(train))

    def table(cells, seen, copies, seed):
        rows = [cell for cell in cells for _ in range(copies)]
        return Table(tuple(rows), ("height",), heights(rows, 0.2, seed), tuple(seen[cell] for cell in rows))

    return PredictedFold(
        table(train, inner, 1, seed),
        table(FOLDS[fold], outer, 1, seed + 1),
        table(train, inner, samples, seed + 2),
        table(FOLDS[fold], outer, samples, seed + 3),
    )


def test_every_experiment_runs_and_the_third_dimension_gains():
    made = experiment_folds(IMAGE, FOLDS, CLASS_OF, TRUTH, [predicted(i, 10 * i) for i in range(3)], BLIND)
    assert set(made) == set(EXPERIMENTS)
    outcomes = run_experiments(made, CLASS_OF, SMALL)
    rows = {row["experiment"]: row for row in experiment_rows(outcomes, resamples=80)}
    assert rows["true_3d"]["macro_f1"] > 0.95
    assert rows["2d"]["gain"] == rows["2d"]["gain_low"] == rows["2d"]["gain_high"] == 0
    for name in EXPERIMENTS:
        if name not in ("2d", "cylinder", "2d+cylinder"):
            assert rows[name]["gain_low"] > 0, name
            assert rows[name]["gain"] == pytest.approx(rows[name]["macro_f1"] - rows["2d"]["macro_f1"])
    # a height that is the same for all cells tells nothing: all are called by the commonest class
    assert rows["cylinder"]["macro_f1"] == pytest.approx(2 * 12 / (12 + len(CELLS)) / 3)
    assert {row["cells"] for row in rows.values()} == {len(CELLS)}


def test_without_truth_or_predictions_only_what_can_be_said_is():
    assert list(experiment_folds(IMAGE, FOLDS, CLASS_OF)) == ["2d"]
    assert set(experiment_folds(IMAGE, FOLDS, CLASS_OF, TRUTH)) == {"2d", "true_3d", "2d+true_3d"}
    made = experiment_folds(IMAGE, FOLDS, CLASS_OF, predicted=[predicted(i, i) for i in range(3)])
    assert not any("true" in name for name in made)


def test_augmentation_fills_the_small_classes_up_and_leaves_the_test_cells_alone():
    fold = predicted(0, 5)
    made = experiment_folds(IMAGE, FOLDS, CLASS_OF, TRUTH, [predicted(i, 5) for i in range(3)])
    plain, more = made["true_3d"][0], made["true_3d_augmented"][0]
    assert (more.test.values_NF == plain.test.values_NF).all()
    added = more.train.rows(range(len(plain.train.cells), len(more.train.cells)))
    assert set(added.cells) <= set(plain.train.cells)
    names = [cell[0] for cell in more.train.cells]
    largest = sum(cell[0] == "A" for cell in plain.train.cells)
    assert "A" not in {cell[0] for cell in added.cells}
    assert names.count("B") == largest
    # three samples a cell are all there is
    small = sum(cell[0] == "C" for cell in plain.train.cells)
    assert names.count("C") == min(largest, 4 * small)
    # each cell once before any twice
    times = [added.cells.count(cell) for cell in plain.train.cells if cell[0] == "B"]
    assert max(times) - min(times) <= 1
    assert augmented(
        fold.train_mean.of([c for c in CELLS if c[0] == "A"]), fold.train_samples, CLASS_OF
    ).cells == tuple(c for c in fold.train_mean.cells if c[0] == "A")


def test_predictions_of_unknown_origin_are_refused():
    good = predicted(0, 1)
    blind = Table(good.train_mean.cells, good.train_mean.names, good.train_mean.values_NF)
    with pytest.raises(ValueError, match="`seen` missing"):
        PredictedFold(blind, good.test_mean, good.train_samples, good.test_samples)


def test_shapes_that_were_not_predicted_out_of_fold_are_refused():
    good = predicted(0, 1)
    everyone = frozenset(good.train_mean.cells)
    mean = good.train_mean
    leaky = Table(mean.cells, mean.names, mean.values_NF, (everyone,) * len(mean.cells))
    with pytest.raises(ValueError, match="leak"):
        PredictedFold(leaky, good.test_mean, good.train_samples, good.test_samples)


def test_predictions_of_other_folds_or_cells_are_refused():
    folds = [predicted(i, i) for i in range(3)]
    with pytest.raises(ValueError, match="predictions of 2 folds for 3"):
        experiment_folds(IMAGE, FOLDS, CLASS_OF, predicted=folds[:2])
    with pytest.raises(ValueError, match="not its training and test cells"):
        experiment_folds(IMAGE, FOLDS, CLASS_OF, predicted=[folds[1], folds[0], folds[2]])
    with pytest.raises(ValueError, match="different cells"):
        PredictedFold(
            folds[0].train_mean, folds[0].test_mean, folds[0].train_samples.of(CELLS[1:3]), folds[0].test_samples
        )


def test_a_small_class_is_refused_before_any_forest_grows():
    few = {cell: "D" if cell in ("C0", "C1") else name for cell, name in CLASS_OF.items()}
    with pytest.raises(InputError, match="class C: 2 cells for 3 folds"):
        run_experiments(experiment_folds(IMAGE, FOLDS, few), few, Forest(trees=10**6))
