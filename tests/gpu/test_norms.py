"""Instance normalisation by the GPU's own kernels is torch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from networks.norms import InstanceNorm3d
from tests.gpu.conftest import DEVICE

LAST = torch.channels_last_3d
TOLERANCE = {torch.float32: 2e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}

pytestmark = pytest.mark.skipif(DEVICE == "cpu", reason="the kernels exist on CUDA only")


def outcome(norm: nn.Module, x: torch.Tensor, grad: torch.Tensor) -> list[torch.Tensor]:
    x = x.detach().requires_grad_()
    y = norm(x)
    y.backward(grad.to(y.dtype))
    return [y.detach(), x.grad, *(p.grad for p in norm.parameters())]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
@pytest.mark.parametrize("shape", [(1, 36, 32, 64, 64), (2, 16, 16, 32, 32), (3, 2, 3, 5, 7), (2, 8, 1, 9, 9)])
def test_forward_and_backward_are_torchs(device, shape, layout, affine, dtype):
    torch.manual_seed(0)
    theirs, ours = (kind(shape[1], affine=affine).double() for kind in (nn.InstanceNorm3d, InstanceNorm3d))
    if affine:
        nn.init.uniform_(theirs.weight, 0.5, 1.5)
        nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    x, grad = (3 * torch.randn(shape) + 2).to(dtype), torch.randn(shape).to(dtype)
    expected = outcome(theirs, x.double(), grad.double())
    own = x.to(device).contiguous(memory_format=layout)
    found = outcome(ours.float().to(device), own, grad.to(device))
    assert found[0].dtype == dtype
    assert found[0].stride() == own.stride()
    size = x[0].numel() // shape[1] * shape[0]
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        bound = TOLERANCE[dtype] * (size**0.5 if k > 1 else 1)  # gradients of scale and shift are sums over voxels
        torch.testing.assert_close(a.double().cpu(), b, rtol=TOLERANCE[dtype], atol=bound)


def test_a_far_mean_keeps_its_digits(device):
    x = (1000 + torch.randn(1, 4, 32, 64, 64)).to(device)
    expected = nn.InstanceNorm3d(4).double()(x.double())
    torch.testing.assert_close(InstanceNorm3d(4)(x).double(), expected, rtol=1e-3, atol=1e-3)
