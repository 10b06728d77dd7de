"""Learning rates with known values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_modules.optim import (
    OPTIMIZERS,
    SGD,
    Adam,
    AdamW,
    configure,
    learning_rate_scale,
    optimizer_errors,
    scaled_rate,
)


def test_the_warm_up_is_linear_and_ends_at_the_full_rate() -> None:
    scale = learning_rate_scale(Adam(schedule="constant", warmup_steps=4), 100)
    assert [scale(n) for n in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_the_cosine_has_its_known_first_middle_and_last_values() -> None:
    scale = learning_rate_scale(Adam(schedule="cosine", warmup_steps=10, lr_min_ratio=0.1), 110)
    assert [scale(10), scale(60), scale(110), scale(500)] == pytest.approx([1, 0.55, 0.1, 0.1])


def test_the_polynomial_is_a_power_of_the_remaining_fraction() -> None:
    scale = learning_rate_scale(SGD(schedule="poly", power=2.0, lr_min_ratio=0.0), 10)
    assert [scale(0), scale(5), scale(9), scale(10)] == pytest.approx([1, 0.25, 0.01, 0])


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
def test_the_rate_is_constant_without_a_last_step(schedule: str) -> None:
    scale = learning_rate_scale(Adam(schedule=schedule), math.inf)  # type: ignore[arg-type]
    assert scale(10**6) == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_minimises_a_parabola(name: str) -> None:
    x = nn.Parameter(torch.tensor([3.0]))
    optimizer = OPTIMIZERS[name](lr=0.05).build([x])
    for _ in range(50):
        optimizer.zero_grad()
        (x**2).sum().backward()
        optimizer.step()
    assert abs(x.item()) < 2


def test_the_rate_follows_the_schedule_step_by_step() -> None:
    x = nn.Parameter(torch.zeros(1))
    made = configure(AdamW(lr=0.1, schedule="cosine", lr_min_ratio=0.0), [x], 4, "val")
    rates = []
    for _ in range(5):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([0.1 * 0.5 * (1 + math.cos(math.pi * n / 4)) for n in range(5)])
    assert made["lr_scheduler"]["interval"] == "step"


def test_the_plateau_is_divided_by_five_as_in_the_paper() -> None:
    x = nn.Parameter(torch.zeros(1))
    made = configure(Adam(), [x], 100, "val/dice_mean")
    schedule = made["lr_scheduler"]
    assert schedule["monitor"] == "val/dice_mean"
    for _ in range(32):
        schedule["scheduler"].step(0.5)
    assert made["optimizer"].param_groups[0]["lr"] == pytest.approx(1e-3 / 5)


def test_errors_are_reported_together_with_their_keys() -> None:
    assert all(not optimizer_errors(kind()) for kind in OPTIMIZERS.values())
    bad = SGD(lr=math.nan, momentum=1.0, weight_decay=-1.0, power=-1.0, patience=-1, factor=1.0, lr_min_ratio=2.0)
    keys = {error.split(":")[0] for error in optimizer_errors(bad)}
    assert keys == {"lr", "momentum", "weight_decay", "power", "patience", "factor", "lr_min_ratio"}
    keys = {error.split(":")[0] for error in optimizer_errors(Adam(warmup_steps=3, betas=[0.9]))}
    assert keys == {"warmup_steps", "betas"}


def test_the_rate_is_scaled_with_the_samples_per_step() -> None:
    assert scaled_rate(Adam(lr=1e-3), 64, 2) == 1e-3
    assert scaled_rate(Adam(lr=1e-3, lr_scale="sqrt"), 32, 2) == pytest.approx(4e-3)
    assert scaled_rate(SGD(lr=1e-2, lr_scale="linear"), 32, 2) == pytest.approx(16e-2)
    assert scaled_rate(Adam(lr=1e-3, lr_scale="linear", reference_batch=64), 32, 2) == pytest.approx(5e-4)
    assert scaled_rate(Adam(lr=1e-3, lr_scale="sqrt"), 2, 2) == 1e-3


def test_a_reference_batch_without_scaling_is_refused() -> None:
    assert optimizer_errors(Adam(lr_scale="sqrt", reference_batch=8)) == []
    assert optimizer_errors(Adam(reference_batch=8))[0].startswith("reference_batch: only with lr_scale")
    assert optimizer_errors(Adam(lr_scale="sqrt", reference_batch=0))[0].startswith("reference_batch: expected 1")
