"""`trainer.compile`: what trains is compiled, what is saved is as without, and what cannot be compiled is an error."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from tests.experiments.test_search import SMALL as SMALL_SEARCH


def weights(run):
    return torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]


class Calls(list):
    """Options of every call, and how many graphs were compiled."""

    graphs = 0


@pytest.fixture
def compiled(monkeypatch):
    """Calls of torch.compile, which traces and generates no code."""
    calls, torch_compile = Calls(), torch.compile

    def traced(graph, _):
        calls.graphs += 1
        return graph

    def tracing(function, **options):
        calls.append(options)
        return torch_compile(function, **options, backend=traced)

    monkeypatch.setattr(torch, "compile", tracing)
    yield calls
    torch._dynamo.reset()


def test_the_weights_are_those_of_a_run_that_was_not_compiled(tmp_path, cli, tiny, trained, compiled):
    run = cli(tiny, "stages=[fit]", "trainer.compile=true", f"runs_dir={tmp_path}").run
    assert compiled == [{"dynamic": False}]
    expected = weights(trained.run)
    found = weights(run)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


def test_averaged_weights_and_a_resumed_run_are_compiled_too(tmp_path, cli, tiny, compiled):
    words = ["stages=[fit]", "trainer.compile=true", "trainer.ema={decay: 0.9}"]
    run = cli(tiny, *words, "trainer.max_epochs=1", f"runs_dir={tmp_path}").run
    assert cli(f"resume={run}", "trainer.max_epochs=2", "stages=[fit]").code == 0
    assert len(compiled) == 2
    assert not [key for key in weights(run) if "_orig_mod" in key]


def test_a_validation_compiles_nothing(tmp_path, cli, tiny, compiled):
    """Its batches of windows are of other sizes than those of the training."""
    words = ["stages=[fit]", "trainer.compile=true", f"runs_dir={tmp_path}"]
    assert cli(tiny, *words, "trainer.check_val_every_n_epoch=9").code == 0
    alone = compiled.graphs
    assert alone > 0
    torch._dynamo.reset()
    assert cli(tiny, *words).code == 0
    assert compiled.graphs == 2 * alone


def test_an_analysis_with_a_compiler_that_fails_blames_no_file(tmp_path, cli, cells, monkeypatch):
    def failing(function, **_):
        def call(*args, **kwargs):
            raise TorchDynamoException("no working C compiler")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    answer = cli("analyze", f"inputs=[{cells}/*.TCF]", f"out={tmp_path / 'run'}", "compile=default", "meshes=none")
    assert answer.code == 2
    (line,) = [line for line in answer.errors if "compile" in line]
    assert line.startswith("compile default: torch.compile failed")


def test_nothing_is_compiled_unless_asked_for(tmp_path, cli, tiny, compiled):
    assert cli(tiny, "stages=[fit]", "trainer.max_epochs=1", f"runs_dir={tmp_path}").code == 0
    assert compiled == []


def test_a_compiler_that_fails_is_one_line(tmp_path, cli, tiny, monkeypatch):
    def failing(function, **_):
        def call(*args, **kwargs):
            raise TorchDynamoException("no working C compiler")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    answer = cli(tiny, "stages=[fit]", "trainer.compile=true", f"runs_dir={tmp_path}")
    assert answer.code == 2
    (line,) = answer.errors
    assert line.startswith("trainer.compile: this network cannot be compiled here")
    assert line.endswith("set it to false")


def test_a_search_is_not_compiled(tmp_path, cli):
    answer = cli("scnas_search_demo", *SMALL_SEARCH, "trainer.compile=true", f"runs_dir={tmp_path}")
    assert answer.code == 2
    assert "trainer.compile: not with task search" in answer.err
