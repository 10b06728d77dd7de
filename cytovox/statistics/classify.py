"""Random forests that tell cells apart: macro F1, confusion matrix, importances."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from cytovox.errors import InputError
from cytovox.statistics.bootstrap import Interval, difference, interval
from cytovox.statistics.feature_tables import Fold, Table


@dataclass(frozen=True)
class Forest:
    """How the forests are grown; the defaults are those the published scores on these cells were made with."""

    trees: int = 1000
    """Trees of a forest."""
    depth: int = 10
    """Most splits between root and leaf."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """One forest each: scores are means over them, so that the forest's own noise is small."""
    jobs: int = 1
    """Threads that grow it."""

    def fit(self, values_NF: np.ndarray, classes_N: np.ndarray, seed: int) -> RandomForestClassifier:
        """One forest: `trees` trees on bootstrap samples of the rows, sqrt(F) features tried a split (Breiman 2001)."""
        forest = RandomForestClassifier(self.trees, max_depth=self.depth, random_state=seed, n_jobs=self.jobs)
        forest.fit(values_NF, classes_N)
        # asked by several threads, a forest adds its trees in the order they come: the last bits would differ
        return forest.set_params(n_jobs=1)


@dataclass(frozen=True)
class Outcome:
    """What forests said of every cell when it was a test cell."""

    cells: tuple[str, ...]
    """In sorted order."""
    classes: tuple[str, ...]
    """In sorted order."""
    truth_N: np.ndarray
    """Index of each cell's class."""
    probability_SNC: np.ndarray
    """Of each forest seed, cell and class; the mean over the cell's rows."""
    predicted_SN: np.ndarray = field(init=False)
    """Index of the likeliest class."""

    def __post_init__(self) -> None:
        """Take the likeliest class."""
        object.__setattr__(self, "predicted_SN", self.probability_SNC.argmax(axis=2))

    def f1_S(self, chosen_N: np.ndarray | None = None) -> np.ndarray:
        """Macro F1 of each seed's forests, over all cells or over these (with repeats)."""
        index = np.arange(len(self.cells)) if chosen_N is None else chosen_N
        counts_SCC = _counts(self.truth_N[index], self.predicted_SN[:, index], len(self.classes))
        hits = np.diagonal(counts_SCC, axis1=1, axis2=2)
        total = counts_SCC.sum(axis=1) + counts_SCC.sum(axis=2)
        with np.errstate(invalid="ignore", divide="ignore"):
            # a class that is neither there nor predicted has no F1
            return np.nanmean(np.where(total > 0, 2 * hits / total, np.nan), axis=1)

    @property
    def macro_f1(self) -> float:
        """Mean over the seeds of macro F1."""
        return float(self.f1_S().mean())

    @property
    def confusion_CC(self) -> np.ndarray:
        """Cells by true (row) and predicted (column) class, mean over the seeds."""
        return _counts(self.truth_N, self.predicted_SN, len(self.classes)).mean(axis=0)


def _counts(truth_N: np.ndarray, predicted_SN: np.ndarray, classes: int) -> np.ndarray:
    seeds = np.arange(len(predicted_SN))[:, None]
    flat = (seeds * classes + truth_N) * classes + predicted_SN
    return np.bincount(flat.ravel(), minlength=len(predicted_SN) * classes**2).reshape(-1, classes, classes)


