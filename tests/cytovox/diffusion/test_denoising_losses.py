"""Losses of a denoiser: 0 for a perfect one, and known values for one that always predicts 0."""

import math

import pytest
import torch

from cytovox.diffusion.denoising import (
    DataL1Config,
    DataL1DiceConfig,
    DataMSEConfig,
    NoiseMSEConfig,
    NoiseMSEVLBConfig,
    VelocityMSEConfig,
)
from cytovox.diffusion.parts import DENOISING_LOSSES
from cytovox.diffusion.preconditioning import DataConfig, Denoiser, NoiseAndVarianceConfig, NoiseConfig, VelocityConfig
from cytovox.diffusion.processes import DirectConfig, LinearBetasConfig, RectifiedFlowConfig
from cytovox.diffusion.variational import bound_bits, learned_log_variance, level_log_likelihood
from cytovox.errors import InputError

chain, flow, direct = LinearBetasConfig().build(), RectifiedFlowConfig().build(), DirectConfig().build()
CONDITION = torch.zeros(4, 2, 8, 8)


def normal(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X0 = normal((4, 1, 8, 8, 8)).clamp(-1, 1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def perfect_denoiser(process, config, outputs=1):
    """Return a denoiser whose output, in noise, velocity or data, is always right."""

    def network(x, t_B, condition):
        t = (t_B * process.end / 1000)[:, None, None, None, None]
        noise = (x - process.alpha(t) * X0) / process.sigma(t).clamp(min=1e-12)
        a, b = process.velocity(t)
        return {NoiseConfig: noise, VelocityConfig: a * X0 + b * noise, DataConfig: X0}[type(config)]

    return Denoiser(network, process, config.build())


def zero_denoiser(process, config, outputs=1):
    return Denoiser(lambda x, t, c: torch.zeros_like(x).repeat(1, outputs, 1, 1, 1), process, config.build())


@pytest.mark.parametrize(
    ("loss", "process", "config"),
    [
        (NoiseMSEConfig(), chain, NoiseConfig()),
        (VelocityMSEConfig(), flow, VelocityConfig()),
        (VelocityMSEConfig(), chain, VelocityConfig()),
        (DataMSEConfig(), flow, DataConfig()),
        (DataL1Config(weighting="min_snr"), chain, DataConfig()),
        (DataMSEConfig(), direct, DataConfig()),
        (DataL1DiceConfig(), direct, DataConfig()),
        (NoiseMSEConfig(), flow, VelocityConfig()),
    ],
)
def test_the_loss_of_a_perfect_denoiser_is_0(loss, process, config):
    value, logs = loss.build()(perfect_denoiser(process, config), X0, CONDITION, seeded())
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert all(not part.requires_grad for part in logs.values())


def test_the_loss_of_a_denoiser_that_predicts_0_is_the_variance_of_the_target():
    x0 = normal((4, 1, 32, 32, 32), seed=1)
    variance, spread = x0.square().mean().item(), x0.abs().mean().item()
    for loss, process, config, expected in (
        (NoiseMSEConfig(), chain, NoiseConfig(), 1.0),
        (VelocityMSEConfig(), flow, VelocityConfig(), 1.0 + variance),
        (DataMSEConfig(), flow, DataConfig(), variance),
        (DataL1Config(), direct, DataConfig(), spread),
    ):
        value, _ = loss.build()(zero_denoiser(process, config), x0, CONDITION, seeded())
        assert value.item() == pytest.approx(expected, rel=0.02)


def test_the_noise_and_the_times_are_those_of_the_generator():
    denoiser, loss = zero_denoiser(flow, VelocityConfig()), VelocityMSEConfig().build()
    first, again, other = (loss(denoiser, X0, CONDITION, seeded(seed))[0] for seed in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (DataMSEConfig(), lambda t: torch.ones_like(t)),
        (DataMSEConfig(weighting="min_snr", limit=5), lambda t: ((1 - t) / t).square().clamp(max=5)),
        # of unit variance of the data: 1 / sigma^2 for the chain, (alpha^2 + sigma^2) / sigma^2 for the flow
        (DataMSEConfig(weighting="edm", limit=1e9), lambda t: ((1 - t) ** 2 + t**2) / t**2),
    ],
)
def test_weights_of_times_are_the_published_ones(config, expected):
    t = torch.tensor([0.01, 0.3, 0.5, 1.0])[:, None, None, None, None]
    torch.testing.assert_close(config.weight(flow, t), expected(t))


def test_the_overlap_is_that_of_the_shapes_above_zero():
    x0 = -torch.ones(1, 1, 8, 8, 8)
    x0[..., :4] = 1
    half = x0.clone()
    half[..., 2:4] = -1
    denoiser = Denoiser(lambda x, t, c: half, direct, DataConfig().build())
    value, logs = DataL1DiceConfig(dice_weight=3.0).build()(denoiser, x0, CONDITION[:1], seeded())
    # half of the shape is found: Dice 2 x 128 / (128 + 256), and a quarter of the voxels is 2 off
    assert logs["dice"].item() == pytest.approx(1 - 2 * 128 / (128 + 256), abs=2e-3)
    assert logs["data_l1"].item() == pytest.approx(0.5)
    assert value.item() == pytest.approx(0.5 + 3 * logs["dice"].item(), rel=1e-5)


def test_a_weight_weighs():
    denoiser = Denoiser(lambda x, t, c: X0 + 1, flow, DataConfig().build())
    value, logs = DataMSEConfig(weighting="min_snr", limit=2).build()(denoiser, X0, CONDITION, seeded())
    t = flow.training_times(4, seeded())
    assert value.item() == pytest.approx(((1 - t) / t).square().clamp(max=2).mean().item(), rel=1e-5)
    assert logs["data_mse"].item() == pytest.approx(1, rel=1e-5)


def variance_of(level):
    """A network whose noise is 0 and whose variance channel is a leaf."""
    noise, variance = torch.zeros_like(X0).requires_grad_(), torch.full_like(X0, level).requires_grad_()
    denoiser = Denoiser(lambda x, t, c: torch.cat([noise, variance], 1), chain, NoiseAndVarianceConfig().build())
    return denoiser, noise, variance


def test_the_bound_moves_the_variance_and_never_the_noise():
    denoiser, noise, variance = variance_of(0.0)
    loss, logs = NoiseMSEVLBConfig().build()(denoiser, X0, CONDITION, seeded())
    loss.backward()
    moved = noise.grad.clone()
    plain, quiet, _ = variance_of(0.0)
    NoiseMSEConfig().build()(plain, X0, CONDITION, seeded())[0].backward()
    torch.testing.assert_close(moved, quiet.grad)
    assert variance.grad.abs().flatten(1).mean(1).gt(0).all()
    assert loss.item() == pytest.approx((logs["noise_mse"] + 1e-3 * logs["vlb_bits"]).item(), rel=1e-6)


def estimate_at(t, level, x0=X0):
    """Return a noisy batch, its time, and an estimate with the true noise and a given variance."""
    t_B = torch.full((len(x0),), float(t))
    t5 = t_B[:, None, None, None, None]
    noise = normal(x0.shape, seed=2)
    x = chain.alpha(t5) * x0 + chain.sigma(t5) * noise
    denoiser = Denoiser(
        lambda x, t, c: torch.cat([noise, torch.full_like(x0, level)], 1), chain, NoiseAndVarianceConfig().build()
    )
    return x, t5, denoiser(x, t_B, CONDITION)


@pytest.mark.parametrize("t", [2, 50, 1000])
def test_the_true_step_back_is_no_bits_away(t):
    # with the data known, the true variance is the lower limit
    x, t5, estimate = estimate_at(t, -1.0)
    assert bound_bits(chain, x, X0, t5, estimate).abs().max() < 1e-3


def test_a_wrong_variance_costs_the_divergence_of_two_gaussians():
    x, t5, estimate = estimate_at(50, 1.0)
    *_, lower, upper = chain.posterior(t5, t5 - 1)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(0, lower.sqrt()), torch.distributions.Normal(0, upper.sqrt())
    ) / math.log(2)
    bits = bound_bits(chain, x, X0, t5, estimate)
    torch.testing.assert_close(bits.mean(), expected.mean(), rtol=1e-3, atol=1e-6)


