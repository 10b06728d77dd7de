"""16-mixed: every training step has a loss and gradients near those of float32."""

from __future__ import annotations

import pytest
import torch

from cytovox.diffusion.traits import measure_traits
from cytovox.losses.segmentation import LOSSES
from cytovox.losses.shapr import SHAPRLossConfig
from cytovox.preprocess.shape_fields import SignedDistanceConfig
from tests.training.precision_steps import CASES, check_16_mixed_is_near_float32

#: Full width on a CPU without matrix units for float16: 11 s for DISPR alone.
SLOW = ("DISPR",)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * n.startswith(SLOW)) for n in CASES])
def test_a_step_in_16_mixed_is_near_one_in_float32(name: str) -> None:
    check_16_mixed_is_near_float32(CASES[name], "cpu", large=False)


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_loss_over_a_whole_patch_of_float16_logits_does_not_overflow(name: str) -> None:
    """Sums over 64 x 128 x 128 voxels are above 65,504, the largest number of float16."""
    generator = torch.Generator().manual_seed(0)
    logits = (8 * torch.randn(1, 2, 64, 128, 128, generator=generator)).half().requires_grad_()
    target = (torch.rand(logits.shape, generator=generator) < 0.7).to(torch.uint8)
    labelled, loss = torch.ones(1, 2, dtype=torch.bool), LOSSES[name]().build()
    with torch.autocast("cpu", torch.float16):
        found_C = loss(logits, target, labelled)
    wanted_C = loss(logits.detach().float(), target, labelled)
    assert found_C.dtype == torch.float32
    torch.testing.assert_close(found_C.detach(), wanted_C, rtol=1e-5, atol=1e-6)
    (1024 * found_C.sum()).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad != 0).float().mean() > 0.5


def test_shaprs_loss_of_float16_logits_does_not_overflow() -> None:
    logits = torch.full((1, 1, 64, 64, 64), 9.0).half()
    truth = torch.ones(logits.shape)
    with torch.autocast("cpu", torch.float16):
        found = SHAPRLossConfig().build().shape(logits, truth)
    torch.testing.assert_close(found, SHAPRLossConfig().build().shape(logits.float(), truth), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_traits_and_shapes_are_computed_in_float32(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    field = torch.rand(2, 1, 32, 32, 32, generator=generator) * 2 - 1
    mask = torch.ones(2, 64, 64, dtype=torch.bool)
    shape = SignedDistanceConfig().build()
    with torch.autocast("cpu", dtype):
        traits, objects = measure_traits(field), shape.decode(field, mask)
    assert torch.equal(objects, shape.decode(field, mask))
    for name, value in measure_traits(field)._asdict().items():
        torch.testing.assert_close(getattr(traits, name), value, rtol=0, atol=0)
