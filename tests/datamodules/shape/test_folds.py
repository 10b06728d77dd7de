"""Folds depend only on names, classes and the seed."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytovox.errors import InputError
from datamodules.shape.cases import ShapeFiles
from datamodules.shape.config import ShapeFolderData
from datamodules.shape.folder import find_shapes
from datamodules.shape.folds import divide_shapes, stratified_folds, take_share


def cells(counts: dict[str, int]) -> tuple[list[str], list[str]]:
    groups = [group for group, count in counts.items() for _ in range(count)]
    return [f"{group}_{i}" for i, group in enumerate(groups)], groups


def files(counts: dict[str, int], split: str | None = None) -> list[ShapeFiles]:
    return [ShapeFiles(n, g, Path(n), Path(n), Path(n), split) for n, g in zip(*cells(counts), strict=True)]


@given(
    counts=st.dictionaries(st.sampled_from("ABCDEF"), st.integers(5, 40), min_size=1),
    folds=st.integers(2, 5),
    seed=st.integers(0, 99),
)
def test_folds_are_balanced_in_all_and_in_every_class(counts: dict[str, int], folds: int, seed: int) -> None:
    names, groups = cells(counts)
    fold_N = stratified_folds(names, groups, folds, seed)
    for group in [None, *counts]:
        sizes = Counter(dict.fromkeys(range(folds), 0))
        sizes.update(int(f) for f, g in zip(fold_N, groups, strict=True) if group in (None, g))
        assert max(sizes.values()) - min(sizes.values()) <= 1
        assert set(sizes) == set(range(folds))


def test_folds_depend_on_the_seed_but_not_on_the_order_of_files() -> None:
    names, groups = cells({"A": 13, "B": 8})
    before = dict(zip(names, stratified_folds(names, groups, 4, 0), strict=True))
    order = list(range(len(names)))
    random.Random(3).shuffle(order)
    after = stratified_folds([names[i] for i in order], [groups[i] for i in order], 4, 0)
    assert all(before[names[i]] == fold for i, fold in zip(order, after, strict=True))
    assert before != dict(zip(names, stratified_folds(names, groups, 4, 1), strict=True))


def test_folds_are_reproducible() -> None:
    fold_N = stratified_folds(*cells({"A": 6, "B": 4}), folds=3, seed=0)
    assert fold_N.tolist() == [1, 0, 2, 2, 0, 1, 2, 0, 0, 1]


def test_a_class_smaller_than_the_folds_is_named() -> None:
    with pytest.raises(InputError, match=r"data\.folds: 5 folds, but fewer cells in B \(3\), C \(1\)") as error:
        stratified_folds(*cells({"A": 9, "B": 3, "C": 1}), folds=5, seed=0)
    assert "\n" not in str(error.value)


@given(
    counts=st.dictionaries(st.sampled_from("ABCDEF"), st.integers(2, 40), min_size=1),
    share=st.floats(0.01, 0.4),
)
def test_a_share_is_stratified_by_class(counts: dict[str, int], share: float) -> None:
    names, groups = cells(counts)
    taken_N = take_share(names, groups, share, 0)
    assert taken_N.sum() == max(1, round(share * len(names)))
    for group, count in counts.items():
        own = sum(bool(t) for t, g in zip(taken_N, groups, strict=True) if g == group)
        assert abs(own - share * count) < 1
    assert not take_share(names, groups, 0.0, 0).any()


def test_every_cell_is_tested_in_one_fold_and_never_trained_on_there() -> None:
    found = files({"A": 21, "B": 9})
    tested: list[str] = []
    for fold in range(5):
        division = divide_shapes(found, ShapeFolderData(fold=fold, val=0.2))
        parts = [[c.name for c in division[split]] for split in ("train", "val", "test")]
        assert sorted(parts[0] + parts[1] + parts[2]) == sorted(c.name for c in found)
        assert [len(part) for part in parts] == [19, 5, 6]
        tested += parts[2]
    assert sorted(tested) == sorted(c.name for c in found)


def test_zero_folds_train_on_all_cells_and_divided_folders_keep_their_split() -> None:
    found = files({"A": 3})
    assert [len(d) for d in divide_shapes(found, ShapeFolderData(folds=0, val=0)).values()] == [3, 0, 0]
    split = files({"A": 3}, "train") + files({"B": 2}, "test")
    division = divide_shapes(split, ShapeFolderData(val=0.3))
    assert [len(d) for d in division.values()] == [2, 1, 2]
    assert {c.group for c in division["test"]} == {"B"}


@pytest.mark.real_data
@pytest.mark.skipif("CYTOVOX_DATA" not in os.environ, reason="CYTOVOX_DATA names no folder of real data")
def test_real_classes_are_spread_over_the_folds() -> None:
    found = find_shapes(ShapeFolderData(root=str(Path(os.environ["CYTOVOX_DATA"]) / "rbc")))
    for fold in range(5):
        test = Counter(c.group for c in divide_shapes(found, ShapeFolderData(fold=fold))["test"])
        assert sum(test.values()) in (20, 21)
        assert test["D_multilobate_cells"] in (1, 2)
        assert test["A_cell_clusters"] in (10, 11)
