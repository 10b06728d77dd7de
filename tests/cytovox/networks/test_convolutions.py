"""Gradients of 16-bit convolutions on a CPU are those of float32, also for a few slices."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cytovox.networks.convolutions import Conv3d, use_safe_convolutions
from cytovox.networks.residual_unet import ResidualUNetConfig
from cytovox.networks.shapr import SHAPRConfig


def garbage() -> list[torch.Tensor]:
    """Leave NaN in the memory that the next tensors are made of."""
    return [torch.full((size,), torch.nan) for size in (10**3, 10**4, 10**5, 10**6)]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_nothing_is_read_from_unwritten_memory(depth):
    for _ in range(40):  # torch's own fails in some 15 of 60 at depth 2
        convolution = use_safe_convolutions(nn.Sequential(nn.Conv3d(16, 24, 3, padding=1)))
        x = torch.rand(4, 16, depth, 8, 8).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
        garbage()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = convolution(x)
        garbage()
        y.float().square().mean().backward()
        assert all(torch.isfinite(t).all() for t in (y, x.grad, convolution[0].weight.grad))


def test_parameters_keep_their_names_and_values_and_no_random_number_is_drawn():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.Sequential(nn.Conv3d(3, 1, 1, bias=False)))
    before, state = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    x = torch.rand(1, 2, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    expected = network(x)
    assert use_safe_convolutions(network) is network
    assert torch.equal(torch.get_rng_state(), state)
    assert {k: v.tolist() for k, v in network.state_dict().items()} == {k: v.tolist() for k, v in before.items()}
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize(("depth", "dtype"), [(1, torch.float32), (2, torch.float32), (3, torch.bfloat16)])
def test_only_few_slices_are_computed_in_float32(depth, dtype):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Conv3d(1, 1, 3, padding=1)(torch.rand(1, 1, depth, 8, 8)).dtype == dtype


def test_the_networks_that_may_become_as_thin_use_them():
    for network in (SHAPRConfig().build(), ResidualUNetConfig(channels=[8, 16]).build(1, 4)):
        convolutions = [m for m in network.modules() if isinstance(m, nn.Conv3d)]
        assert convolutions
        assert all(isinstance(m, Conv3d) for m in convolutions)
