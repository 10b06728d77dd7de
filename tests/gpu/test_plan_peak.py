"""Memory that is predicted for a training step, beside what the step takes on a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cytovox.losses.segmentation import LOSSES
from cytovox.networks.residual_unet import ResidualUNetConfig
from cytovox.networks.scnas import ScNASConfig
from experiments.planning.memory_peak import predicted_peak_bytes

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

PATCH = (64, 128, 128)
#: cuDNN's workspace is in what is measured, and not in what is predicted.
TOLERANCE = 0.25


def measured_peak_bytes(network: Any, batch: int, precision: str) -> int:
    """The second of two steps, gradients of the first one included."""
    loss, device = LOSSES["dice_bce"]().build(), "cuda"
    module = network.build(1, 4).to(device).train()
    optimizer = torch.optim.Adam(module.parameters())
    dtype = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(precision)
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        image = torch.rand(batch, 1, *PATCH, device=device)
        mask = torch.zeros(batch, 4, *PATCH, dtype=torch.uint8, device=device)
        labelled = torch.ones(batch, 4, dtype=torch.bool, device=device)
        with torch.autocast(device, dtype or torch.float16, enabled=dtype is not None, cache_enabled=False):
            total = loss(module(image), mask, labelled).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        del image, mask, labelled, total
    return torch.cuda.max_memory_allocated()


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
@pytest.mark.parametrize(
    "network",
    [ScNASConfig(), ScNASConfig(checkpointing=True), ResidualUNetConfig()],
    ids=["ScNAS", "ScNAS, checkpointing", "residual U-Net"],
)
def test_the_predicted_memory_of_a_step_is_what_it_takes(network: Any, precision: str) -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    taken = measured_peak_bytes(network, 2, precision) - before
    predicted = predicted_peak_bytes(network, LOSSES["dice_bce"]().build(), PATCH, 2, 4, precision)
    print(f"\npredicted {predicted / 1e9:.3f} GB, taken {taken / 1e9:.3f} GB, ratio {predicted / taken:.3f}")
    assert predicted == pytest.approx(taken, rel=TOLERANCE)
