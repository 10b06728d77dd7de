"""The learning rate that is printed and recorded is the one that the training has."""

from __future__ import annotations

import torch

from tests.experiments.folders import numbers


def test_a_resumed_run_names_the_rate_of_its_checkpoint(tmp_path, cli, tiny):
    words = ["stages=[fit]", "optimizer.lr_scale=linear", f"runs_dir={tmp_path}"]
    run = cli(tiny, *words, "trainer.max_epochs=1").run
    assert numbers(run)["fit/lr"] == 0.01
    more = ["trainer.accumulate_grad_batches=2", "trainer.max_epochs=2", "stages=[fit]"]
    answer = cli(f"resume={run}", *more)
    assert answer.errors == ["note: the learning rate of the checkpoint is kept: 0.01, not 0.02"]
    assert "learning rate 0.01" in answer.out
    assert numbers(run)["fit/lr"] == 0.01
    state = torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] == 0.01
