"""SHAPR's losses at values known by hand."""

import math

import pytest
import torch

from cytovox.errors import InputError
from cytovox.losses.shapr import SHAPRLossConfig

loss = SHAPRLossConfig().build()


def half_object(n=10):
    obj = torch.zeros(2, 1, n, n, n)
    obj[:, :, : n // 2] = 1
    return obj


def test_the_right_shape_loses_nothing():
    obj = half_object()
    assert loss.shape(obj * 80 - 40, obj).item() == pytest.approx(0, abs=1e-6)


def test_one_half_everywhere_loses_what_the_formulas_say():
    obj, n = half_object(), 1000
    # Dice: 1 - (2 x 250 + 1) / (500 + 250 + 1); cross-entropy: log 2
    dice = 1 - (2 * n / 4 + 1) / (n / 2 + n / 4 + 1)
    assert loss.shape(torch.zeros_like(obj), obj).item() == pytest.approx(dice + math.log(2), rel=1e-5)


def test_the_shape_weighs_ten_times_the_verdict():
    obj = half_object()
    logits, verdict = torch.zeros_like(obj), torch.full((2, 1), -1.0)
    value, parts = loss.generator(logits, obj, verdict)
    fooled = math.log(1 + math.exp(1))
    assert parts["adversarial"].item() == pytest.approx(fooled, rel=1e-5)
    assert value.item() == pytest.approx(10 * loss.shape(logits, obj).item() + fooled, rel=1e-5)


def test_the_generator_wants_to_be_taken_for_true_and_the_discriminator_to_tell():
    verdict = torch.zeros(2, 1, requires_grad=True)
    loss.generator(torch.zeros(2, 1, 2, 2, 2), torch.zeros(2, 1, 2, 2, 2), verdict)[0].backward()
    assert verdict.grad.lt(0).all()
    true, predicted = (torch.zeros(2, 1, requires_grad=True) for _ in range(2))
    value = loss.discriminator(true, predicted)
    value.backward()
    assert value.item() == pytest.approx(math.log(2))
    assert true.grad.lt(0).all()
    assert predicted.grad.gt(0).all()


def test_half_precision_is_scored_in_full():
    obj = half_object()
    assert loss.shape(torch.zeros_like(obj).bfloat16(), obj).dtype == torch.float32


@pytest.mark.parametrize("options", [{"shape_weight": 0.0}, {"adversarial_weight": -1.0}])
def test_a_weight_out_of_range_is_refused(options):
    with pytest.raises(InputError, match=f"{next(iter(options))}: .*expected more than 0"):
        SHAPRLossConfig(**options).build()
