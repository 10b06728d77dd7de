"""The cache: listed files, removed files, and files that are never removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cytovox.io.provenance import ContentDigests
from cytovox.simulation import Request, simulate_many
from datamodules.cache import store
from datamodules.config import SimulatedSet
from datamodules.shape.config import ShapeSimulatorData
from datamodules.shape.simulated import simulated_shapes
from experiments.commands import dispatch
from experiments.commands.cache import as_size
from experiments.commands.cache_files import CacheFile, choose, find_files, remove

DAY = 86_400
NAMES = {
    "simulated": "HeLa-00001-0123456789abcdef.npz",
    "shapes": f"{'a' * 32}.safetensors",
    "prepared": f"0b/0b{'c' * 30}.safetensors",
    "digests": f"ff/ff{'d' * 62}",
    "benchmarks": "benchmark-HeLa-0123456789abcdef.npz",
}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    root = tmp_path / "cache"
    monkeypatch.setenv("CYTOVOX_CACHE", str(root))
    return root


def put(path: Path, size: int = 1000, days: float = 0.0) -> Path:
    """Create a file that was last used so long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    used = time.time() - days * DAY
    os.utime(path, (used, used))
    return path


@pytest.fixture
def output(capsys) -> Callable[..., dict]:
    """Return the JSON that a command prints."""

    def run(*words: str) -> dict:
        assert dispatch(["cache", *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_every_cached_file_is_recognised(cache):
    """Real files of every kind that a run writes; a new kind makes this fail."""
    simulate_many([Request("HeLa", 3, (16, 32, 32), (0.6, 0.6, 0.6))], cache / "simulated")
    config = ShapeSimulatorData(train=SimulatedSet(presets=["HeLa"], count=1), cache_dir=str(cache))
    simulated_shapes(config, "train")
    volume = put(cache.parent / "a.TCF")
    ContentDigests(cache).of(volume)
    own, others = find_files(cache)
    assert others == []
    assert {file.kind for file in own} == {"simulated", "shapes", "digests"}
    assert {file.path for file in own} == {path for path in cache.rglob("*") if path.is_file()}


def test_prepared_volumes_are_recognised(cache, cli, cells, folder_config):
    done = cli(folder_config(cells), "stages=[fit]", "trainer.max_epochs=1", f"data.cache_dir={cache}")
    assert done.code == 0, done.err
    own, others = find_files(cache)
    assert others == []
    assert "prepared" in {file.kind for file in own}
    assert {file.path for file in own} == {path for path in cache.rglob("*") if path.is_file()}


def test_the_list_counts_files_and_bytes(cache, output, capsys):
    for size, (kind, name) in enumerate(NAMES.items(), start=1):
        put(cache / kind / name, size * 1000, days=size)
    put(cache / "prepared" / "notes.txt", 7)
    summary = output()
    assert summary["cache"] == str(cache)
    assert [(Path(row["path"]).name, row["files"], row["bytes"]) for row in summary["kinds"]] == [
        (kind, 1, size * 1000) for size, kind in enumerate(NAMES, start=1)
    ]
    assert summary["total"] == {"files": 5, "bytes": 15_000}
    assert summary["not_written_by_cytovox"] == {"files": 1, "bytes": 7}
    assert dispatch(["cache"]) == 0
    table = capsys.readouterr().out
    assert f"cache: {cache}" in table
    assert "15.0 kB" in table
    assert time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() - 3 * DAY)) in table
    assert "not written by Cytovox, and never removed: 1 files, 7 B" in table


def test_an_empty_cache_is_listed_and_not_created(cache, capsys):
    assert dispatch(["cache"]) == 0
    assert dispatch(["cache", "prune", "--older-than", "1", "--yes"]) == 0
    assert "nothing is in the cache" in capsys.readouterr().out
    assert not cache.exists()


def test_prune_lists_first_and_removes_with_yes(cache, capsys):
    old = put(cache / "simulated" / NAMES["simulated"], 3000, days=31)
    new = put(cache / "shapes" / NAMES["shapes"], 2000, days=29)
    assert dispatch(["cache", "prune", "--older-than", "30"]) == 0
    listed = capsys.readouterr().out
    assert "3.0 kB" in listed
    assert "2.0 kB" not in listed
    assert "nothing was removed; repeat the command with --yes" in listed
    assert old.exists()
    assert dispatch(["cache", "prune", "--older-than", "30", "--yes"]) == 0
    assert "removed: 1 files, 3.0 kB; 2.0 kB are left" in capsys.readouterr().out
    assert not old.exists()
    assert new.exists()


