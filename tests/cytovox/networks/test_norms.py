"""Our instance normalisation is torch's, in whatever layout."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import instance_norm

from cytovox.networks.norms import LEAST_VOXELS, InstanceNorm3d, channels_last_pays, keep_layout
from cytovox.networks.residual_unet import ResidualUNetConfig

LAST = torch.channels_last_3d


def pair(channels, affine=True):
    """torch's and ours with the same parameters, not those they begin with."""
    torch.manual_seed(0)
    theirs = nn.InstanceNorm3d(channels, affine=affine)
    if affine:
        nn.init.uniform_(theirs.weight, 0.5, 1.5)
        nn.init.normal_(theirs.bias)
    ours = InstanceNorm3d(channels, affine=affine)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def volume(*shape):
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(1)) + 1


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
@pytest.mark.parametrize("shape", [(1, 8, 8, 16, 16), (3, 8, 3, 4, 5), (2, 1, 12, 12, 12)])
def test_float32_is_the_same_forward_and_backward(shape, layout, affine):
    theirs, ours = pair(shape[1], affine)
    results = []
    for norm in (theirs, ours):
        x = volume(*shape).contiguous(memory_format=layout).requires_grad_()
        y = norm(x)
        (y * volume(*shape).flip(2)).sum().backward()
        results.append((y.detach(), x.grad, *(p.grad for p in norm.parameters())))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("shape", [(1, 16, 8, 16, 16), (3, 16, 8, 16, 16), (2, 16, 3, 4, 5)])
def test_bfloat16_in_channels_last_is_right_to_its_rounding_and_stays_so_laid_out(shape, learns):
    theirs, ours = pair(shape[1])
    x = volume(*shape).to(torch.bfloat16).contiguous(memory_format=LAST)
    with torch.set_grad_enabled(learns):
        y = ours(x)
    truth = instance_norm(x.double(), weight=theirs.weight.double(), bias=theirs.bias.double())
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=LAST)
    assert ((y.double() - truth).abs() <= 2**-8 * truth.abs() + 2e-3).all()


def test_bfloat16_gradients_in_channels_last_are_those_of_torch():
    results = []
    for norm in pair(16):
        x = volume(2, 16, 8, 16, 16).to(torch.bfloat16).contiguous(memory_format=LAST).requires_grad_()
        (norm(x).float() * volume(2, 16, 8, 16, 16).flip(3)).sum().backward()
        results.append((x.grad, norm.weight.grad, norm.bias.grad))
    torch.testing.assert_close(results[0], results[1])


def test_a_window_of_nothing_but_one_value_gives_the_shift_and_no_noise():
    norm = InstanceNorm3d(4, affine=True)
    x = torch.full((1, 4, 16, 16, 16), 7.3, dtype=torch.bfloat16).contiguous(memory_format=LAST)
    assert x[0, 0].numel() >= LEAST_VOXELS
    with torch.inference_mode():
        assert norm(x).float().abs().max() < 0.01


def test_parameters_go_back_and_forth_and_keep_their_names():
    config = ResidualUNetConfig(channels=[8, 16])
    ours = config.build(1, 2)
    assert any(type(module) is InstanceNorm3d for module in ours.modules())
    assert not any(type(module) is nn.InstanceNorm3d for module in ours.modules())
    plain = nn.Sequential(nn.Conv3d(1, 4, 1), nn.Sequential(nn.InstanceNorm3d(4, eps=1e-3, affine=True)))
    nn.init.normal_(plain[1][0].weight)
    kept = keep_layout(copy.deepcopy(plain))
    assert type(kept[1][0]) is InstanceNorm3d
    assert kept[1][0].eps == 1e-3
    assert list(kept.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(kept.state_dict(), plain.state_dict())
    plain.load_state_dict(kept.state_dict())


@pytest.mark.parametrize(
    ("precision", "device", "pays"),
    [
        ("bf16-mixed", "cpu", True),
        ("32-true", "cpu", False),
        ("bf16-mixed", "cuda", False),
        ("16-mixed", "cuda", False),
    ],
)
def test_channels_last_pays_in_16_bits_on_a_cpu(precision, device, pays):
    willing, unwilling = nn.Identity(), nn.Identity()
    unwilling.channels_last = False
    assert channels_last_pays([willing], precision, device) is pays
    assert not channels_last_pays([willing, unwilling], precision, device)
