"""A dry run of a shipped config ends soon, however many sampler steps and windows its test takes."""

from __future__ import annotations

import pytest
import torch

from networks.dispr_unet import DISPRUNet
from tests.experiments.folders import numbers


@pytest.mark.slow
def test_dispr_evaluates_its_network_a_few_times_only(cli, shape_folder, tmp_path, monkeypatch):
    calls = []
    forward = DISPRUNet.forward

    def counted(self, *args, **more):
        calls.append(self.training)
        return forward(self, *args, **more)

    monkeypatch.setattr(DISPRUNet, "forward", counted)
    words = [f"data.root={shape_folder}", "data.folds=2", "data.num_workers=0", f"runs_dir={tmp_path}"]
    with torch.random.fork_rng():
        answer = cli("shape_dispr", *words, "--dry-run")
    assert answer.code == 0, answer.err
    assert calls.count(True) == 1
    assert calls.count(False) <= 4
    assert numbers(answer.run)["test/cases"] >= 1
