"""Every sampler on data with a known solution: Gaussians with their exact denoiser, and a mixture."""

import itertools
import math

import numpy as np
import pytest
import torch

from cytovox.diffusion.preconditioning import (
    NETWORK_TIME,
    DataConfig,
    Denoiser,
    NoiseAndVarianceConfig,
    VelocityConfig,
)
from cytovox.diffusion.processes import LinearBetasConfig, RectifiedFlowConfig
from cytovox.diffusion.samplers import (
    AncestralConfig,
    DDIMConfig,
    EulerConfig,
    HeunConfig,
    OneStepConfig,
)

#: A condition for one sample, which exact denoisers ignore.
NOTHING = torch.zeros(1, 2, 1, 1)
MEAN, STD = 0.4, 0.6
#: Voxels are independent samples of one Gaussian; 4 standard errors of the mean and of the deviation of so many.
VOXELS = (1, 20, 50, 50)
ERROR = 4 * STD / np.sqrt(np.prod(VOXELS))

chain, flow = LinearBetasConfig().build(), RectifiedFlowConfig().build()


def gaussian(process, mean, std, answer, variance=0.0):
    """The network whose data are N(mean, std^2) in every voxel; it answers noise, velocity or data."""

    def network(x, t_B, condition):
        t = (t_B * process.end / NETWORK_TIME)[:, None, None, None, None].double()
        alpha, sigma, x = process.alpha(t), process.sigma(t), x.double()
        data = mean + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (x - alpha * mean)
        noise = sigma / (alpha**2 * std**2 + sigma**2) * (x - alpha * mean)
        a, b = process.velocity(t)
        answers = {"data": data, "noise": noise, "velocity": a * data + b * noise}
        if answer == "noise_and_variance":
            level = variance(t) if callable(variance) else torch.full_like(t, variance)
            return torch.cat([noise, level.expand_as(noise)], dim=1)
        return answers[answer]

    return network


def correlated(process, covariance):
    """The network of two channels whose data are N(0, covariance) together; it answers data."""

    def network(x, t_B, condition):
        t = t_B[0].double() * process.end / NETWORK_TIME
        alpha, sigma = process.alpha(t), process.sigma(t)
        total = alpha**2 * covariance + sigma**2 * torch.eye(2, dtype=torch.float64)
        return torch.einsum("cd,bdzyx->bczyx", alpha * covariance @ torch.linalg.inv(total), x.double())

    return network


def mixture(process, means, weights, std):
    """The network whose data are a mixture of Gaussians in every voxel; it answers the velocity of a rectified flow."""

    def network(x, t_B, condition):
        t = t_B[:, None, None, None, None].double() * process.end / NETWORK_TIME
        alpha, sigma, x = process.alpha(t), process.sigma(t), x.double()
        total = alpha**2 * std**2 + sigma**2
        log_share = torch.stack(
            [math.log(w) - (x - alpha * m) ** 2 / (2 * total) for m, w in zip(means, weights, strict=True)]
        )
        data = torch.stack([m + alpha * std**2 / total * (x - alpha * m) for m in means])
        data = (log_share.softmax(0) * data).sum(0)
        return (x - alpha * data) / sigma - data

    return network


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(config, denoiser, shape=VOXELS, seed=0):
    return config.build()(denoiser, shape, NOTHING, seeded(seed)).double()


def first_noise(shape=VOXELS, seed=0):
    """What a sampler starts from, had from one that only hands it on."""
    shown = []
    silent = Denoiser(lambda x, t, c: shown.append(x) or x, flow, VelocityConfig().build())
    OneStepConfig().build()(silent, shape, NOTHING, seeded(seed))
    return shown[0].double()


def noise_denoiser(variance=0.0):
    network = gaussian(chain, MEAN, STD, "noise_and_variance", variance)
    return Denoiser(network, chain, NoiseAndVarianceConfig().build())


def flow_denoiser(mean=MEAN, std=STD):
    return Denoiser(gaussian(flow, mean, std, "velocity"), flow, VelocityConfig().build())


def alpha_bars():
    """DDPM's cumulative products from the paper, without the code under test; index 0 is clean data."""
    return np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))])