def test_prune_by_size_removes_the_least_recently_used_files(cache, output):
    paths = [put(cache / "prepared" / f"0{n}" / f"{n:032x}.safetensors", 1_000_000, days=10 - n) for n in range(5)]
    assert output("prune", "--max-size", "0.003")["total"] == {"files": 2, "bytes": 2_000_000}
    assert output("prune", "--max-size", "0.003", "--yes")["removed"]
    assert [path.exists() for path in paths] == [False, False, True, True, True]
    assert output("prune", "--max-size", "0.003", "--yes")["total"]["files"] == 0


def entries(*days: float, size: int = 10**9) -> list[CacheFile]:
    return [CacheFile(Path(str(n)), "shapes", size, -DAY * day, (0, n, size, 0)) for n, day in enumerate(days)]


@pytest.mark.parametrize(
    ("older_than", "max_size", "expected"),
    [
        (5, None, ["3", "2"]), (1.9, None, ["3", "2", "1"]), (None, 3, ["3"]), (None, 2, ["3", "2"]),
        (None, 0, ["3", "2", "1"]), (5, 3, ["3", "2"]), (100, 1, ["3", "2", "1"]), (None, 4, []), (100, None, []),
    ],
)  # fmt: skip
def test_files_to_remove(older_than, max_size, expected):
    """Files of 1 GB, used 0.9, 2, 6 and 9 days ago; a file used within a day is never removed for its size."""
    assert [str(file.path) for file in choose(entries(0.9, 2, 6, 9), 0.0, older_than, max_size)] == expected


def test_a_gigabyte_is_a_thousand_megabytes():
    files = entries(2, 3, 4, size=1_050_000_000)
    assert len(choose(files, 0.0, None, 3)) == 1


def test_a_file_that_was_read_lately_is_not_old(cache, output):
    path = put(cache / "simulated" / NAMES["simulated"], days=31)
    os.utime(path, (time.time(), time.time() - 31 * DAY))
    assert output("prune", "--older-than", "30", "--yes")["total"]["files"] == 0
    assert path.exists()


def test_files_outside_the_cache_and_of_other_programs_are_kept(cache, tmp_path, output):
    outside = put(tmp_path / "outside" / "0b" / f"0b{'c' * 30}.safetensors", days=90)
    volume = put(tmp_path / "outside" / NAMES["simulated"], days=90)
    cache.mkdir()
    (cache / "prepared").symlink_to(tmp_path / "outside")
    (cache / "simulated").mkdir()
    (cache / "simulated" / NAMES["simulated"]).symlink_to(volume)
    os.utime(cache / "simulated" / NAMES["simulated"], (0, 0), follow_symlinks=False)
    (cache / "digests").mkdir()
    (cache / "digests" / "ff").symlink_to(tmp_path / "outside" / "0b")
    foreign = [
        put(cache / "simulated" / "thesis.npz", days=90),
        put(cache / "shapes" / "mine" / NAMES["shapes"], days=90),
        put(cache / "config.yaml", days=90),
        put(cache / "models" / NAMES["shapes"], days=90),
        put(cache / "benchmarks" / "input.ome.zarr" / "0", days=90),
    ]
    assert find_files(cache)[0] == []
    assert output("prune", "--older-than", "1", "--max-size", "0", "--yes")["total"]["files"] == 0
    assert all(path.is_file() for path in (outside, volume, *foreign))
    assert (cache / "simulated" / NAMES["simulated"]).is_symlink()


def test_a_cache_that_is_reached_through_a_link_can_be_pruned(tmp_path, monkeypatch, output):
    real = tmp_path / "scratch"
    path = put(real / "shapes" / NAMES["shapes"], days=90)
    (tmp_path / "link").symlink_to(real)
    monkeypatch.setenv("CYTOVOX_CACHE", str(tmp_path / "link"))
    assert output("prune", "--older-than", "1", "--yes")["total"]["files"] == 1
    assert not path.exists()