def test_the_last_step_is_scored_by_the_level_it_hits():
    x, t5, estimate = estimate_at(1, 1.0)
    *_, beta = chain.posterior(t5, t5 - 1)
    inside = X0.abs() < 0.99
    width = torch.tensor(1 / 255) / beta.sqrt().flatten()[0]
    expected = -torch.log2(torch.special.ndtr(width) - torch.special.ndtr(-width))
    bits = bound_bits(chain, x, X0, t5, estimate)[inside]
    torch.testing.assert_close(bits, expected.expand_as(bits), rtol=0.02, atol=0)


def test_the_probabilities_of_all_levels_add_up_to_one():
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)
    for mean, std in ((0.0, 0.3), (0.9, 0.5), (-3.0, 1.0)):
        log = level_log_likelihood(levels, torch.full_like(levels, mean), torch.full_like(levels, 2 * math.log(std)))
        assert log.exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_the_learned_variance_has_the_limits_of_its_step():
    t, s = (torch.tensor(time).view(1, 1, 1, 1, 1) for time in (600.0, 300.0))
    *_, lower, upper = chain.posterior(t, s)
    for level, limit in ((0.0, lower), (1.0, upper)):
        torch.testing.assert_close(learned_log_variance(chain, t, s, torch.full_like(t, level)).exp(), limit)
    first = learned_log_variance(chain, torch.ones(1), torch.zeros(1), torch.zeros(1)).exp()
    *_, second, _ = chain.posterior(torch.full((1,), 2.0), torch.ones(1))
    torch.testing.assert_close(first, second)


