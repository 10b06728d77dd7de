"""Processes have the published values and fulfil their interface."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cytovox.diffusion.processes import PROCESSES, DirectConfig, LinearBetasConfig, RectifiedFlowConfig
from cytovox.errors import InputError

chain, flow, direct = LinearBetasConfig().build(), RectifiedFlowConfig().build(), DirectConfig().build()


def times(process, n=21):
    return torch.linspace(0, 1, n, dtype=torch.float64) * process.end


def test_the_chain_ends_where_ddpm_says():
    # log of the product, by hand: 1000 betas from 1e-4 to 0.02
    log_product = sum(math.log1p(-(1e-4 + i * (0.02 - 1e-4) / 999)) for i in range(1000))
    end = torch.tensor(1000.0, dtype=torch.float64)
    assert chain.alpha(end).item() == pytest.approx(math.exp(log_product / 2), rel=1e-9)
    assert chain.alpha(end).item() == pytest.approx(0.00635, abs=1e-5)
    assert chain.sigma(torch.tensor(1.0)).item() == pytest.approx(0.01, rel=1e-5)


@pytest.mark.parametrize("process", [chain, flow], ids=["linear_betas", "rectified_flow"])
def test_clean_data_at_zero_and_ever_more_noise(process):
    t = times(process)
    assert process.alpha(t)[0] == 1
    assert process.sigma(t)[0] == 0
    assert process.alpha(t).diff().lt(0).all()
    assert process.sigma(t).diff().gt(0).all()


@pytest.mark.parametrize("process", [chain, flow], ids=["linear_betas", "rectified_flow"])
def test_the_velocity_is_the_rate_by_the_clock(process):
    t = times(process, 1001)[200:]
    weights = process.velocity((t[1:] + t[:-1]).div(2).round() if process is chain else (t[1:] + t[:-1]) / 2)
    clock = process.clock(t).diff()
    for part, weight in zip((process.alpha(t), process.sigma(t)), weights, strict=True):
        torch.testing.assert_close(part.diff() / clock, weight, atol=2e-3, rtol=0)


@pytest.mark.parametrize("process", [chain, flow], ids=["linear_betas", "rectified_flow"])
def test_alpha_b_minus_sigma_a_is_one(process):
    t = times(process)
    a, b = process.velocity(t)
    torch.testing.assert_close(process.alpha(t) * b - process.sigma(t) * a, torch.ones_like(t))


def test_the_chain_keeps_unit_variance():
    t = times(chain)
    torch.testing.assert_close(chain.alpha(t) ** 2 + chain.sigma(t) ** 2, torch.ones_like(t))


@given(st.integers(2, 1000), st.data())
def test_a_posterior_and_the_step_forth_make_the_noisier_marginal(t, data):
    s = data.draw(st.integers(1, t - 1))
    t, s = torch.tensor([float(t)]).double(), torch.tensor([float(s)]).double()
    on_data, on_state, variance, beta = chain.posterior(t, s)
    # q(x_s | x_0) must come out when x_t of q(x_t | x_0) is stepped back: its mean and its variance
    torch.testing.assert_close(on_data + on_state * chain.alpha(t), chain.alpha(s))
    torch.testing.assert_close(variance + (on_state * chain.sigma(t)) ** 2, chain.sigma(s) ** 2, atol=1e-9, rtol=1e-7)
    assert 0 <= variance <= beta <= 1


def test_single_steps_have_the_betas_given():
    t = torch.arange(1.0, 1001.0).double()
    *_, beta = chain.posterior(t, t - 1)
    torch.testing.assert_close(beta, torch.linspace(1e-4, 0.02, 1000).double(), atol=1e-8, rtol=1e-5)


@given(st.integers(1, 1000))
def test_sampling_times_fall_from_the_end_to_zero(steps):
    for process in (chain, flow):
        t = process.sampling_times(steps)
        assert len(t) == steps + 1
        assert t[0] == process.end
        assert t[-1] == 0
        assert t.diff().lt(0).all()
    respaced = chain.respaced_times(steps)
    assert len(respaced) == steps + 1
    assert respaced[0] == 1000
    assert respaced[-1] == 0
    assert respaced.diff().lt(0).all()
    assert steps == 1 or respaced[-2] == 1


def test_four_trailing_steps_are_those_of_the_paper():
    assert chain.sampling_times(4).tolist() == [1000, 750, 500, 250, 0]
    assert chain.respaced_times(4).tolist() == [1000, 667, 334, 1, 0]


def test_training_times_have_their_density():
    generator = torch.Generator().manual_seed(0)
    t = chain.training_times(200_000, generator)
    assert t.min() == 1
    assert t.max() == 1000
    assert t.mean().item() == pytest.approx(500.5, abs=3)
    uniform = flow.training_times(100_000, generator)
    assert uniform.min() > 0
    assert uniform.max() <= 1
    assert uniform.histc(4, 0, 1).div(1e5).sub(0.25).abs().max() < 0.01
    normal = RectifiedFlowConfig(density="logit_normal", mean=0.5, std=0.8).build().training_times(100_000, generator)
    assert torch.logit(normal).mean().item() == pytest.approx(0.5, abs=0.01)
    assert torch.logit(normal).std().item() == pytest.approx(0.8, abs=0.01)


def test_the_same_seed_gives_the_same_times():
    for config in (LinearBetasConfig(), RectifiedFlowConfig(), RectifiedFlowConfig(density="logit_normal")):
        first, again = (config.build().training_times(5, torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(first, again)


def test_a_regressor_has_one_time_and_no_noise():
    assert direct.training_times(3).tolist() == [1, 1, 1]
    assert direct.sampling_times(1).tolist() == [1, 0]
    assert direct.alpha(torch.ones(1)) == direct.sigma(torch.ones(1)) == 0
    with pytest.raises(InputError, match="a direct regressor has 1"):
        direct.sampling_times(2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LinearBetasConfig(steps=1), "steps: 1"),
        (LinearBetasConfig(beta_first=0.5, beta_last=0.1), "beta_first, beta_last: 0.5, 0.1"),
        (LinearBetasConfig(beta_last=1.0), "beta_first, beta_last"),
        (RectifiedFlowConfig(density="normal"), "density: 'normal': expected uniform or logit_normal"),
        (RectifiedFlowConfig(std=0.0), "std: 0.0"),
        (RectifiedFlowConfig(mean=math.inf), "mean: inf"),
    ],
)
def test_an_option_out_of_range_is_refused(config, message):
    with pytest.raises(InputError, match=message):
        config.build()


@pytest.mark.parametrize("name", list(PROCESSES))
def test_defaults_have_no_fault(name):
    assert PROCESSES[name]().errors() == []
