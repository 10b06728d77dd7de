"""The default network keeps the size of its input, sees far enough and refuses what it cannot take."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.errors import InputError
from cytovox.networks.residual_unet import ACTIVATIONS, NORMS, ResidualUNetConfig


def volume(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_the_default_is_of_moderate_size_and_takes_the_paper_patch():
    config = ResidualUNetConfig()
    assert config.errors((64, 128, 128)) == []
    with torch.device("meta"):
        network = config.build(1, 4)
        assert network(torch.zeros(1, 1, 64, 128, 128)).shape == (1, 4, 64, 128, 128)
    assert 2e6 < sum(p.numel() for p in network.parameters()) < 7e6
    assert all(width % 16 == 0 for width in config.channels)


@given(
    st.lists(st.tuples(st.sampled_from([4, 8]), st.integers(1, 2), st.integers(1, 2)), min_size=1, max_size=3),
    st.integers(1, 2),
    st.integers(1, 2),
)
@settings(deadline=None, max_examples=15)
def test_any_levels_and_strides_give_logits_of_the_size_of_the_input(levels, units, images):
    widths, lateral, axial = (list(column) for column in zip(*levels, strict=True))
    config = ResidualUNetConfig(channels=widths, strides=lateral, strides_z=axial, units=units)
    assert config.errors(config.minimum) == []
    shape = tuple(least + step for least, step in zip(config.minimum, config.divisor, strict=True))
    network = config.build(images, 3)
    logits = network(volume(1, images, *shape))
    assert logits.shape == (1, 3, *shape)
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_the_stack_is_divided_less_than_the_plane_unless_configured():
    assert ResidualUNetConfig().divisor == (8, 16, 16)
    assert ResidualUNetConfig(strides_z=[1, 2, 2, 2]).divisor == (8, 16, 16)
    assert ResidualUNetConfig(channels=[16, 32], strides=[1, 2], strides_z=[1, 1]).divisor == (1, 2, 2)


def test_a_patch_that_does_not_fit_is_answered_with_the_nearest_that_does():
    assert ResidualUNetConfig().errors((12, 128, 200)) == [
        "patch: 12 voxels along z: expected a multiple of 8, at least 24; use 24",
        "patch: 200 voxels along x: expected a multiple of 16, at least 32; use 192 or 208",
    ]


def test_a_volume_of_a_size_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="residual_unet: 9 voxels along x"):
        ResidualUNetConfig(channels=[4]).build(1, 1)(torch.zeros(1, 1, 4, 4, 9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": []}, "channels: "),
        ({"channels": [16, 0]}, "channels: "),
        ({"strides": [2, 2]}, "strides: .*expected 4 numbers"),
        ({"strides_z": [2, 2, 2, 0]}, "strides_z: "),
        ({"units": 0}, "units: 0: expected 1 or more"),
        ({"decoder_units": 0}, "decoder_units: 0"),
        ({"head_channels": 0}, "head_channels: 0"),
        ({"norm": "layer"}, "norm: 'layer': expected one of instance, batch, group"),
        ({"norm": "group", "channels": [12, 24]}, "multiples of 8"),
        ({"activation": "tanh"}, "activation: 'tanh': expected one of leakyrelu"),
        ({"dropout": 1.0}, "dropout: 1.0"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        ResidualUNetConfig(**options).build(1, 4)
    assert ResidualUNetConfig(**options).errors((64, 128, 128))


def test_two_faults_are_reported_at_once():
    assert len(ResidualUNetConfig(units=0, norm="x", strides=[1]).errors()) == 3


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_norm_and_activation_learns(norm, activation):
    network = ResidualUNetConfig(channels=[8, 16], norm=norm, activation=activation, dropout=0.1).build(1, 2)
    network(volume(2, 1, 8, 8, 8)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_the_middle_sees_far_beyond_the_finest_convolutions():
    network = ResidualUNetConfig(channels=[4, 8, 8]).build(1, 1).double()
    for module in network.modules():
        if isinstance(module, torch.nn.InstanceNorm3d):
            module.forward = lambda x: x
    x = volume(1, 1, 24, 48, 48).double().requires_grad_()
    network(x)[0, 0, 12, 24, 24].backward()
    assert x.grad[0, 0, 12, 24, 14:36].ne(0).all()


def test_the_deepest_grid_is_never_two_slices_where_bfloat16_gradients_are_wrong():
    for strides_z in ([], [2, 2, 2, 2], [1, 1, 1, 1]):
        config = ResidualUNetConfig(strides_z=strides_z)
        assert config.minimum[0] == 3 * config.divisor[0]


def test_bfloat16_gradients_at_the_least_size_agree_with_float32():
    config = ResidualUNetConfig(channels=[16, 16], units=1)
    network = config.build(1, 2)
    x, weight = volume(2, 1, *config.minimum), volume(2, 2, *config.minimum, seed=1) - 0.5

    def gradient(dtype):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            logits = network(x)
        (logits.float() * weight).sum().backward()
        return torch.cat([p.grad.flatten() for p in network.parameters()])

    full = gradient(torch.float32)
    for _ in range(3):
        waste = torch.full((1 << 18,), float("nan"))  # what a kernel that reads memory it never wrote would find
        del waste
        assert torch.nn.functional.cosine_similarity(gradient(torch.bfloat16), full, dim=0) > 0.97


def test_bfloat16_and_channels_last_give_nearly_the_same_logits():
    network = ResidualUNetConfig(channels=[16, 32]).build(1, 2).eval()
    x = volume(1, 1, 12, 16, 16)
    with torch.no_grad():
        full = network(x)
        network.to(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x.contiguous(memory_format=torch.channels_last_3d))
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).abs().mean() < 0.05 * full.abs().mean()


def test_a_deep_copy_is_equal_and_apart():
    network = ResidualUNetConfig(channels=[4]).build(1, 1).eval()
    twin = copy.deepcopy(network)
    x = volume(1, 1, 4, 4, 8)
    torch.testing.assert_close(twin(x), network(x))
    with torch.no_grad():
        twin.head.bias.add_(1)
    assert not torch.equal(twin(x), network(x))


def test_names_in_a_checkpoint_stay_as_they_are():
    keys = list(ResidualUNetConfig().build(1, 4).state_dict())
    for key in (
        "encoder.0.conv.unit0.conv.weight",
        "encoder.3.conv.unit1.adn.N.weight",
        "encoder.0.residual.weight",
        "ups.0.deconv.weight",
        "decoder.2.conv.unit0.conv.weight",
        "top.deconv.weight",
        "head.weight",
    ):
        assert key in keys
    assert len(keys) == 50


def test_a_few_steps_learn_to_tell_bright_from_dark():
    torch.manual_seed(0)
    network = ResidualUNetConfig(channels=[8, 16]).build(1, 1)
    x = volume(2, 1, 8, 16, 16)
    y = (torch.nn.functional.avg_pool3d(x, 3, 1, 1) > 0.5).float()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(40):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.45