def ancestral_moments(times, variance):
    """Mean and deviation that DDPM's algorithm 2 gives for exact noise, its betas recomputed for the times used."""
    bars = alpha_bars()
    mean, spread = 0.0, 1.0
    for t, s in itertools.pairwise(times):
        bar_t, bar_s = bars[t], bars[s]
        beta = 1 - bar_t / bar_s
        # x_s = (x_t - beta / sqrt(1 - bar_t) eps) / sqrt(1 - beta), and eps is linear in x_t for Gaussian data
        gain = np.sqrt(1 - bar_t) / (bar_t * STD**2 + 1 - bar_t)
        slope = (1 - beta / np.sqrt(1 - bar_t) * gain) / np.sqrt(1 - beta)
        offset = beta / np.sqrt(1 - bar_t) * gain * np.sqrt(bar_t) * MEAN / np.sqrt(1 - beta)
        noise = 0 if s == 0 else {"small": beta * (1 - bar_s) / (1 - bar_t), "large": beta}[variance]
        mean, spread = slope * mean + offset, slope**2 * spread + noise
    return mean, np.sqrt(spread)


def test_a_thousand_ancestral_steps_sample_the_gaussian():
    sample = draw(AncestralConfig(variance="small"), noise_denoiser(), (1, 10, 40, 40))
    assert sample.mean() == pytest.approx(MEAN, abs=0.02)  # 4 standard errors
    assert sample.std() == pytest.approx(STD, abs=0.02)  # of which the rule itself takes 0.004


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("steps", [5, 25])
def test_few_ancestral_steps_give_what_recomputed_betas_give(steps, variance):
    times = [round(1000 - i * 999 / (steps - 1)) for i in range(steps)] + [0]
    mean, std = ancestral_moments(times, variance)
    sample = draw(AncestralConfig(steps=steps, variance=variance), noise_denoiser())
    assert sample.mean() == pytest.approx(mean, abs=ERROR)
    assert sample.std() == pytest.approx(std, abs=ERROR)


def true_level(steps):
    """Where the true log variance of a step back lies between its limits, for `steps` evenly chosen ones, as -1..1."""
    bars, table = alpha_bars(), np.zeros(1001)
    times = np.linspace(1000, 1, steps).round().astype(int)
    for t, s in itertools.pairwise(times):
        bar_t, bar_s = bars[t], bars[s]
        beta = 1 - bar_t / bar_s
        lower = beta * (1 - bar_s) / (1 - bar_t)
        # the data are not known but for N(mean, var): their share in the step's mean adds to its variance
        weight = np.sqrt(bar_s) * beta / (1 - bar_t)
        data_variance = STD**2 * (1 - bar_t) / (bar_t * STD**2 + 1 - bar_t)
        true = lower + weight**2 * data_variance
        table[t] = 2 * np.log(true / lower) / np.log(beta / lower) - 1
    table = torch.from_numpy(table)
    return lambda t: table[t.round().long()]


def test_ten_ancestral_steps_with_the_true_variance_sample_the_gaussian_itself():
    sample = draw(AncestralConfig(steps=10), noise_denoiser(true_level(10)))
    assert sample.mean() == pytest.approx(MEAN, abs=ERROR)
    assert sample.std() == pytest.approx(STD, abs=ERROR)
    assert ancestral_moments([round(1000 - i * 111) for i in range(10)] + [0], "small")[1] < STD - 5 * ERROR


def test_a_learned_variance_at_its_limits_is_small_or_large():
    for level, name in ((-1.0, "small"), (1.0, "large")):
        learned = draw(AncestralConfig(steps=20), noise_denoiser(level), (1, 2, 4, 4))
        fixed = draw(AncestralConfig(steps=20, variance=name), noise_denoiser(), (1, 2, 4, 4))
        torch.testing.assert_close(learned, fixed, atol=1e-4, rtol=0)


def ddim_map(x, steps):
    """Song et al., eq. 12 with eta = 0, in float64 from the paper's formula."""
    bars = alpha_bars()
    times = [round(1000 - i * 1000 / steps) for i in range(steps + 1)]
    x = x * np.sqrt(1 - bars[-1])
    for t, s in itertools.pairwise(times):
        eps = np.sqrt(1 - bars[t]) / (bars[t] * STD**2 + 1 - bars[t]) * (x - np.sqrt(bars[t]) * MEAN)
        data = (x - np.sqrt(1 - bars[t]) * eps) / np.sqrt(bars[t])
        x = np.sqrt(bars[s]) * data + np.sqrt(1 - bars[s]) * eps
    return x


