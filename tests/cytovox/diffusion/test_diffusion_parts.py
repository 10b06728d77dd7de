"""The parts of a shape model by name, and the errors of parts that do not fit together."""

import ast
import inspect
import itertools
import textwrap

import pytest
import torch

from cytovox.diffusion.denoising import (
    DataL1DiceConfig,
    DataMSEConfig,
    NoiseMSEConfig,
    NoiseMSEVLBConfig,
    VelocityMSEConfig,
)
from cytovox.diffusion.parts import PARTS, combination_errors, part_config
from cytovox.diffusion.preconditioning import DataConfig, Denoiser, NoiseAndVarianceConfig, NoiseConfig, VelocityConfig
from cytovox.diffusion.processes import DirectConfig, LinearBetasConfig, RectifiedFlowConfig
from cytovox.diffusion.samplers import AncestralConfig, DDIMConfig, EulerConfig, HeunConfig, OneStepConfig
from cytovox.errors import InputError

CONFIGS = [(part, name) for part, known in PARTS.items() for name in known]


@pytest.mark.parametrize(("part", "name"), CONFIGS)
def test_every_option_has_a_default_and_a_docstring_right_below(part, name):
    body = ast.parse(textwrap.dedent(inspect.getsource(part_config(part, name)))).body[0].body
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(below, ast.Expr), field.target.id
    part_config(part, name)().build()


@pytest.mark.parametrize(("part", "name"), CONFIGS)
def test_omegaconf_takes_the_config_as_its_schema_and_gives_it_back(part, name):
    omegaconf = pytest.importorskip("omegaconf")
    schema = omegaconf.OmegaConf.structured(part_config(part, name))
    assert omegaconf.OmegaConf.to_object(schema) == part_config(part, name)()


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="sampler 'huen': no such sampler; did you mean heun"):
        part_config("sampler", "huen")


@pytest.mark.parametrize(
    "parts",
    [
        (LinearBetasConfig(), NoiseAndVarianceConfig(), NoiseMSEVLBConfig(), AncestralConfig()),
        (LinearBetasConfig(), NoiseConfig(), NoiseMSEConfig(), DDIMConfig()),
        (LinearBetasConfig(), VelocityConfig(), VelocityMSEConfig(), HeunConfig()),
        (RectifiedFlowConfig(), VelocityConfig(), VelocityMSEConfig(), EulerConfig()),
        (RectifiedFlowConfig(), DataConfig(scaling="edm"), DataMSEConfig(weighting="edm"), HeunConfig()),
        (DirectConfig(), DataConfig(), DataMSEConfig(), OneStepConfig()),
        (DirectConfig(), DataConfig(), DataL1DiceConfig(), OneStepConfig()),
    ],
)
def test_parts_that_fit_together_train_and_sample(parts):
    assert combination_errors(*parts) == []
    process, preconditioning, loss, sampler = parts
    weight = torch.full((1,), 0.1, requires_grad=True)

    def network(x, t, condition):
        return (weight * x + condition[:, :1, None]).repeat(1, preconditioning.outputs, 1, 1, 1)

    denoiser = Denoiser(network, process.build(), preconditioning.build())
    condition = torch.rand(2, 2, 4, 4)
    value, _ = loss.build()(denoiser, torch.zeros(2, 1, 4, 4, 4), condition, torch.Generator().manual_seed(0))
    value.backward()
    assert weight.grad.isfinite().all()
    config = type(sampler)(steps=3) if hasattr(sampler, "steps") else sampler
    sample = config.build()(denoiser, (1, 4, 4, 4), condition, torch.Generator().manual_seed(0))
    assert sample.shape == (2, 1, 4, 4, 4)
    assert sample.isfinite().all()
    assert not sample.requires_grad


@pytest.mark.parametrize(
    ("parts", "messages"),
    [
        (
            (RectifiedFlowConfig(), NoiseConfig(), NoiseMSEConfig(), EulerConfig()),
            ["preconditioning: noise: pure noise contains no information"],
        ),
        (
            (RectifiedFlowConfig(), VelocityConfig(), VelocityMSEConfig(), AncestralConfig(variance="small")),
            ["sampler: ancestral: expected the process linear_betas"],
        ),
        (
            (LinearBetasConfig(), NoiseConfig(), NoiseMSEVLBConfig(), AncestralConfig()),
            ["loss: noise_mse_vlb: expected", "sampler: variance learned: expected"],
        ),
        (
            (LinearBetasConfig(), NoiseAndVarianceConfig(), NoiseMSEConfig(), DDIMConfig()),
            ["loss: noise_mse: would not train the variance"],
        ),
        (
            (DirectConfig(), VelocityConfig(), VelocityMSEConfig(), EulerConfig()),
            ["preconditioning: the process direct", "loss: the process direct", "sampler: euler: expected one_step"],
        ),
        (
            (DirectConfig(), DataConfig(scaling="edm"), DataMSEConfig(weighting="edm"), OneStepConfig()),
            ["preconditioning: the process direct", "loss: the process direct"],
        ),
        (
            (RectifiedFlowConfig(), DataConfig("edm", 0.5), DataMSEConfig(weighting="edm"), EulerConfig()),
            ["loss: data_std: 1.0: expected 0.5"],
        ),
    ],
)
def test_all_errors_of_parts_that_do_not_fit_are_reported_at_once(parts, messages):
    errors = combination_errors(*parts)
    assert len(errors) == len(messages)
    for error, start in zip(errors, messages, strict=True):
        assert error.startswith(start)