def test_the_learned_variance_learns_what_there_is_to_learn():
    # data of deviation 0.5 under the exact noise: the bound alone must find the true variance of a step back
    std, t, n = 0.5, 400.0, 20_000
    x0 = std * normal((1, 1, 1, 1, n), seed=5).double()
    t5 = torch.full((1, 1, 1, 1, 1), t).double()
    alpha, sigma = chain.alpha(t5), chain.sigma(t5)
    x = alpha * x0 + sigma * normal(x0.shape, seed=6).double()
    level = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([level], max_iter=20)
    preconditioning = NoiseAndVarianceConfig().build()

    def closure():
        optimizer.zero_grad()
        noise = sigma / (alpha**2 * std**2 + sigma**2) * x
        estimate = preconditioning.estimate(chain, torch.cat([noise, level * torch.ones_like(x)], 1), x, t5)
        bits = bound_bits(chain, x, x0, t5, estimate).mean() * 1e4
        bits.backward()
        return bits

    optimizer.step(closure)
    data, _, lower, upper = chain.posterior(t5, t5 - 1)
    true = lower + data**2 * std**2 * sigma**2 / (alpha**2 * std**2 + sigma**2)
    learned = learned_log_variance(chain, t5, t5 - 1, (level.detach() + 1) / 2).exp()
    assert lower < true < upper
    assert ((learned - lower) / (true - lower)).item() == pytest.approx(1, abs=0.05)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="expected the process linear_betas"):
        NoiseMSEVLBConfig().build()(zero_denoiser(flow, NoiseAndVarianceConfig(), 2), X0, CONDITION, seeded())
    with pytest.raises(InputError, match="expected the preconditioning noise_and_variance"):
        NoiseMSEVLBConfig().build()(zero_denoiser(chain, NoiseConfig()), X0, CONDITION, seeded())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (NoiseMSEVLBConfig(vlb_weight=0.0), "vlb_weight: 0.0: expected more than 0; without it, use noise_mse"),
        (DataMSEConfig(weighting="snr"), "weighting: 'snr': expected uniform, min_snr or edm"),
        (DataL1Config(limit=-1.0), "limit: -1.0"),
        (DataL1Config(data_std=0.0), "data_std: 0.0"),
        (DataL1DiceConfig(dice_weight=0.0), "dice_weight: 0.0: expected more than 0"),
        (DataL1DiceConfig(sharpness=float("nan")), "sharpness: nan"),
    ],
)
def test_an_option_out_of_range_is_refused(config, message):
    with pytest.raises(InputError, match=message):
        config.build()


@pytest.mark.parametrize("name", list(DENOISING_LOSSES))
def test_defaults_have_no_fault(name):
    assert DENOISING_LOSSES[name]().errors() == []