def check_folds(folds: Sequence[Fold], class_of: Mapping[str, str]) -> tuple[str, ...]:
    """The cells under test, sorted, if the folds make an honest cross-validation.

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
        raise InputError(
            f"all cells are of class {classes[0]}; expected two classes or more: there is nothing to tell apart"
        )
    return tuple(sorted(cells))


def cross_validate(folds: Sequence[Fold], class_of: Mapping[str, str], forest: Forest | None = None) -> Outcome:
    """Grow forests on every fold's training rows and ask them about its test cells.

    Parameters
    ----------
    folds : sequence of Fold
        Together they test every cell once.
    class_of : dict of cell -> class
    forest : Forest, optional

    Returns
    -------
    Outcome
        A cell with several rows gets the mean of their probabilities.

    Raises
    ------
    InputError, ValueError
        As `check_folds`.
    """
    forest = forest or Forest()
    cells = check_folds(folds, class_of)
    classes = tuple(sorted({class_of[cell] for cell in cells}))
    place = {cell: i for i, cell in enumerate(cells)}
    probability_SNC = np.zeros((len(forest.seeds), len(cells), len(classes)))
    for fold in folds:
        index = np.array([place[cell] for cell in fold.test.cells])
        share = 1 / np.bincount(index, minlength=len(cells))[index]
        target = _targets(fold.train, class_of, classes)
        for s, seed in enumerate(forest.seeds):
            grown = forest.fit(fold.train.values_NF, target, seed)
            said = grown.predict_proba(fold.test.values_NF) * share[:, None]
            np.add.at(probability_SNC[s], (index[:, None], grown.classes_[None].astype(int)), said)
    truth_N = np.array([classes.index(class_of[cell]) for cell in cells])
    return Outcome(cells, classes, truth_N, probability_SNC)


def f1_interval(outcome: Outcome, *, resamples: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """Bootstrap interval over cells of `Outcome.macro_f1`; cells are drawn within their class."""
    return interval(
        lambda cells: float(outcome.f1_S(cells).mean()),
        len(outcome.cells),
        resamples=resamples,
        level=level,
        seed=seed,
        strata=outcome.truth_N,
    )


def f1_gain(outcome: Outcome, over: Outcome, *, resamples: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """Paired interval of the macro F1 of one outcome less that of another: each resample is of the same cells.

    It says how far the gain would move with other cells to test, not with other cells to train on.

    Raises
    ------
    ValueError
        The outcomes are of other cells or classes.
    """
    if outcome.cells != over.cells or outcome.classes != over.classes or (outcome.truth_N != over.truth_N).any():
        raise ValueError("a paired gain wants two outcomes of the same cells and classes")
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
    """How much macro F1 falls when a feature of the held-out cells is dealt out anew among them.

    Unlike the mean decrease in impurity it is measured on cells that the forest did not learn from, and does not favour
    features with many values. Of two features that say the same, neither is important.

    Parameters
    ----------
    folds, class_of, forest
        As for `cross_validate`; only the first of the forest's seeds is grown.
    repeats : int
        Deals a feature; their mean is taken.
    seed : int
        Of the deals.

    Returns
    -------
    dict of feature -> float
        Macro F1 with the feature less macro F1 without, the largest first.

    Raises
    ------
    InputError, ValueError
        As `check_folds`.

    References
    ----------
    Breiman 2001, Machine Learning 45(1), section 10; Strobl et al. 2007, BMC Bioinformatics 8:25.
    """
    forest = forest or Forest()
    cells = check_folds(folds, class_of)
    classes = tuple(sorted({class_of[cell] for cell in cells}))
    truth_N = np.array([classes.index(class_of[cell]) for cell in cells])
    place = {cell: i for i, cell in enumerate(cells)}
    names = folds[0].train.names
    rng = np.random.default_rng(seed)
    # plain, then every feature `repeats` times: each a prediction of all cells
    probability_PNC = np.zeros((1 + len(names) * repeats, len(cells), len(classes)))
    for fold in folds:
        grown = forest.fit(fold.train.values_NF, _targets(fold.train, class_of, classes), forest.seeds[0])
        index = np.array([place[cell] for cell in fold.test.cells])
        dealt_PRF = np.repeat(fold.test.values_NF[None], len(probability_PNC), axis=0)
        for p in range(1, len(dealt_PRF)):
            column = (p - 1) // repeats
            dealt_PRF[p, :, column] = rng.permutation(dealt_PRF[p, :, column])
        # rows of one cell are summed: a cell has as many in each prediction, so the likeliest class is that of the mean
        said_PRC = grown.predict_proba(dealt_PRF.reshape(-1, len(names))).reshape(*dealt_PRF.shape[:2], -1)
        for p, said in enumerate(said_PRC):
            np.add.at(probability_PNC[p], (index[:, None], grown.classes_[None].astype(int)), said)
    f1_P = Outcome(cells, classes, truth_N, probability_PNC).f1_S()
    fall_F = f1_P[0] - f1_P[1:].reshape(len(names), repeats).mean(axis=1)
    return {names[i]: float(fall_F[i]) for i in np.argsort(-fall_F, kind="stable")}


def _targets(table: Table, class_of: Mapping[str, str], classes: Sequence[str]) -> np.ndarray:
    return np.array([classes.index(class_of[cell]) for cell in table.cells])
