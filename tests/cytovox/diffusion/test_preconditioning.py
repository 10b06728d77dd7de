"""Every preconditioning recovers data and noise from the right output of its network."""

import pytest
import torch

from cytovox.diffusion.preconditioning import (
    PRECONDITIONINGS,
    DataConfig,
    Denoiser,
    NoiseAndVarianceConfig,
    NoiseConfig,
    VelocityConfig,
)
from cytovox.diffusion.processes import LinearBetasConfig, RectifiedFlowConfig
from cytovox.errors import InputError

chain, flow = LinearBetasConfig().build(), RectifiedFlowConfig().build()
SHAPE = (3, 2, 4, 5, 6)
CONDITION = torch.zeros(3, 2, 5, 6)


def normal(seed, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


DATA, NOISE = normal(0), normal(1)


def edm_output(alpha, sigma, std=0.5):
    """Return the right output of EDM's network, by inverting its scales (arXiv 2206.00364, table 1)."""
    total = alpha**2 * std**2 + sigma**2
    x = alpha * DATA + sigma * NOISE
    return (DATA - alpha * std**2 / total * x) / (sigma * std / total.sqrt())


@pytest.mark.parametrize(
    ("process", "times", "config", "say"),
    [
        (chain, [3, 300, 990], NoiseConfig(), lambda a, s: NOISE),
        (chain, [3, 300, 990], NoiseAndVarianceConfig(), lambda a, s: torch.cat([NOISE, DATA], 1)),
        (chain, [3, 300, 1000], VelocityConfig(), lambda a, s: a * NOISE - s * DATA),
        (flow, [0.01, 0.5, 1], VelocityConfig(), lambda a, s: NOISE - DATA),
        (chain, [3, 300, 1000], DataConfig(), lambda a, s: DATA),
        (flow, [0.05, 0.5, 1], DataConfig(), lambda a, s: DATA),
        (flow, [0.05, 0.5, 1], DataConfig(scaling="edm", data_std=0.5), edm_output),
        (chain, [30, 300, 1000], DataConfig(scaling="edm", data_std=0.5), edm_output),
    ],
)
def test_the_right_answer_gives_data_and_noise(process, times, config, say):
    t_B = torch.tensor(times).float()
    t = t_B[:, None, None, None, None]
    alpha, sigma = process.alpha(t), process.sigma(t)
    denoiser = Denoiser(lambda x, t, c: say(alpha, sigma), process, config.build())
    estimate = denoiser(alpha * DATA + sigma * NOISE, t_B, CONDITION)
    torch.testing.assert_close(estimate.data_BCZYX, DATA, atol=2e-4, rtol=0)
    torch.testing.assert_close(estimate.noise_BCZYX, NOISE, atol=2e-4, rtol=0)
    assert config.outputs == say(alpha, sigma).shape[1] / DATA.shape[1]


def test_the_variance_lies_between_its_limits_where_the_output_is_within_one():
    output = torch.cat([NOISE, torch.full_like(NOISE, -1)], 1)
    output[0, 2:] = 1
    denoiser = Denoiser(lambda x, t, c: output, chain, NoiseAndVarianceConfig().build())
    variance = denoiser(DATA, torch.tensor([1.0, 2.0, 3.0]), CONDITION).variance_BCZYX
    assert variance[0].eq(1).all()
    assert variance[1:].eq(0).all()


@pytest.mark.parametrize("process", [chain, flow], ids=["linear_betas", "rectified_flow"])
def test_edm_shows_and_asks_for_unit_variance_at_every_time(process):
    std, shape = 0.3, (1, 1, 40, 50, 50)
    data, noise = std * normal(2, shape), normal(3, shape)
    scaled = DataConfig(scaling="edm", data_std=std).build()
    for share in (0.05, 0.5, 1.0):
        t = torch.full((1, 1, 1, 1, 1), share * process.end)
        x = process.alpha(t) * data + process.sigma(t) * noise
        assert scaled.scale(process, x, t).std().item() == pytest.approx(1, abs=0.02)
        skip = scaled.estimate(process, torch.zeros_like(x), x, t).data_BCZYX
        out = scaled.estimate(process, torch.ones_like(x), x, t).data_BCZYX - skip
        assert ((data - skip) / out).std().item() == pytest.approx(1, abs=0.02)


def test_the_network_is_shown_times_up_to_a_thousand_and_the_condition_as_it_is():
    shown = []

    def network(x, t, condition):
        shown.append((t.tolist(), condition))
        return x

    condition = normal(4, (2, 2, 4, 4))
    x = normal(5, (2, 1, 3, 4, 4))
    Denoiser(network, flow, VelocityConfig().build())(x, torch.tensor([0.25, 1.0]), condition)
    short = LinearBetasConfig(steps=100).build()
    Denoiser(network, short, NoiseConfig().build())(x, torch.tensor([25.0, 100.0]), condition)
    assert [t for t, _ in shown] == [[250.0, 1000.0]] * 2
    assert all(seen is condition for _, seen in shown)


def test_a_network_in_half_precision_is_read_in_full():
    denoiser = Denoiser(lambda x, t, c: x.bfloat16(), flow, VelocityConfig().build())
    estimate = denoiser(DATA, torch.tensor([0.1, 0.2, 0.3]), CONDITION)
    assert estimate.data_BCZYX.dtype == estimate.noise_BCZYX.dtype == torch.float32


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DataConfig(scaling="karras"), "scaling: 'karras': expected none or edm"),
        (DataConfig(data_std=0.0), "data_std: 0.0: expected more than 0"),
    ],
)
def test_an_option_out_of_range_is_refused(config, message):
    with pytest.raises(InputError, match=message):
        config.build()


@pytest.mark.parametrize("name", list(PRECONDITIONINGS))
def test_defaults_have_no_fault(name):
    assert PRECONDITIONINGS[name]().errors() == []
