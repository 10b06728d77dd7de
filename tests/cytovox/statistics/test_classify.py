"""Forests on toys whose classes are known."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from cytovox.errors import InputError
from cytovox.statistics.classify import (
    Forest,
    Outcome,
    cross_validate,
    f1_gain,
    f1_interval,
    permutation_importance,
)
from cytovox.statistics.classify_experiments import measured_folds
from cytovox.statistics.feature_tables import Fold, Table

SMALL = Forest(trees=20, depth=5, seeds=(0, 1))


def toy(per_class=9, classes=3, seed=0):
    """Cells whose class follows from one feature; the second is noise, the third a constant."""
    rng = np.random.default_rng(seed)
    cells = [f"{name}{i}" for name in "ABCD"[:classes] for i in range(per_class)]
    kind = np.repeat(np.arange(classes), per_class)
    values = np.stack([kind + rng.uniform(-0.1, 0.1, len(cells)), rng.normal(size=len(cells)), np.ones(len(cells))], 1)
    table = Table(tuple(cells), ("telling", "noise", "constant"), values)
    return table, {cell: cell[0] for cell in cells}, [cells[i::3] for i in range(3)]


def column(table, name):
    return Table(table.cells, (name,), table.values_NF[:, [table.names.index(name)]])


def test_a_forest_is_the_published_one_unless_another_is_asked_for():
    """1000 trees of depth 10 (Waibel et al. 2022), whose scores the docs compare with."""
    table, class_of, _ = toy(per_class=60, seed=5)
    noise = column(table, "noise")
    grown = Forest().fit(noise.values_NF, np.array([class_of[cell] for cell in noise.cells]), 0)
    assert len(grown.estimators_) == 1000
    assert max(tree.get_depth() for tree in grown.estimators_) == 10
    assert grown.bootstrap
    assert grown.max_features == "sqrt"
    assert len(set(Forest().seeds)) == 5


def test_a_forest_tells_a_separable_toy_apart_and_noise_not():
    table, class_of, folds = toy()
    assert cross_validate(measured_folds(table, folds), class_of, SMALL).macro_f1 > 0.95
    found = cross_validate(measured_folds(column(table, "telling"), folds), class_of, SMALL)
    assert found.macro_f1 == 1
    assert found.confusion_CC.tolist() == np.diag([9.0, 9.0, 9.0]).tolist()
    assert found.cells == tuple(sorted(class_of))
    assert found.probability_SNC.sum(axis=2) == pytest.approx(1)
    blind = cross_validate(measured_folds(column(table, "noise"), folds), class_of, SMALL)
    assert blind.macro_f1 < 0.65
    gain = f1_gain(found, blind, resamples=100)
    assert gain.low > 0.2
    assert gain.value == pytest.approx(1 - blind.macro_f1)
    assert f1_interval(blind, resamples=100).low < blind.macro_f1 < f1_interval(blind, resamples=100).high


def test_macro_f1_and_confusion_are_those_of_scikit_learn():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, 60)
    probability = rng.dirichlet(np.ones(4), (2, 60))
    found = Outcome(tuple(map(str, range(60))), tuple("abcd"), truth, probability)
    predicted = probability.argmax(axis=2)
    assert found.f1_S() == pytest.approx([f1_score(truth, p, average="macro") for p in predicted])
    chosen = rng.integers(0, 60, 60)
    assert found.f1_S(chosen)[1] == pytest.approx(f1_score(truth[chosen], predicted[1][chosen], average="macro"))
    assert found.confusion_CC == pytest.approx(np.mean([confusion_matrix(truth, p) for p in predicted], axis=0))


def test_a_cell_with_several_rows_gets_their_mean_probability():
    table, class_of, folds = toy()
    made = measured_folds(table, folds)
    single = cross_validate(made, class_of, SMALL)
    # every test cell three times: itself, itself and another of its fold
    tripled = []
    for fold in made:
        n = len(fold.test.cells)
        values = np.concatenate([fold.test.values_NF, fold.test.values_NF, np.roll(fold.test.values_NF, 1, axis=0)])
        tripled.append(Fold(fold.train, Table(fold.test.cells * 3, fold.test.names, values)))
        assert len(tripled[-1].test.cells) == 3 * n
    found = cross_validate(tripled, class_of, SMALL)
    first = [found.cells.index(cell) for cell in made[0].test.cells]
    p = single.probability_SNC[:, first]
    assert found.probability_SNC[:, first] == pytest.approx((2 * p + np.roll(p, 1, axis=1)) / 3)


def test_only_the_telling_feature_is_important():
    table, class_of, folds = toy()
    found = permutation_importance(measured_folds(table, folds), class_of, SMALL, repeats=3)
    assert next(iter(found)) == "telling"
    assert found["telling"] > 0.4
    assert found["constant"] == 0
    assert abs(found["noise"]) < 0.1


def test_the_same_seed_gives_the_same_forest_whatever_the_threads():
    table, class_of, folds = toy()
    # enough trees for their sum to show the order of its terms
    one = cross_validate(measured_folds(table, folds), class_of, Forest(300, 5, (3,)))
    for _ in range(3):
        two = cross_validate(measured_folds(table, folds), class_of, Forest(300, 5, (3,), jobs=4))
        assert (one.probability_SNC == two.probability_SNC).all()


def test_a_class_with_fewer_cells_than_folds_is_refused():
    table, class_of, folds = toy()
    fewer = table.of([cell for cell in table.cells if cell not in {f"C{i}" for i in range(7)}])
    kept = [[cell for cell in fold if cell in fewer.cells] for fold in folds]
    with pytest.raises(InputError, match=r"class C: 2 cells for 3 folds; expected .* use 2 folds at most"):
        cross_validate(measured_folds(fewer, kept), class_of, SMALL)


def test_what_makes_no_cross_validation_is_refused():
    table, class_of, folds = toy()
    made = measured_folds(table, folds)
    with pytest.raises(ValueError, match="tested in two folds"):
        cross_validate([*made, made[0]], class_of, SMALL)
    with pytest.raises(ValueError, match="tested in no fold"):
        cross_validate(made[:2], class_of, SMALL)
    with pytest.raises(InputError, match=r"^A0: has no class"):
        cross_validate(made, {cell: name for cell, name in class_of.items() if cell != "A0"}, SMALL)
    with pytest.raises(InputError, match="all cells are of class A"):
        cross_validate(made, dict.fromkeys(class_of, "A"), SMALL)
    other, other_classes, other_folds = toy(classes=2)
    more, fewer = (
        cross_validate(made, class_of, SMALL),
        cross_validate(measured_folds(other, other_folds), other_classes, SMALL),
    )
    with pytest.raises(ValueError, match="same cells"):
        f1_gain(more, fewer)
