"""No group is in two splits."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.errors import InputError
from datamodules.cases import FolderCase
from datamodules.config import FolderData, Split, data_errors
from datamodules.splits import SPLITS, split_cases


def _case(name: str, group: str | None = None, cell_line: str = "all", split: str | None = None) -> FolderCase:
    return FolderCase(name, Path(name), {}, None, {}, ("nucleus",), group or name, cell_line, split)


def _divide(cases: list[FolderCase], split: Split, seed: int = 0, **more: object) -> dict[str, list[str]]:
    division = split_cases(cases, FolderData(split=split, **more), seed)  # type: ignore[arg-type]
    return {s: [c.name for c in division[s]] for s in SPLITS}


@settings(deadline=None, max_examples=150)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=3, max_size=12),
    shares=st.tuples(st.integers(1, 8), st.integers(0, 4), st.integers(0, 4)),
    seed=st.integers(0, 2**32),
)
def test_groups_stay_whole_and_shares_are_met_to_within_a_group(
    sizes: list[int], shares: tuple[int, int, int], seed: int
) -> None:
    cases = [_case(f"g{g}/{n}", f"g{g}") for g, size in enumerate(sizes) for n in range(size)]
    train, val, test = (s / sum(shares) for s in shares)
    division = split_cases(cases, FolderData(split=Split(train, val, test)), seed)
    groups = {s: {c.group for c in division[s]} for s in SPLITS}
    assert not (groups["train"] & groups["val"] | groups["train"] & groups["test"] | groups["val"] & groups["test"])
    assert sorted(c.name for s in SPLITS for c in division[s]) == sorted(c.name for c in cases)
    for split, share in zip(SPLITS, (train, val, test), strict=True):
        assert bool(division[split]) == (share > 0)
        assert abs(len(division[split]) - share * len(cases)) <= 2 * max(sizes)
    again = split_cases(cases[::-1], FolderData(split=Split(train, val, test)), seed)
    assert {s: {c.group for c in again[s]} for s in SPLITS} == groups


@settings(deadline=None, max_examples=60)
@given(count=st.integers(10, 60), seed=st.integers(0, 99))
def test_single_volumes_meet_the_shares_to_the_volume(count: int, seed: int) -> None:
    division = _divide([_case(f"{n}") for n in range(count)], Split(0.7, 0.1, 0.2), seed)
    for split, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
        assert abs(len(division[split]) - share * count) <= 1


def test_the_split_depends_on_the_seed() -> None:
    cases = [_case(f"{n}") for n in range(20)]
    first, second = (_divide(cases, Split(), seed)["test"] for seed in (0, 0))
    assert first == second
    assert any(_divide(cases, Split(), seed)["test"] != first for seed in (1, 2, 3))


def test_three_groups_are_enough_for_three_splits_and_two_are_not() -> None:
    cases = [_case(f"d{d}/{n}", f"d{d}") for d in range(3) for n in range(4)]
    assert all(_divide(cases, Split(0.8, 0.1, 0.1)).values())
    with pytest.raises(InputError, match="2 groups cannot be divided over train, val, test"):
        _divide(cases[:8], Split(0.8, 0.1, 0.1))


def test_all_cases_may_be_test_cases() -> None:
    assert len(_divide([_case("a"), _case("b")], Split(0, 0, 1))["test"]) == 2


def test_lists_name_files_globs_and_folders() -> None:
    cases = [_case(f"dish{d}/{n}.TCF", f"dish{d}") for d in (1, 2, 3) for n in "ab"]
    split = Split(["dish1"], ["dish2/*.TCF"], ["dish3/a.TCF", "dish3/b.TCF"])
    assert _divide(cases, split) == {
        s: [f"dish{d}/a.TCF", f"dish{d}/b.TCF"] for s, d in zip(SPLITS, (1, 2, 3), strict=True)
    }
    assert _divide(cases[:4], Split(["dish1"], 0, ["dish2"]))["val"] == []
    assert _divide(cases[:2], Split(0, 0, ["dish1"]))["test"] == ["dish1/a.TCF", "dish1/b.TCF"]


def test_brackets_in_a_listed_folder_are_literal() -> None:
    cases = [_case("dish[1]/a.TCF", "x"), _case("dish2/a.TCF", "y")]
    assert _divide(cases, Split(["dish[1]/a.TCF"], [], ["dish2"]))["train"] == ["dish[1]/a.TCF"]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (Split(["d1/a", "d2/a"], [], ["d1/b", "d2/a"]), "d2/a is in train and in test"),
        (Split(["d1/a", "d2/a"], [], ["d1/b"]), "group d1 is in train and in test"),
        (Split(["d1"], [], ["d2", "d3"]), r"data\.split\.test: d3: no volume of that name"),
        (Split(["d1"], [], []), "1 of 3 volumes are in no list, such as d2/a"),
    ],
)
def test_lists_with_leaks_or_missing_volumes_are_refused(split: Split, expected: str) -> None:
    cases = [_case("d1/a", "d1"), _case("d1/b", "d1"), _case("d2/a", "d2")]
    with pytest.raises(InputError, match=expected):
        _divide(cases, split)


def test_the_column_of_a_table_takes_precedence_and_must_be_complete_without_leaks() -> None:
    a, b, c = _case("a", "g1", split="train"), _case("b", "g2", split="test"), _case("c", "g1", split="val")
    assert _divide([a, b], Split()) == {"train": ["a"], "val": [], "test": ["b"]}
    with pytest.raises(InputError, match="group g1 is in train and in val"):
        _divide([a, b, c], Split())
    with pytest.raises(InputError, match="1 of 3 volumes have no split, such as d"):
        _divide([a, b, _case("d")], Split())


def test_all_volumes_of_other_cell_lines_are_tested() -> None:
    cases = [_case(f"{line}{n}", cell_line=line) for line in ("NIH3T3", "HeLa") for n in range(10)]
    division = _divide(cases, Split(0.8, 0.1, 0.1), cell_line="line", train_cell_lines=["NIH3T3"])
    assert {f"HeLa{n}" for n in range(10)} <= set(division["test"])
    assert len(division["train"]) == 8
    with pytest.raises(InputError, match=r"data\.train_cell_lines: no volume of cell line A549; found: HeLa, NIH3T3"):
        _divide(cases, Split(), cell_line="line", train_cell_lines=["A549"])


def test_an_unseen_line_that_shares_a_group_with_a_trained_one_is_a_leak() -> None:
    cases = [_case("a", "dish1", "NIH3T3"), _case("b", "dish1", "HeLa")]
    with pytest.raises(InputError, match="group dish1 is in train and in test"):
        _divide(cases, Split(1, 0, 0), cell_line="line", train_cell_lines=["NIH3T3"])


def test_errors_of_a_split_name_their_key() -> None:
    def errors(**more: object) -> str:
        return " | ".join(data_errors(FolderData(volumes="*.TCF", masks="*_{organelle}.tif", **more)))  # type: ignore[arg-type]

    assert errors() == ""
    assert "split: fractions must be 0 or more and add up to 1" in errors(split=Split(0.7, 0.7, 0.1))
    assert "not a mixture" in errors(split=Split(0.7, ["a"], ["b"]))
    assert "train_cell_lines: needs data.cell_line" in errors(train_cell_lines=["HeLa"])
