"""Rules that hold for every sampler: seeds, number of evaluations, known slices, limits and error messages."""

import pytest
import torch

from cytovox.diffusion.preconditioning import DataConfig, Denoiser, NoiseAndVarianceConfig, NoiseConfig, VelocityConfig
from cytovox.diffusion.processes import DirectConfig, LinearBetasConfig, RectifiedFlowConfig
from cytovox.diffusion.samplers import SAMPLERS, AncestralConfig, DDIMConfig, EulerConfig, HeunConfig, OneStepConfig
from cytovox.errors import InputError

NOTHING = torch.zeros(1, 2, 1, 1)
chain, flow = LinearBetasConfig().build(), RectifiedFlowConfig().build()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise_denoiser():
    return Denoiser(lambda x, t, c: torch.cat([x / 2, 0 * x], dim=1), chain, NoiseAndVarianceConfig().build())


def flow_denoiser():
    return Denoiser(lambda x, t, c: x / 2, flow, VelocityConfig().build())


def test_a_regressor_gives_what_its_network_says_in_one_evaluation():
    direct = DirectConfig().build()
    asked = []

    def network(x, t, condition):
        asked.append((x.abs().max().item(), t.tolist()))
        return condition[:, :1, None].expand_as(x)

    condition = torch.rand(3, 2, 4, 4, generator=seeded())
    sampler = OneStepConfig().build()
    sample = sampler(Denoiser(network, direct, DataConfig().build()), (1, 5, 4, 4), condition, seeded())
    assert torch.equal(sample, condition[:, :1, None].expand(3, 1, 5, 4, 4))
    assert asked == [(0.0, [1000.0] * 3)]
    assert sampler.evaluations == 1


ALL = {
    "ancestral": (AncestralConfig(steps=5), noise_denoiser()),
    "ddim": (DDIMConfig(steps=4, eta=0.5), noise_denoiser()),
    "euler": (EulerConfig(steps=3), flow_denoiser()),
    "heun": (HeunConfig(steps=3), flow_denoiser()),
    "one_step": (OneStepConfig(), flow_denoiser()),
}


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_sample_depends_on_the_seed_and_its_number_but_not_on_the_batch(name):
    config, denoiser = ALL[name]

    def batches(*sizes, seed=7):
        generator, sampler = seeded(seed), config.build()
        return torch.cat([sampler(denoiser, (1, 2, 3, 3), torch.zeros(n, 2, 1, 1), generator) for n in sizes])

    whole = batches(5)
    # the batch decides the last bits on some processors: vectors of several numbers at once, and the rest one by one
    torch.testing.assert_close(whole, batches(2, 3), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(whole, batches(1, 1, 1, 1, 1), rtol=1e-5, atol=1e-5)
    assert (whole[0] - whole[1]).abs().max() > 1e-2
    assert (whole - batches(5, seed=8)).abs().max() > 1e-2


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_evaluations_are_counted_rightly_and_a_known_slice_and_limits_hold_exactly(name):
    config, denoiser = ALL[name]
    config = type(config)(**{**vars(config), "clip": [-0.25, 0.75]})
    calls = []
    counting = Denoiser(
        lambda *inputs: calls.append(1) or denoiser.network(*inputs), denoiser.process, denoiser.preconditioning
    )

    def known(data):
        data = data.clone()
        data[:, :, 1] = 0.5
        return data

    sampler = config.build()
    sample = sampler(counting, (1, 3, 8, 8), NOTHING, seeded(), constrain=known)
    assert len(calls) == sampler.evaluations
    assert sample[:, :, 1].eq(0.5).all()
    assert sample.min() >= -0.25
    assert sample.max() <= 0.75
    assert sample[:, :, 0].std() > 0.05


def test_what_cannot_be_sampled_is_said():
    with pytest.raises(InputError, match="ancestral: expected the process linear_betas"):
        AncestralConfig(steps=5).build()(flow_denoiser(), (1, 1, 2, 2), NOTHING, seeded())
    plain = Denoiser(lambda x, t, c: x / 2, chain, NoiseConfig().build())
    with pytest.raises(InputError, match="variance learned: expected the preconditioning noise_and_variance"):
        AncestralConfig(steps=5).build()(plain, (1, 1, 2, 2), NOTHING, seeded())
    with pytest.raises(InputError, match="1001 steps: expected 1 to 1000"):
        DDIMConfig(steps=1001).build()(plain, (1, 1, 2, 2), NOTHING, seeded())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (AncestralConfig(variance="huge"), "variance: 'huge'"),
        (AncestralConfig(steps=0), "steps: 0"),
        (DDIMConfig(eta=2.0), "eta: 2.0"),
        (EulerConfig(clip=[1.0, -1.0]), "clip: "),
        (HeunConfig(clip=[1.0]), "clip: "),
        (OneStepConfig(clip=[0.0, 0.0]), "clip: "),
    ],
)
def test_an_option_out_of_range_is_refused(config, message):
    with pytest.raises(InputError, match=message):
        config.build()
