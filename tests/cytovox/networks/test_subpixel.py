"""One convolution on the coarse grid is the upsampling and the convolution that it stands for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cytovox.networks.residual_unet import ResidualUNet, ResidualUNetConfig
from cytovox.networks.subpixel import fits, upsample_and_convolve

#: Strides of which one is 2 and none more.
STRIDES = [(z, y, x) for z in (1, 2) for y in (1, 2) for x in (1, 2) if (z, y, x) != (1, 1, 1)]


def plain(coarse, image, up, conv):
    """The definition."""
    return conv(torch.cat([up(coarse), image], dim=1))


def modules(strides, channels, wide, images, out, bias=True):
    torch.manual_seed(0)
    up = nn.ConvTranspose3d(channels, wide, strides, strides, bias=bias).double()
    conv = nn.Conv3d(wide + images, out, 3, padding=1, bias=bias).double()
    return up, conv


@given(
    strides=st.sampled_from(STRIDES),
    grid=st.tuples(*[st.integers(1, 4)] * 3),
    widths=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(1, 3)),
    bias=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_values_and_gradients_are_those_of_the_two_modules(strides, grid, widths, bias):
    up, conv = modules(strides, *widths, bias)
    assert fits(up, conv)
    generator = torch.Generator().manual_seed(2)
    fine = [n * s for n, s in zip(grid, strides, strict=True)]
    coarse = torch.randn(2, widths[0], *grid, generator=generator, dtype=torch.double).requires_grad_()
    image = torch.randn(2, widths[2], *fine, generator=generator, dtype=torch.double).requires_grad_()
    wanted = [coarse, image, *up.parameters(), *conv.parameters()]
    results = []
    for way in (plain, upsample_and_convolve):
        y = way(coarse, image, up, conv)
        weight = torch.linspace(-1, 1, y.numel(), dtype=torch.double).view(y.shape)
        results.append((y, *torch.autograd.grad((y * weight).sum(), wanted)))
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-10)


def test_the_whole_network_is_the_textbook_one():
    config = ResidualUNetConfig(channels=[8, 16], strides_z=[1, 2])
    network = config.build(2, 3).double()
    seen = {}
    network.decoder[-1].register_forward_hook(lambda _m, _i, output: seen.update(features=output))
    x = torch.randn(1, 2, *(2 * n for n in config.minimum), dtype=torch.double)
    logits = network(x)
    torch.testing.assert_close(logits, plain(seen["features"], x, network.top, network.head))


@pytest.mark.parametrize(
    "changed",
    [
        {"strides": [1, 1], "strides_z": [1, 1]},
        {"strides": [4, 2], "strides_z": [2, 2]},
    ],
)
def test_strides_for_which_it_would_cost_more_take_the_plain_way(changed):
    config = ResidualUNetConfig(channels=[8, 16], **changed)
    network = config.build(1, 2)
    assert isinstance(network, ResidualUNet)
    assert not fits(network.top.deconv, network.head)
    assert network(torch.zeros(1, 1, *config.minimum)).shape == (1, 2, *config.minimum)


def test_it_costs_no_more_operations_than_what_it_replaces():

    counts = []
    for way in (plain, upsample_and_convolve):
        with torch.device("meta"):
            up, conv = nn.ConvTranspose3d(16, 8, 2, 2), nn.Conv3d(9, 4, 3, padding=1)
            coarse, image = torch.zeros(1, 16, 32, 64, 64), torch.zeros(1, 1, 64, 128, 128)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            way(coarse, image, up, conv)
        counts.append(counter.get_total_flops())
    assert counts[1] < 0.9 * counts[0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_under_autocast_the_weights_are_composed_in_float32(layout):
    up, conv = (module.float() for module in modules((2, 2, 2), 16, 8, 1, 4))
    coarse = torch.randn(1, 16, 4, 6, 8).contiguous(memory_format=layout)
    image = torch.randn(1, 1, 8, 12, 16)
    exact = plain(coarse, image, up, conv)
    with torch.autocast("cpu", torch.bfloat16):
        usual, ours = (way(coarse.bfloat16(), image, up, conv) for way in (plain, upsample_and_convolve))
    assert ours.dtype == torch.bfloat16
    assert (ours - exact).abs().mean() <= 1.2 * (usual - exact).abs().mean()


def test_the_tensors_of_monai_are_taken_too():
    network = ResidualUNetConfig(channels=[8, 16]).build(1, 2)
    x = torch.rand(1, 1, *ResidualUNetConfig(channels=[8, 16]).minimum)
    logits = network(MetaTensor(x))
    logits.sum().backward()
    torch.testing.assert_close(torch.as_tensor(logits), network(x), check_device=False)
