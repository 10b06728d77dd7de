"""File names on the command line: the config parser returns exactly the typed name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cytovox.errors import InputError
from datamodules.paths import expand
from experiments.commands.words import is_override, quoted, quoted_files, quoted_path, resume_word, split_words
from experiments.compose import compose

#: Any name that a file can have, but for what is tested apart.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
NAMES = TEXT.filter(lambda name: "${" not in name and name != "???")

ODD = [
    "a b.TCF", "c,d.TCF", "e[1].TCF", "f{g}.TCF", "g=h.TCF", "i*.TCF", "j?.TCF", "k'l\".TCF", "#m: n.TCF", "~o.TCF",
    "null", "1.0", "yes", "24:00:00", "- p.TCF", "&q.TCF", "!r.TCF", "|s.TCF", "%t.TCF", "u\\v.TCF", "w\nx.TCF",
    "\u2028.TCF", "\x85.TCF", "\U0001f52c.TCF", " y.TCF ", "@z.TCF", "\x7f.TCF", "ä.TCF", "\ufeff.TCF",
    "long " * 40,
]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_name_is_read_as_it_is(name):
    assert read(f"out={quoted_path(name, '--out')}", "out") == name
    assert "\n" not in quoted_path(name, "--out")
    assert read(f"inputs={quoted_files([name, 'b.TCF'])}", "inputs") == [name, "b.TCF"]


@given(names=st.lists(NAMES, min_size=1, max_size=4))
def test_any_names_are_read_as_they_are(names):
    assert read(f"inputs={quoted_files(names)}", "inputs") == names


@given(name=NAMES)
def test_any_single_name_is_read_as_it_is(name):
    assert read(f"out={quoted(name, '--out')}", "out") == name


def read(word: str, key: str) -> object:
    return compose("analyze", [word]).values[key]


def test_a_file_may_have_the_name_of_a_missing_value():
    assert read(f"out={quoted_path('???', '--out')}", "out") == "./???"


@pytest.mark.parametrize("name", ["a${b}.TCF", "${oc.env:HOME}.TCF", "x${.TCF", "[1]${y}*.TCF"])
def test_a_name_that_looks_like_an_interpolation_becomes_a_pattern_of_this_file_alone(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    for other in ("ab.TCF", "1$y.TCF", "a$.TCF"):
        (tmp_path / other).touch()
    (pattern,) = read(f"inputs={quoted_files([name])}", "inputs")
    assert "${" not in pattern
    assert expand([pattern], Path(), "inputs") == [Path(name)]


@pytest.mark.parametrize("name", ["", "a\0b", "\udcff.TCF", "a${b}"])
def test_a_name_that_no_config_value_can_contain_is_a_one_line_error(name):
    with pytest.raises(InputError, match=r"^--out: ") as refused:
        quoted_path(name, "--out")
    assert str(refused.value).encode().count(b"\n") == 0


def test_existing_files_take_precedence_over_patterns_and_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("e[1].TCF", "e1.TCF", "i*.TCF", "ix.TCF", "seed=3", "dish=3.TCF"):
        (tmp_path / name).touch()
    words = ["e[1].TCF", "i*.TCF", "dish=3.TCF", "predict.format=nifti", "data/a=1.TCF", "seed=3", "dish=?.TCF"]
    files, overrides = split_words(words, ["trainer.max_epochs=3"])
    assert files == [
        "e[1].TCF", "i*.TCF", "dish=3.TCF", "data/a=1.TCF", "seed=3", "dish=?.TCF", "trainer.max_epochs=3",
    ]  # fmt: skip
    assert overrides == ["predict.format=nifti"]
    named = read(f"inputs={quoted_files(['e[1].TCF', 'i*.TCF'])}", "inputs")
    assert expand(named, Path(), "inputs") == [Path("e[1].TCF"), Path("i*.TCF")]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a.b=1", True), ("data.train.counts.MDA-MB-231=3", True), ("label_values={a: [1]}", True), ("=b", False),
        ("a b=c", False), ("/a=b", False), ("./a=b", False), ("a/b=c", False), ("a.TCF", False), ("1=2", False),
        ("data.volumes=*.TCF", True), ("-a=b", False),
    ],
)  # fmt: skip
def test_key_value_words_are_recognised(tmp_path, monkeypatch, word, expected):
    monkeypatch.chdir(tmp_path)
    assert is_override(word) is expected


@given(run=NAMES)
def test_a_run_folder_is_quoted_only_if_yaml_would_change_it(run):
    word = resume_word(run)
    assert word.startswith("resume=")
    assert yaml.safe_load(word.removeprefix("resume=")) == run
    if run.isascii() and run.isalpha() and yaml.safe_load(run) == run:
        assert word == f"resume={run}"
