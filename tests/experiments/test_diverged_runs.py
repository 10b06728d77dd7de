"""Runs that diverge, and weights that did, as the command line answers to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cytovox.models.weights_file import first_nonfinite
from cytovox.networks.weights import shipped_weights
from training.rundir import RunFolder


def _spoilt_safetensors(path: Path, into: Path) -> Path:
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        about = file.metadata()
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, into, metadata=about)
    return into


@pytest.mark.parametrize("key", ["init_from", "predict.checkpoint"])
@pytest.mark.parametrize("ending", ["ckpt", "safetensors"])
def test_weights_that_are_not_finite_are_refused(
    tmp_path: Path, tiny: Path, trained: Any, cells: Path, cli: Any, key: str, ending: str
) -> None:
    best = RunFolder(trained.run).best_checkpoint
    path = tmp_path / f"spoilt.{ending}"
    if ending == "ckpt":
        content = torch.load(best, weights_only=True)
        next(v for k, v in content["state_dict"].items() if k.startswith("network.")).view(-1)[-1] = float("inf")
        torch.save(content, path)
    else:
        _spoilt_safetensors(next(p for n, p in shipped_weights().items() if n.startswith("organelle")), path)
    words = ["stages=[fit]"] if key == "init_from" else ["stages=[predict]", f"predict.inputs=[{cells}/HeLa-00001.TCF]"]
    answer = cli(tiny, f"{key}={path}", *words, f"runs_dir={tmp_path / 'runs'}")
    assert (answer.code, len(answer.errors)) == (2, 1), answer.err
    assert "its weights are NaN or infinite (first: " in answer.errors[0]


def test_a_run_that_diverges_is_failed_in_one_line(tmp_path: Path, tiny: Path, command: Any) -> None:
    """By its own rate, in a process of its own, and it goes no further."""
    words = [f"runs_dir={tmp_path}", "optimizer.lr=1e30", "trainer.max_epochs=3"]
    answer = command(tiny, *words, "trainer.log_every_n_steps=2", cwd=tmp_path)
    assert answer.code == 1, answer.err
    assert len(answer.errors) == 1, answer.err
    assert answer.errors[0].startswith("training diverged: the loss of step ")
    (run,) = tmp_path.glob("tiny/*/")
    status = json.loads((run / "status.json").read_text())
    assert (status["status"], status["stages_done"]) == ("failed", [])
    for path in run.rglob("*.ckpt"):
        assert first_nonfinite(torch.load(path, weights_only=True)["state_dict"]) is None
    assert (run / "report.html").is_file()