@pytest.mark.parametrize("steps", [1, 4, 50])
def test_ddim_is_the_published_map(steps):
    sample = draw(DDIMConfig(steps=steps), noise_denoiser(), (1, 2, 8, 8))
    expected = ddim_map(first_noise((1, 2, 8, 8)).numpy(), steps)
    np.testing.assert_allclose(sample.numpy(), expected, atol=1e-3)


def exact_map(noise, process):
    """Where the probability flow takes noise: the monotone map from one Gaussian to the other."""
    end = torch.tensor(process.end, dtype=torch.float64)
    alpha, sigma = process.alpha(end), process.sigma(end)
    return MEAN + STD * (sigma * noise - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2).sqrt()


def order(config, denoiser, steps=(8, 16)):
    """By which power of the step the error falls."""
    errors = [
        (draw(config(steps=n), denoiser, (1, 2, 8, 8)) - exact_map(first_noise((1, 2, 8, 8)), denoiser.process))
        .abs()
        .max()
        for n in steps
    ]
    return float(np.log(errors[0] / errors[1]) / np.log(steps[1] / steps[0])), float(errors[1])


def test_ddim_converges_to_the_flow_of_the_chain():
    rate, error = order(DDIMConfig, noise_denoiser(), (50, 100))
    assert 0.8 < rate < 1.3
    assert error < 0.06


def test_euler_is_first_order_and_heun_second():
    rate, error = order(EulerConfig, flow_denoiser())
    assert 0.8 < rate < 1.2
    assert error < 0.2
    rate, error = order(HeunConfig, flow_denoiser())
    assert 1.7 < rate < 2.4
    assert error < 0.012


def test_heun_follows_the_chain_by_its_angle():
    denoiser = Denoiser(gaussian(chain, MEAN, STD, "velocity"), chain, VelocityConfig().build())
    rate, error = order(HeunConfig, denoiser, (20, 40))
    assert rate > 1.6
    assert error < 0.03


def test_euler_and_ddim_are_one_for_the_rectified_flow():
    euler, ddim = (draw(config(steps=5), flow_denoiser(), (1, 2, 4, 4)) for config in (EulerConfig, DDIMConfig))
    torch.testing.assert_close(euler, ddim, atol=1e-5, rtol=0)


def test_all_noise_renewed_ddim_has_the_moments_of_small_variance_steps():
    times = [round(1000 - i * 1000 / 8) for i in range(9)]
    mean, std = ancestral_moments(times, "small")
    sample = draw(DDIMConfig(steps=8, eta=1.0), noise_denoiser())
    assert sample.mean() == pytest.approx(mean, abs=ERROR)
    assert sample.std() == pytest.approx(std, abs=ERROR)


def test_renewed_noise_keeps_the_marginals_of_the_flow():
    sample = draw(DDIMConfig(steps=200, eta=0.5), flow_denoiser(), (1, 10, 40, 40))
    assert sample.mean() == pytest.approx(MEAN, abs=0.02)
    assert sample.std() == pytest.approx(STD, abs=0.02)


COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("process", "config", "tolerance"),
    [
        (chain, AncestralConfig(steps=250, variance="large"), 0.05),
        (chain, DDIMConfig(steps=100), 0.04),
        (flow, HeunConfig(steps=20), 0.03),
    ],
    ids=["ancestral", "ddim", "heun"],
)
def test_correlated_channels_come_out_correlated(process, config, tolerance):
    denoiser = Denoiser(correlated(process, COVARIANCE), process, DataConfig().build())
    sample = draw(config, denoiser, (2, 10, 40, 40)).flatten(2)[0]
    torch.testing.assert_close(torch.cov(sample), COVARIANCE, atol=tolerance, rtol=0)


def test_a_mixture_keeps_its_parts_and_their_shares():
    network = mixture(flow, means=(-1.0, 1.0), weights=(0.3, 0.7), std=0.1)
    sample = draw(HeunConfig(steps=30), Denoiser(network, flow, VelocityConfig().build()), (1, 10, 40, 40))
    right = sample > 0
    assert right.double().mean() == pytest.approx(0.7, abs=0.02)  # 5 standard errors
    for part, mean in ((sample[right], 1.0), (sample[~right], -1.0)):
        assert part.mean() == pytest.approx(mean, abs=0.02)
        assert part.std() == pytest.approx(0.1, abs=0.03)
