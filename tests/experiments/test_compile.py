"""`trainer.compile`: what trains is compiled, what is saved is as without, and what cannot be compiled is an error."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from tests.experiments.test_search import SMALL as SMALL_SEARCH


def weights(run):
    return torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]


@pytest.fixture
def compiled(monkeypatch):
    """Calls of torch.compile, which traces and generates no code."""
    calls, torch_compile = [], torch.compile

    def tracing(function, **options):
        calls.append(options)
        return torch_compile(function, **options, backend="eager")

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
    (line,) = answer.faults
    assert line.startswith("trainer.compile: this network cannot be compiled here")
    assert line.endswith("set it to false")


def test_a_search_is_not_compiled(tmp_path, cli):
    answer = cli("scnas_search_demo", *SMALL_SEARCH, "trainer.compile=true", f"runs_dir={tmp_path}")
    assert answer.code == 2
    assert "trainer.compile: not with task search" in answer.err
