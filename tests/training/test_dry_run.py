"""A dry run evaluates a network once for each size of input."""

from __future__ import annotations

import torch
from torch import nn

from training.dry_run import limit_evaluations


def test_inference_evaluates_once_per_size_and_training_is_unchanged():
    calls = []

    class Net(nn.Conv3d):
        def forward(self, x):
            calls.append(tuple(x.shape))
            return super().forward(x)

    network = Net(1, 3, 1)
    limit_evaluations(network)
    network.eval()
    for batch, side in ((1, 4), (2, 4), (1, 6), (3, 4), (1, 6)):
        answer = network(torch.ones(batch, 1, side, side, side))
        assert answer.shape == (batch, 3, side, side, side)
    assert calls == [(1, 1, 4, 4, 4), (1, 1, 6, 6, 6)]
    network.train()
    network(torch.ones(1, 1, 4, 4, 4)).sum().backward()
    network(torch.ones(1, 1, 4, 4, 4)).sum().backward()
    assert len(calls) == 4
    assert network.weight.grad is not None
