"""Defaults that follow the device: larger batches on a CUDA device, CUDA graphs from a config, the same results."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from cytovox.inference.device_memory import DeviceLimits
from cytovox.io import read_volume
from cytovox.simulation.tomogram import simulate
from experiments.build import build_from_weights
from experiments.config import load_config
from experiments.tasks.analyze.predictors import organelle_model
from experiments.weights import read_weights, weights_path
from tests.gpu.conftest import DEVICE

#: 48 windows of the shipped weights: more than one batch of 32.
SHAPE, SPACING = (96, 224, 224), (0.3, 0.3, 0.3)
cuda_only = pytest.mark.skipif(DEVICE == "cpu", reason="CUDA's own")


@cuda_only
@pytest.mark.parametrize("compile", ["none", "cuda_graphs"])
def test_an_analysis_predicts_32_windows_at_once_and_finds_what_one_at_a_time_does(exact_float32, compile):
    inferer = organelle_model(weights_path("organelle", "weights"), compile).inferer
    assert (inferer.device, inferer.tiling.sw_batch_size, inferer.compile) == ("cuda", 32, compile)
    tiling = dataclasses.replace(inferer.tiling, sw_batch_size=1)
    one = dataclasses.replace(inferer, tiling=tiling, precision="32-true", channels_last=False, compile="none")
    many = dataclasses.replace(inferer, precision="32-true", channels_last=False)
    ri_ZYX = simulate("HeLa", 5, SHAPE, SPACING).ri_ZYX
    np.testing.assert_allclose(many(ri_ZYX, SPACING), one(ri_ZYX, SPACING), atol=2e-4)


def test_samples_of_a_cell_do_not_depend_on_how_many_are_drawn_at_once(device, exact_float32):
    config = load_config("shape_rbc", ["predict.checkpoint=shape_rbc"])
    module = build_from_weights(config, read_weights(config, [weights_path("shape_rbc", "weights")]))
    module = module.to(device).eval()
    module.trainer = None
    image, mask = torch.rand(1, 64, 64, device=device), torch.zeros(1, 64, 64, device=device)
    mask[:, 20:44, 18:46] = 1
    found = module.shapes(image, mask, 3, 20)
    assert module.sampler.limits.batch == (8 if DEVICE == "cpu" else 16)
    module.sampler.limits = DeviceLimits(5)
    other = module.shapes(image, mask, 3, 20)
    assert (found.samples_NZYX != other.samples_NZYX).float().mean() < 1e-4
    assert (found.mean_ZYX != other.mean_ZYX).float().mean() < 1e-4


@cuda_only
def test_a_prediction_with_cuda_graphs_writes_the_masks_of_one_without(cli, cells, tmp_path):
    masks = {}
    for compile in ("none", "cuda_graphs"):
        words = ["stages=[predict]", f"predict.inputs=[{cells}/HeLa-00001.TCF]", f"predict.out={tmp_path / compile}"]
        words += ["predict.pad_yx=[0,0]", f"predict.compile={compile}", "trainer.precision=32-true"]
        answer = cli("organelle", *words, f"runs_dir={tmp_path / 'runs'}", "logging.wandb=disabled")
        assert answer.code == 0, answer.err
        volume = read_volume(tmp_path / compile / "HeLa-00001.ome.tif")
        masks[compile] = np.stack([volume.frame(0, name) for name in volume.channels])
    assert masks["none"].any()
    assert (masks["none"] != masks["cuda_graphs"]).mean() < 1e-3
