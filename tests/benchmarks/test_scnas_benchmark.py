"""The comparison of searched networks: what is drawn beside them, the intervals, and that nothing old is taken."""

import importlib
import json
import sys

import numpy as np
import pytest

from cytovox.networks.genotype import load_genotype


@pytest.fixture(scope="module")
def scnas():
    return importlib.import_module("benchmarks.scnas")


def test_the_interval_is_students_over_the_seeds(scnas):
    output = scnas.over_seeds(np.array([[0.0, 2.0], [2.0, 2.0], [1.0, 5.0]]))
    assert output.value == pytest.approx(2.0)
    assert output.high - output.value == pytest.approx(4.302653 / 3**0.5, rel=1e-5)
    assert output.value - output.low == pytest.approx(output.high - output.value)


def test_random_networks_cost_what_the_searched_one_does(scnas):
    published = load_genotype("published")
    found = scnas.random_ones(published, 0)
    assert len(set(found)) == 3
    assert published not in found
    aim = scnas.gflop_of(scnas.scaled(published))
    assert all(abs(scnas.gflop_of(scnas.scaled(one)) / aim - 1) <= 0.15 for one in found)


def test_dints_is_a_network_of_ours_that_trains(scnas):
    import torch

    network = scnas.DiNTSConfig().build(1, 4)
    x = torch.rand(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    network(x).sum().backward()
    assert network(x).shape == (1, 4, 32, 32, 32)
    assert scnas.DiNTSConfig().errors((24, 32, 32))


def test_only_a_finished_run_of_the_very_words_is_not_done_again(tmp_path, monkeypatch):
    module = importlib.import_module("benchmarks._scnas_run")
    calls = []

    def run(command, **_):
        calls.append(command)
        name = next(word for word in command if word.startswith("name=")).removeprefix("name=")
        folder = tmp_path / name / f"{len(calls)}"
        folder.mkdir(parents=True)
        (folder / "status.json").write_text(json.dumps({"status": "failed" if len(calls) == 1 else "finished"}))

    monkeypatch.setattr(module.subprocess, "run", run)
    with pytest.raises(RuntimeError, match="failed, see"):
        module.run_once(tmp_path, "one", "organelle_demo", ["seed=1"])
    first = module.run_once(tmp_path, "one", "organelle_demo", ["seed=1"])
    assert module.run_once(tmp_path, "one", "organelle_demo", ["seed=1"]) == first
    assert module.run_once(tmp_path, "one", "organelle_demo", ["seed=2"]) != first
    assert len(calls) == 3
    assert calls[0][0] == sys.executable
