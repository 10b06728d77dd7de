"""Fingerprints: what they cover, what a release may add, and content compared by its bytes, not its time stamp."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytovox.io import provenance
from cytovox.io.provenance import (
    GIVEN,
    RACY_NS,
    ContentDigests,
    Fingerprint,
    StampedRecords,
    Step,
    array_digest,
    content_digest,
    digest_of,
    leaves_of,
    settled,
    stamp_of,
)


@dataclasses.dataclass
class Inner:
    depth: float = 1.0
    names: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Outer:
    out: str = "a"
    level: int = 3
    inner: Inner = dataclasses.field(default_factory=lambda: Inner(2.0))
    other: Inner | None = None


STEP = Step("test", 1, {"out": "where results lie"})


def test_every_key_counts_that_is_not_listed() -> None:
    before = STEP.fingerprint(Outer(), weights="w")
    for changed in (
        Outer(level=4), Outer(inner=Inner(3.0)), Outer(inner=Inner(2.0, ["x"])), Outer(other=Inner()),
    ):  # fmt: skip
        after = STEP.fingerprint(changed, weights="w")
        assert after.key != before.key
        assert after.name != before.name
        assert not after.agrees(before.parts)
    assert STEP.fingerprint(Outer(out="b"), weights="w").key == before.key
    assert STEP.fingerprint(Outer(), weights="v").key != before.key
    assert dataclasses.replace(STEP, version=2).fingerprint(Outer(), weights="w").key != before.key


def test_the_part_that_changed_is_named_in_one_line() -> None:
    stored = STEP.fingerprint(Outer(), content_of_weights="w").parts
    now = dataclasses.replace(STEP, version=2).fingerprint(Outer(level=4, inner=Inner(2.5)), content_of_weights="v")
    assert now.why(stored) == "content of weights changed, inner.depth 2.0 -> 2.5, level 3 -> 4 and 1 more"
    assert STEP.fingerprint(Outer(), content_of_weights="w").why(stored) == ""
    assert now.why(None) == ""
    assert dataclasses.replace(STEP, version=2).fingerprint(Outer(), content_of_weights="w").why(stored) == (
        "method version 1 -> 2"
    )


def test_a_key_that_a_release_adds_discards_nothing_until_it_is_set() -> None:
    stored = STEP.fingerprint(Outer()).parts
    more = dataclasses.make_dataclass("Outer", [("added", float, 0.5)], bases=(Outer,))
    assert STEP.fingerprint(more()).agrees(stored)
    assert STEP.fingerprint(more()).name == STEP.fingerprint(Outer()).name
    assert not STEP.fingerprint(more(added=0.6)).agrees(stored)


def test_a_default_that_a_release_changes_counts() -> None:
    stored = STEP.fingerprint(Outer()).parts
    other = dataclasses.make_dataclass("Outer", [("level", int, 5)], bases=(Outer,))
    assert not STEP.fingerprint(other()).agrees(stored)
    assert STEP.fingerprint(other()).key != STEP.fingerprint(Outer()).key  # so that later steps see it


def test_defaults_are_those_of_the_group_where_it_lies() -> None:
    leaves = leaves_of(Outer())
    assert leaves["inner.depth"].default == 2.0
    assert leaves["other"].default is None
    assert leaves_of(Outer(other=Inner()))["other.depth"].default == 1.0
    assert leaves_of(Outer(other=Inner()))["other"].value == GIVEN
    assert set(leaves) == {"out", "level", "inner.depth", "inner.names", "other"}


def test_entries_that_stand_for_no_key_are_found() -> None:
    step = Step("test", 1, {"out": "a", "inner.*": "b", "outt": "c", "iner.*": "d"})
    assert step.unknown(leaves_of(Outer())) == ["outt", "iner.*"]
    assert step.reason("inner.depth") == "b"
    assert step.reason("level") is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(VALUES)
def test_parts_survive_json(value: object) -> None:
    made = STEP.fingerprint(Outer(), content=value)
    assert made.agrees(json.loads(json.dumps(made.parts)))


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4))
def test_the_order_of_parts_does_not_matter(parts: dict[str, object]) -> None:
    turned = dict(reversed(parts.items()))
    assert digest_of(parts) == digest_of(turned)


@pytest.mark.parametrize("stored", [None, {}, [], "text", {"level": 3}])
def test_what_is_no_record_of_a_result_agrees_with_nothing(stored: object) -> None:
    assert not STEP.fingerprint(Outer(), weights="w").agrees(stored)


def test_an_array_is_reported_by_values_shape_and_type() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    others = [array + 1, array.reshape(3, 2), array.astype(np.float64)]
    assert len({array_digest(a) for a in [array, *others]}) == 4
    assert array_digest(np.asfortranarray(array)) == array_digest(array)


def test_other_content_of_the_same_size_and_time_stamp_is_seen(tmp_path: Path) -> None:
    path, digests = tmp_path / "a.bin", ContentDigests(tmp_path / "cache")
    path.write_bytes(b"one")
    past = time.time_ns() - 100 * RACY_NS
    os.utime(path, ns=(past, past))
    before = digests.of(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(past, past))
    assert path.stat().st_mtime_ns == past
    assert digests.of(path) != before
    assert digests.of(path) == content_digest(path)


def test_a_file_written_twice_within_one_step_of_the_clock_is_read_twice(tmp_path: Path, monkeypatch) -> None:
    path, digests = tmp_path / "a.bin", ContentDigests(tmp_path / "cache")
    path.write_bytes(b"one")
    frozen = stamp_of(path)
    monkeypatch.setattr(provenance, "stamp_of", lambda path: frozen)  # a file system whose clock stands still
    before = digests.of(path)
    path.write_bytes(b"two")
    assert digests.of(path) != before


def test_a_file_that_lies_untouched_is_read_once(tmp_path: Path, monkeypatch) -> None:
    path, digests = tmp_path / "a.bin", ContentDigests(tmp_path / "cache")
    path.write_bytes(b"one")
    later = time.time_ns() + 2 * RACY_NS
    monkeypatch.setattr(provenance.time, "time_ns", lambda: later)
    before = digests.of(path)
    monkeypatch.setattr(provenance, "_sha256", lambda path: pytest.fail("read again"))
    assert digests.of(path) == before
    assert ContentDigests(tmp_path / "cache").of(path) == before


def test_within_one_pass_no_file_is_read_twice(tmp_path: Path, monkeypatch) -> None:
    path, digests = tmp_path / "a.bin", ContentDigests(tmp_path / "cache", once=True)
    path.write_bytes(b"one")
    before = digests.of(path)
    monkeypatch.setattr(provenance, "_sha256", lambda path: pytest.fail("read again"))
    assert digests.of(path) == before


def test_a_stamp_settles_after_the_longest_step_of_any_clock() -> None:
    stamp = [["a", 3, 5 * RACY_NS, 4 * RACY_NS, 1]]
    assert not settled(stamp, 6 * RACY_NS)
    assert settled(stamp, 6 * RACY_NS + 1)


def test_a_folder_is_reported_by_names_and_contents_of_all_its_files(tmp_path: Path) -> None:
    for name, content in (("a/x", b"1"), ("a/y/z", b"2"), ("b/x", b"1"), ("b/y/w", b"2")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert content_digest(tmp_path / "a") != content_digest(tmp_path / "b")
    (tmp_path / "b/y/w").rename(tmp_path / "b/y/z")
    assert content_digest(tmp_path / "a") == content_digest(tmp_path / "b")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stamp": 1}', '{"found": 2}'])
def test_a_torn_note_says_nothing(tmp_path: Path, content: str) -> None:
    path, notes = tmp_path / "a.bin", StampedRecords(tmp_path / "notes")
    path.write_bytes(b"one")
    notes.write(path, {"0": "x"}, stamp_of(path), time.time_ns() + 2 * RACY_NS)
    assert notes.read(path) == {"0": "x"}
    (note,) = (p for p in (tmp_path / "notes").rglob("*") if p.is_file())
    note.write_text(content)
    assert notes.read(path) is None
    assert notes.read(tmp_path / "none") is None


def test_a_place_that_takes_no_notes_costs_nothing_but_time(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    (tmp_path / "file").touch()
    assert ContentDigests(tmp_path / "file").of(path) == content_digest(path)


def test_a_fingerprint_without_a_config_is_its_content_alone() -> None:
    assert Fingerprint({"cell": "a"}).agrees({"cell": "a"})
    assert Fingerprint({"cell": "a"}).why({"cell": "b"}) == "cell changed"
