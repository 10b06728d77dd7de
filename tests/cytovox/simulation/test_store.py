"""The cache of simulated volumes."""

import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cytovox.errors import InputError
from cytovox.simulation import Options, Request, load, simulate, simulate_many
from cytovox.simulation.optics import Optics
from cytovox.simulation.store import fetch, save

QUICK = Options(optics=Optics(rounds=2))
REQUEST = Request("HeLa", 3, (16, 32, 32), (0.6, 0.5, 0.5), QUICK)


def test_a_cached_volume_equals_the_simulated_one(tmp_path):
    path = fetch(REQUEST, tmp_path)
    kept, fresh = load(path), simulate("HeLa", 3, (16, 32, 32), (0.6, 0.5, 0.5), QUICK)
    for name in ("ri_true_ZYX", "ri_ZYX", "cells_ZYX", "nuclei_ZYX"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(fresh, name))
        assert getattr(kept, name).dtype == getattr(fresh, name).dtype
    assert list(kept.masks) == list(fresh.masks)
    for name, mask in fresh.masks.items():
        np.testing.assert_array_equal(kept.masks[name], mask)
    for name in ("spacing_um", "medium_ri", "preset", "seed", "name"):
        assert getattr(kept, name) == getattr(fresh, name)


@pytest.mark.parametrize(
    "change",
    [
        {"preset": "A549"},
        {"seed": 4},
        {"shape": (16, 32, 33)},
        {"spacing_um": (0.6, 0.5, 0.51)},
        {"options": Options()},
        {"options": replace(QUICK, medium_ri=1.336)},
    ],
)
def test_different_requests_have_different_file_names(change):
    assert replace(REQUEST, **change).filename != REQUEST.filename


def test_number_types_of_a_request_do_not_change_its_file_name():
    twin = Request("HeLa", np.int64(3), [16, 32, 32], [0.6, 0.5, 0.5], QUICK)
    assert twin == REQUEST
    assert twin.filename == REQUEST.filename


def test_the_simulator_version_changes_the_file_name(monkeypatch):
    old = REQUEST.filename
    monkeypatch.setattr("cytovox.simulation.store.SIMULATOR_VERSION", 10_000)
    assert REQUEST.filename != old


def test_a_cache_that_cannot_be_created_is_reported_before_simulating(tmp_path, monkeypatch):
    monkeypatch.setattr("cytovox.simulation.store.simulate", lambda *_: pytest.fail("simulated"))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="cannot create the cache there"):
        simulate_many([REQUEST], tmp_path / "file" / "cache")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_volume_in_the_cache_is_not_simulated_again(tmp_path, monkeypatch):
    path = fetch(REQUEST, tmp_path)
    monkeypatch.setattr("cytovox.simulation.store.simulate", lambda *_: pytest.fail("simulated again"))
    assert fetch(REQUEST, tmp_path) == path


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.98])
def test_a_truncated_volume_is_detected_and_simulated_again(tmp_path, kept):
    path = fetch(REQUEST, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(InputError, match="not a complete simulated volume"):
        load(path)
    assert fetch(REQUEST, tmp_path) == path
    load(path)


def test_a_flipped_bit_is_detected(tmp_path):
    path = fetch(REQUEST, tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(InputError):
        load(path)


def test_a_missing_or_foreign_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such simulated volume"):
        load(tmp_path / "none.npz")
    np.savez(tmp_path / "foreign.npz", a=np.ones(3))
    with pytest.raises(InputError, match="foreign"):
        load(tmp_path / "foreign.npz")


def test_a_failed_write_leaves_no_file(tmp_path, monkeypatch):
    tomogram = load(fetch(REQUEST, tmp_path))

    def full(*_args, **_named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.savez_compressed", full)
    with pytest.raises(InputError, match="no space left"):
        save(tmp_path / "new" / "volume.npz", tomogram)
    assert list((tmp_path / "new").iterdir()) == []


def test_paths_are_in_the_order_of_the_requests_and_progress_is_reported(tmp_path):
    requests = [replace(REQUEST, seed=seed) for seed in (2, 0, 1, 0)]
    reported = []
    paths = simulate_many(requests, tmp_path, progress=lambda done, total: reported.append((done, total)))
    assert [load(path).seed for path in paths] == [2, 0, 1, 0]
    assert reported == [(1, 3), (2, 3), (3, 3)]


def test_volumes_do_not_depend_on_the_number_of_workers(tmp_path):
    requests = [replace(REQUEST, seed=seed) for seed in range(3)]
    alone = simulate_many(requests, tmp_path / "one")
    together = simulate_many(requests, tmp_path / "two", workers=2)
    for one, two in zip(alone, together, strict=True):
        assert one.name == two.name
        np.testing.assert_array_equal(load(one).ri_ZYX, load(two).ri_ZYX)


def test_an_invalid_request_is_refused_before_simulating(tmp_path):
    with pytest.raises(InputError, match="Hella"):
        simulate_many([REQUEST, replace(REQUEST, preset="Hella")], tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def _fill(folder: str) -> None:
    simulate_many([replace(REQUEST, seed=seed) for seed in range(3)], folder)


def test_several_processes_can_fill_one_cache(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fill, args=(str(tmp_path),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    files = sorted(Path(tmp_path).iterdir())
    assert len(files) == 3
    assert [load(path).seed for path in files] == [0, 1, 2]