def test_a_folder_that_became_a_link_meanwhile_is_not_followed(cache, tmp_path):
    path = put(cache / "shapes" / NAMES["shapes"], days=90)
    own, _ = find_files(cache)
    (cache / "shapes").rename(tmp_path / "elsewhere")
    (cache / "shapes").symlink_to(tmp_path / "elsewhere")
    assert remove(own, cache) == []
    assert path.exists()


def test_a_file_used_or_replaced_meanwhile_is_kept(cache):
    used = put(cache / "shapes" / NAMES["shapes"], days=90)
    replaced = put(cache / "simulated" / NAMES["simulated"], days=90)
    gone = put(cache / "digests" / NAMES["digests"], days=90)
    own, _ = find_files(cache)
    os.utime(used, (time.time(), used.stat().st_mtime))
    times = (replaced.stat().st_atime_ns, replaced.stat().st_mtime_ns)
    replaced.unlink()
    put(replaced, 999)
    os.utime(replaced, ns=times)
    gone.unlink()
    assert remove(own, cache) == []
    assert used.exists()
    assert replaced.stat().st_size == 999


@pytest.mark.parametrize("mapped", [False, True])
def test_a_file_open_in_another_process_is_kept(cache, output, mapped):
    entry, free = cache / "prepared" / NAMES["prepared"], put(cache / "shapes" / NAMES["shapes"], days=90)
    store(entry, {"image": np.zeros((1, 64, 64, 64), np.float32)})
    keep = "from safetensors import safe_open; kept = safe_open(sys.argv[1], 'numpy')"  # maps the file, and closes it
    reader = (
        f"import sys; {keep if mapped else 'kept = open(sys.argv[1])'}; print('open', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", reader, str(entry)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "open\n"
        os.utime(entry, (time.time() - 90 * DAY,) * 2)
        summary = output("prune", "--older-than", "30", "--yes")
        assert summary["in_use"] == 1
        assert summary["total"]["files"] == 1
        assert entry.exists()
        assert not free.exists()
    finally:
        process.communicate("")
    assert output("prune", "--older-than", "30", "--yes")["total"]["files"] == 1


def test_incomplete_files_of_a_killed_process_are_removed(cache, output):
    left = put(cache / "prepared" / "0b" / ".part-0123456789ab.safetensors", days=3)
    writing = put(cache / "prepared" / "0b" / ".part-ba9876543210.safetensors")
    assert output("prune", "--older-than", "2", "--yes")["total"]["files"] == 1
    assert not left.exists()
    assert writing.exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("prune", "cache prune: no criterion; give --older-than DAYS or --max-size GB"),
        ("prune --older-than 0.5", "--older-than 0.5: expected 1 day or more"),
        ("prune --older-than nan", "--older-than nan: expected 1 day or more"),
        ("prune --max-size -1", "--max-size -1: expected gigabytes, 0 or more"),
        ("prune --older-than x", "argument --older-than: invalid float value: 'x'"),
        ("--older-than 3", "only with prune; write cytovox cache prune"),
        ("--yes", "only with prune"),
        ("purge", "invalid choice: 'purge'"),
        ("--cache-dir FILE", "not a folder; name a cache folder"),
    ],
)  # fmt: skip
def test_invalid_arguments_are_one_line_errors(cache, tmp_path, monkeypatch, capsys, words, expected):
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    assert dispatch(["cache", *words.split()]) == 2
    captured = capsys.readouterr().err
    assert expected in captured
    assert captured.count("\n") == 1


@pytest.mark.parametrize("flag", [0, os.ST_NOATIME])
def test_a_disk_without_access_times_has_a_note(cache, monkeypatch, capsys, flag):
    put(cache / "shapes" / NAMES["shapes"])
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=flag | os.ST_NOSUID))
    assert dispatch(["cache"]) == 0
    assert ("records no reads" in capsys.readouterr().err) is bool(flag)


def test_another_cache_can_be_named(tmp_path, output):
    put(tmp_path / "mine" / "shapes" / NAMES["shapes"], 5)
    assert output("--cache-dir", str(tmp_path / "mine"))["total"] == {"files": 1, "bytes": 5}


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (2_500_000, "2.5 MB"),
        (3 * 10**9, "3.0 GB"),
        (10**16, "10000.0 TB"),
    ],
)
def test_sizes(count, expected):
    assert as_size(count) == expected
