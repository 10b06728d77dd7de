"""Random forests that classify cells: macro F1, confusion matrix and permutation importance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from cytovox.errors import InputError
from cytovox.statistics.bootstrap import Interval, difference, interval
from cytovox.statistics.feature_tables import Fold


@dataclass(frozen=True)
class Forest:
    """Hyperparameters of the forests; the defaults are those of the published scores on the red blood cells."""

    trees: int = 1000
    """Number of trees in a forest."""
    depth: int = 10
    """Maximum depth of a tree."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Random seeds, one per forest. Scores are means over the forests, which reduces their random variation."""
    jobs: int = 1
    """Number of threads that train a forest."""

    def fit(self, values_NF: np.ndarray, classes_N: np.ndarray, seed: int) -> RandomForestClassifier:
        """Train one forest on bootstrap samples of the rows, with sqrt(F) features per split (Breiman 2001)."""
        forest = RandomForestClassifier(self.trees, max_depth=self.depth, random_state=seed, n_jobs=self.jobs)
        # several threads sum the trees' probabilities in an order that varies, so predict with one
        return forest.fit(values_NF, classes_N).set_params(n_jobs=1)


@dataclass(frozen=True)
class Outcome:
    """Predictions of the forests for every cell, each made when it was a test cell."""

    cells: tuple[str, ...]
    """Names of the cells, sorted."""
    classes: tuple[str, ...]
    """Names of the classes, sorted."""
    truth_N: np.ndarray
    """Index of each cell's true class."""
    probability_SNC: np.ndarray
    """Class probabilities for each forest seed, cell and class: the mean over the cell's rows."""

    @cached_property
    def predicted_SN(self) -> np.ndarray:
        """Index of the class with the highest probability, for each forest seed and cell."""
        return self.probability_SNC.argmax(axis=2)

    def f1_S(self, chosen_N: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the macro F1 of each forest seed, over all cells or those of the indices `chosen_N` (may repeat)."""
        counts_SCC = _counts(self.truth_N[chosen_N], self.predicted_SN[:, chosen_N], len(self.classes))
        hits = np.diagonal(counts_SCC, axis1=1, axis2=2)
        total = counts_SCC.sum(axis=1) + counts_SCC.sum(axis=2)
        with np.errstate(invalid="ignore", divide="ignore"):
            # a class without true and predicted cells has no F1
            return np.nanmean(np.where(total > 0, 2 * hits / total, np.nan), axis=1)

    @property
    def macro_f1(self) -> float:
        """Macro F1, mean over the forest seeds."""
        return float(self.f1_S().mean())

    @property
    def confusion_CC(self) -> np.ndarray:
        """Confusion matrix: cells by true (row) and predicted (column) class, mean over the forest seeds."""
        return _counts(self.truth_N, self.predicted_SN, len(self.classes)).mean(axis=0)


def _counts(truth_N: np.ndarray, predicted_SN: np.ndarray, classes: int) -> np.ndarray:
    """Return a confusion matrix per forest seed, (S, C, C)."""
    seeds = np.arange(len(predicted_SN))[:, None]
    flat = (seeds * classes + truth_N) * classes + predicted_SN
    return np.bincount(flat.ravel(), minlength=len(predicted_SN) * classes**2).reshape(-1, classes, classes)


def check_folds(folds: Sequence[Fold], class_of: Mapping[str, str]) -> tuple[str, ...]:
    """Check that the folds are a cross-validation of all cells, and return the cells, sorted.

    Raises
    ------
    InputError
        A cell has no class, or a class has fewer cells than there are folds.
    ValueError
        A cell is tested in two folds, or a training cell in none.
    """
    tested = [cell for fold in folds for cell in sorted(set(fold.test.cells))]
    cells = set(tested)
    if len(cells) != len(tested):
        raise ValueError("a cell is tested in two folds")
    if extra := {cell for fold in folds for cell in fold.train.cells} - cells:
        raise ValueError(f"{sorted(extra)[0]} is trained on but tested in no fold")
    if unknown := sorted(cells - set(class_of)):
        raise InputError(f"{unknown[0]}: has no class (nor have {len(unknown) - 1} others); expected one per cell")
    classes, counts = np.unique([class_of[cell] for cell in tested], return_counts=True)
    for name, count in zip(classes, counts, strict=True):
        if count < len(folds):
            raise InputError(
                f"class {name}: {count} cells for {len(folds)} folds; expected one per fold: "
                f"use {count} folds at most, or leave the class out"
            )
    if len(classes) < 2:
        raise InputError(f"all cells are of class {classes[0]}; expected two classes or more")
    return tuple(sorted(cells))


def cross_validate(folds: Sequence[Fold], class_of: Mapping[str, str], forest: Forest | None = None) -> Outcome:
    """Train forests on the training rows of every fold, and predict its test cells.

    Parameters
    ----------
    folds : sequence of Fold
        Together they test every cell once.
    class_of : dict of cell -> class
        Class of every cell.
    forest : Forest, optional
        Hyperparameters; the published ones by default.

    Returns
    -------
    Outcome
        A cell with several rows gets the mean of their probabilities.

    Raises
    ------
    InputError, ValueError
        The folds do not pass `check_folds`.
    """
    forest = forest or Forest()
    cells = check_folds(folds, class_of)
    classes = tuple(sorted({class_of[cell] for cell in cells}))
    probability_SNC = np.zeros((len(forest.seeds), len(cells), len(classes)))
    for fold in folds:
        index = np.searchsorted(cells, fold.test.cells)
        share = 1 / np.bincount(index, minlength=len(cells))[index]
        target = _class_indices(fold.train.cells, class_of, classes)
        for s, seed in enumerate(forest.seeds):
            trained = forest.fit(fold.train.values_NF, target, seed)
            probability = trained.predict_proba(fold.test.values_NF) * share[:, None]
            np.add.at(probability_SNC[s], (index[:, None], trained.classes_[None].astype(int)), probability)
    return Outcome(cells, classes, _class_indices(cells, class_of, classes), probability_SNC)


def f1_interval(outcome: Outcome, *, resamples: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """Return the bootstrap interval of `Outcome.macro_f1` over cells, which are drawn within their class."""
    return interval(
        lambda cells: float(outcome.f1_S(cells).mean()),
        len(outcome.cells),
        resamples=resamples,
        level=level,
        seed=seed,
        strata=outcome.truth_N,
    )


def f1_gain(outcome: Outcome, over: Outcome, *, resamples: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """Return the paired bootstrap interval of `outcome.macro_f1 - over.macro_f1`, both on the same resampled cells.

    It reflects the choice of test cells, not that of training cells.

    Raises
    ------
    ValueError
        The cells or classes of the outcomes differ.
    """
    if outcome.cells != over.cells or outcome.classes != over.classes or (outcome.truth_N != over.truth_N).any():
        raise ValueError("the gain is paired: expected two outcomes of the same cells and classes")
    return difference(
        lambda cells: float(outcome.f1_S(cells).mean()),
        lambda cells: float(over.f1_S(cells).mean()),
        len(outcome.cells),
        resamples=resamples,
        level=level,
        seed=seed,
        strata=outcome.truth_N,
    )


def permutation_importance(
    folds: Sequence[Fold], class_of: Mapping[str, str], forest: Forest | None = None, *, repeats: int = 5, seed: int = 0
) -> dict[str, float]:
    """Return the decrease in macro F1 when the values of a feature are permuted among the test cells.

    Unlike the mean decrease in impurity, it is measured on cells that the forest was not trained on, and does not
    favour features with many values. If two features carry the same information, neither is important.

    Parameters
    ----------
    folds, class_of, forest
        See `cross_validate`; only the first seed of the forest is used.
    repeats : int
        Permutations of each feature, over which the mean is taken.
    seed : int
        Random seed of the permutations.

    Returns
    -------
    dict of feature -> float
        Macro F1 minus macro F1 with the feature permuted, in descending order.

    Raises
    ------
    InputError, ValueError
        The folds do not pass `check_folds`.

    References
    ----------
    Breiman 2001, Machine Learning 45(1), section 10; Strobl et al. 2007, BMC Bioinformatics 8:25.
    """
    forest = forest or Forest()
    cells = check_folds(folds, class_of)
    classes = tuple(sorted({class_of[cell] for cell in cells}))
    names = folds[0].train.names
    rng = np.random.default_rng(seed)
    # predictions of all cells: without permutation, then with every feature permuted `repeats` times
    probability_PNC = np.zeros((1 + len(names) * repeats, len(cells), len(classes)))
    for fold in folds:
        trained = forest.fit(fold.train.values_NF, _class_indices(fold.train.cells, class_of, classes), forest.seeds[0])
        index = np.searchsorted(cells, fold.test.cells)
        permuted_PRF = np.repeat(fold.test.values_NF[None], len(probability_PNC), axis=0)
        for p in range(1, len(permuted_PRF)):
            column = (p - 1) // repeats
            permuted_PRF[p, :, column] = rng.permutation(permuted_PRF[p, :, column])
        # sum over the rows of a cell: the class with the largest sum is that with the largest mean
        rows_PRC = trained.predict_proba(permuted_PRF.reshape(-1, len(names))).reshape(*permuted_PRF.shape[:2], -1)
        for p, rows_RC in enumerate(rows_PRC):
            np.add.at(probability_PNC[p], (index[:, None], trained.classes_[None].astype(int)), rows_RC)
    f1_P = Outcome(cells, classes, _class_indices(cells, class_of, classes), probability_PNC).f1_S()
    decrease_F = f1_P[0] - f1_P[1:].reshape(len(names), repeats).mean(axis=1)
    return {names[i]: float(decrease_F[i]) for i in np.argsort(-decrease_F, kind="stable")}


def _class_indices(cells: Sequence[str], class_of: Mapping[str, str], classes: Sequence[str]) -> np.ndarray:
    return np.array([classes.index(class_of[cell]) for cell in cells])
