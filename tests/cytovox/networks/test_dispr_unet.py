"""The published network: its size and cost, what it is shown, and that it starts by saying nothing."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cytovox.errors import InputError
from cytovox.networks.dispr_unet import Attention, DISPRUNetConfig

TINY = {"multipliers": [1, 2], "attention_levels": [1]}


def inputs(batch=2, depth=3, side=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    volume = torch.randn(batch, 1, depth, side, side, generator=generator)
    return volume, torch.linspace(1, 1000, batch), torch.rand(batch, 2, side, side, generator=generator)


def awake(config, outputs=2):
    """A network whose last layers, zero at the start, say something."""
    torch.manual_seed(0)
    network = config.build(outputs=outputs).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    return network


def test_the_defaults_have_the_published_size_and_cost():
    with torch.device("meta"):
        network = DISPRUNetConfig().build()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            out = network(torch.zeros(1, 1, 64, 64, 64), torch.ones(1), torch.zeros(1, 2, 64, 64))
    assert out.shape == (1, 2, 64, 64, 64)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(9.77e6, rel=0.001)
    assert counter.get_total_flops() == pytest.approx(789e9, rel=0.002)


def test_the_depth_is_never_downsampled_and_may_be_any():
    network = awake(DISPRUNetConfig(**TINY), outputs=1)
    for depth in (1, 5):
        volume, t, condition = inputs(depth=depth)
        assert network(volume, t, condition).shape == (2, 1, depth, 8, 8)


def test_it_starts_by_saying_nothing_and_every_weight_learns_once_awake():
    volume, t, condition = inputs()
    assert not DISPRUNetConfig(**TINY).build()(volume, t, condition).any()
    network = awake(DISPRUNetConfig(**TINY)).train()
    network(volume, t, condition).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_volume_time_and_condition_all_matter_and_samples_do_not_mix():
    network = awake(DISPRUNetConfig(**TINY))
    volume, t, condition = inputs()
    with torch.no_grad():
        out = network(volume, t, condition)
        for changed in (
            (volume + 0.5 * volume.sign(), t, condition),
            (volume, t / 2, condition),
            (volume, t, condition.flip(1)),
        ):
            assert (network(*changed) - out).abs().max() > 1e-4
        alone = network(volume[1:], t[1:], condition[1:])
    torch.testing.assert_close(out[1:], alone, atol=1e-5, rtol=1e-4)


def test_attention_is_the_softmax_of_the_paper_over_all_voxels():
    torch.manual_seed(0)
    attention = Attention(32)
    with torch.no_grad():
        attention.out.weight.copy_(torch.eye(32))
    x = inputs(1, 2, 4)[0].repeat(1, 32, 1, 1, 1) + torch.randn(1, 32, 2, 4, 4)
    tokens = torch.nn.functional.group_norm(x, 32)[0].flatten(1).T
    query, key, value = (tokens @ attention.query_key_value.weight.T + attention.query_key_value.bias).split(32, 1)
    mixed = (query @ key.T / 32**0.5).softmax(1) @ value
    torch.testing.assert_close((attention(x) - x)[0].flatten(1), mixed.T, atol=1e-5, rtol=1e-4)


def test_a_plane_that_cannot_be_halved_is_refused():
    with pytest.raises(InputError, match="dispr_unet: 12 voxels along y"), torch.device("meta"):
        DISPRUNetConfig().build()(torch.zeros(1, 1, 4, 12, 16), torch.ones(1), torch.zeros(1, 2, 12, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_channels": 48}, "base_channels: 48: expected a multiple of 32"),
        ({"multipliers": []}, "multipliers: "),
        ({"multipliers": [1, 0]}, "multipliers: "),
        ({"attention_levels": [4]}, r"attention_levels: \[4\]: expected 0 to 3"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        DISPRUNetConfig(**options).build()
