"""A dry run of a shipped config ends soon, however many sampler steps its test takes."""

from __future__ import annotations

from experiments.config import load_config
from experiments.stages import _shortened
from training.dry_run import SAMPLES, STEPS


def test_a_dry_run_takes_few_steps_of_the_sampler_and_few_samples():
    config = load_config("shape_dispr", ["data.root=."])
    assert config.sampler.steps == 1000
    short = _shortened(config)
    assert (short.sampler.steps, short.predict.samples) == (STEPS, SAMPLES)
    assert short.process == config.process
    assert config.sampler.steps == 1000
