"""Computed memory of a training step: known results, and the effect of options."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cytovox.errors import InputError
from cytovox.losses.segmentation import LOSSES
from cytovox.networks.residual_unet import ResidualUNetConfig
from cytovox.networks.scnas import ScNASConfig
from experiments.planning.card import CARDS, find_card
from experiments.planning.memory_peak import (
    BLOCK_BYTES,
    CudaAutocast,
    LiveBytes,
    predicted_peak_bytes,
    step_flop,
    step_memory,
)

N = 2**20


class Sines(nn.Module):
    """A learned number, and a chain of functions that each keep their input for the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x_N: torch.Tensor) -> torch.Tensor:
        """Three sines."""
        return (self.weight * x_N).sin().sin().sin()


def test_memory_of_a_chain_of_functions_matches_a_count_by_hand() -> None:
    found = step_memory(Sines, lambda module: module(torch.zeros(N)).sum(), "32-true")
    # the input, what three sines read, and in the backward pass a cosine and its product with a gradient
    assert found.peak == pytest.approx(6 * 4 * N, rel=1e-3)
    assert found.parameters == 1
    assert found.weights == 3 * BLOCK_BYTES  # the number and two moments, each a block


def test_weights_gradients_moments_and_averages_are_counted() -> None:
    def step(module: nn.Module) -> torch.Tensor:
        return module(torch.zeros(1, 1000)).sum()

    one = 4 * 1000 * 1000
    plain = step_memory(lambda: nn.Linear(1000, 1000, bias=False), step, "32-true")
    assert plain.weights == pytest.approx(3 * one, rel=1e-3)
    assert plain.peak == pytest.approx(5 * one, rel=0.01)  # gradients, and one copy of the optimiser
    flop = step_flop(lambda: nn.Linear(1000, 1000, bias=False), step, "32-true")
    assert flop == 2 * 2 * 1000 * 1000  # forward, and the gradient of the weights
    more = step_memory(lambda: nn.Linear(1000, 1000, bias=False), step, "32-true", moments=1, averaged=True, ranks=2)
    assert more.weights == pytest.approx(4 * one, rel=1e-3)


def test_freed_memory_is_not_counted() -> None:
    with LiveBytes() as live:
        kept = torch.zeros(N)
        for _ in range(3):
            temporary = kept + 1
            view = temporary[1:]
            del temporary, view
    assert live.now == 4 * N
    assert live.peak == 8 * N


def test_16_bits_are_used_where_autocast_on_cuda_uses_them() -> None:
    x = torch.zeros(1, 2, 4, 4, 4)
    conv, instance, group = nn.Conv3d(2, 2, 1), nn.InstanceNorm3d(2), nn.GroupNorm(1, 2)
    with CudaAutocast(torch.float16), torch.autocast("cpu", torch.float16):
        made = conv(x)
        assert made.dtype == instance(made).dtype == nn.functional.leaky_relu(made).dtype == torch.float16
        assert group(made).dtype == made.sum().dtype == made.softmax(1).dtype == torch.float32
        assert (x @ x).dtype == torch.float16
        with torch.autocast("cpu", enabled=False):
            assert conv(x).dtype == (x @ x).dtype == torch.float32
    with CudaAutocast(torch.float16):
        assert conv(x).dtype == torch.float32


def _peak(batch: int = 1, precision: str = "32-true", **options: object) -> int:
    network = ScNASConfig(width=4, layers=2, **options)  # type: ignore[arg-type]
    return predicted_peak_bytes(network, LOSSES["dice_bce"]().build(), (16, 32, 32), batch, 4, precision)


def test_memory_scales_with_batch_precision_and_checkpointing() -> None:
    one, two = _peak(1), _peak(2)
    # weights, moments, gradients and the optimiser's copy
    weights = 5 * 4 * sum(p.numel() for p in ScNASConfig(width=4, layers=2).build(1, 4).parameters())
    assert two - one == pytest.approx(one - weights, rel=0.1)
    assert 0.45 < _peak(precision="16-mixed") / one < 0.65
    assert 0.4 < _peak(checkpointing=True) / one < 0.7


def test_checkpointing_changes_no_result() -> None:
    """Loss and gradients agree up to rounding, in float32 and in 16 bits."""
    torch.manual_seed(0)
    plain, checkpointed = (ScNASConfig(width=2, layers=2, checkpointing=c).build(1, 2) for c in (False, True))
    checkpointed.load_state_dict(plain.state_dict())
    x = torch.rand(1, 1, 8, 8, 8)
    for mixed in (False, True):
        gradients = []
        for network in (plain, checkpointed):
            network.zero_grad()
            with torch.autocast("cpu", torch.float16, enabled=mixed):
                loss = network(x).float().square().mean()
            loss.backward()
            gradients.append([loss.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)])
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-2 if mixed else 1e-5, atol=1e-4 if mixed else 1e-6)


def test_memory_of_the_default_network() -> None:
    loss = LOSSES["dice_bce"]().build()
    assert 0.2e9 < predicted_peak_bytes(ResidualUNetConfig(), loss, (64, 128, 128), 1, 4, "bf16-mixed") < 0.8e9


def test_a_step_that_depends_on_values_raises_an_error() -> None:
    with pytest.raises(ValueError, match="cannot be counted without numbers"):
        step_memory(Sines, lambda module: module(torch.zeros(4)).sum() * float(module(torch.zeros(4)).max()), "32-true")


def test_cards_have_a_precision_and_a_name() -> None:
    assert find_card("v100-32gb") is CARDS["V100-32GB"]
    assert [CARDS[name].precision("auto") for name in ("V100-32GB", "A100-80GB")] == ["16-mixed", "bf16-mixed"]
    assert CARDS["V100-32GB"].precision("32") == "32-true"
    assert CARDS["V100-32GB"].peak_tflops("32-true") < CARDS["V100-32GB"].peak_tflops("16-mixed")
    with pytest.raises(InputError, match="V100-16GB does not compute bfloat16; set it to 16-mixed"):
        CARDS["V100-16GB"].precision("bf16-mixed")
    with pytest.raises(InputError, match=r"plan.device: unknown card 'V100-33GB'; did you mean V100-32GB\?"):
        find_card("V100-33GB")
    for name, card in CARDS.items():
        assert name.endswith(f"-{card.memory_gib}GB")
