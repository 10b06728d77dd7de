"""The GPU computes what the CPU computes, within a stated bound."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from cytovox.diffusion.denoising import NoiseMSEVLBConfig, VelocityMSEConfig
from cytovox.diffusion.preconditioning import PRECONDITIONINGS, Denoiser
from cytovox.diffusion.processes import PROCESSES
from cytovox.diffusion.samplers import SAMPLERS
from cytovox.inference.ensemble import autocast
from cytovox.inference.predictor import DenseInferer
from cytovox.io.regions import ArrayReader
from cytovox.losses.segmentation import LOSSES
from cytovox.metrics.overlap import dice
from cytovox.models.cells import cell_finder, cell_windows
from cytovox.models.metadata import read_checkpoint
from cytovox.models.networks import cell_network
from cytovox.segmentation.field import CellField, SeedRule
from cytovox.simulation.tomogram import simulate
from experiments.build import build_from_weights
from experiments.config import load_config
from experiments.tasks.analyze.predictors import organelle_model
from experiments.weights import read_weights, weights_path
from lightning_modules.shape import ShapeModule

SHAPE, SPACING = (32, 96, 96), (0.4, 0.4, 0.4)
#: Largest difference of probabilities to the CPU's float32. Float32 on a GPU sums in another order; float16 has 11
#: significant bits, bfloat16 8.
BOUNDS = {"32-true": 2e-4, "16-mixed": 0.03, "bf16-mixed": 0.25}


@pytest.fixture(scope="module")
def tomogram():
    return simulate("HeLa", 31, SHAPE, SPACING)


def inferer_on(device: str, precision: str = "32-true", **options: object) -> DenseInferer:
    inferer = organelle_model(weights_path("organelle", "weights")).inferer
    options = {"channels_last": False, **options}
    return dataclasses.replace(inferer, device=device, precision=precision, **options)


@pytest.fixture(scope="module")
def expected(tomogram):
    """Probabilities of the CPU in float32."""
    return inferer_on("cpu")(tomogram.ri_ZYX, SPACING)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("precision", BOUNDS)
def test_probabilities_agree(tomogram, expected, device, exact_float32, precision, channels_last):
    found = inferer_on(device, precision, channels_last=channels_last)(tomogram.ri_ZYX, SPACING)
    difference = np.abs(found - expected)
    assert difference.max() < BOUNDS[precision]
    assert difference.mean() < BOUNDS[precision] / 50
    for k in range(len(expected)):
        assert dice(found[k] >= 0.5, expected[k] >= 0.5) > 0.995


def test_streamed_boxes_agree(tomogram, expected, device, exact_float32):
    inferer = inferer_on(device, memory_gb=0.001)
    for box, values in inferer.boxes(ArrayReader(tomogram.ri_ZYX), SPACING):
        np.testing.assert_allclose(values, expected[(slice(None), *box)], atol=BOUNDS["32-true"])


@pytest.mark.parametrize("name", ["cells_offsets", "cells_network"])
@pytest.mark.parametrize("precision", BOUNDS)
def test_cells_agree(tomogram, device, exact_float32, name, precision):
    weights = read_checkpoint(weights_path(name, "init_from"), "cells", "init_from")
    masks = tomogram.masks
    field = CellField(masks["membrane"], masks["nucleus"], SPACING, tomogram.ri_ZYX)

    def find(where: str, how: str) -> np.ndarray:
        metadata = weights.metadata
        finder = cell_finder(
            cell_network(weights, "weights"),
            metadata,
            cell_windows(metadata.patch_size),
            SeedRule(),
            device=where,
            precision=how,
        )
        return finder(field).cells_ZYX

    expected, found = find("cpu", "32-true"), find(device, precision)
    assert expected.max() >= 1
    assert (expected != found).mean() < (0.001 if precision == "32-true" else 0.01)


@pytest.mark.parametrize("name", LOSSES)
def test_segmentation_losses_agree(device, name):
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(2, 4, 32, 64, 64, generator=generator)
    target = (torch.rand(2, 4, 32, 64, 64, generator=generator) < 0.1).to(torch.uint8)
    labelled = torch.tensor([[True, True, False, True], [True, False, True, True]])
    results = []
    for where in ("cpu", device):
        own = logits.detach().clone().to(where).requires_grad_()
        loss = LOSSES[name]().build().to(where)(own, target.to(where), labelled.to(where))
        loss.sum().backward()
        results.append((loss.detach().cpu(), own.grad.cpu()))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-9)


def denoiser_on(device: str, process: str, preconditioning: str) -> tuple[Denoiser, torch.nn.Conv3d]:
    """A denoiser of one convolution with the same weights on every device."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Conv3d(3, PRECONDITIONINGS[preconditioning].outputs, 3, padding=1)
    network.to(device)

    def ask(x_BCZYX: torch.Tensor, t_B: torch.Tensor, condition_BCYX: torch.Tensor) -> torch.Tensor:
        maps_BCZYX = condition_BCYX[:, :, None].expand(-1, -1, x_BCZYX.shape[2], -1, -1)
        return network(torch.cat([x_BCZYX, maps_BCZYX], 1)) * (1 + t_B[:, None, None, None, None] / 1000)

    return Denoiser(ask, PROCESSES[process]().build(), PRECONDITIONINGS[preconditioning]().build()), network


@pytest.mark.parametrize(("process", "preconditioning", "sampler", "options"), [
    ("linear_betas", "noise_and_variance", "ancestral", {"steps": 20, "clip": [-1.0, 1.0]}),
    ("linear_betas", "noise", "ddim", {"steps": 10}),
    ("rectified_flow", "velocity", "euler", {"steps": 6}),
    ("rectified_flow", "data", "heun", {"steps": 4}),
    ("direct", "data", "one_step", {}),
])  # fmt: skip
def test_a_seed_names_the_same_sample_on_every_device(
    device, exact_float32, process, preconditioning, sampler, options
):
    torch.manual_seed(0)
    condition, samples = torch.rand(3, 2, 16, 16), []
    for where in ("cpu", device):
        denoiser, _ = denoiser_on(where, process, preconditioning)
        draw = SAMPLERS[sampler](**options).build()
        samples.append(draw(denoiser, (1, 16, 16, 16), condition.to(where), torch.Generator().manual_seed(7)).cpu())
    torch.testing.assert_close(samples[0], samples[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("process", "preconditioning", "loss"), [
    ("linear_betas", "noise_and_variance", NoiseMSEVLBConfig), ("rectified_flow", "velocity", VelocityMSEConfig),
])  # fmt: skip
def test_denoising_losses_agree(device, exact_float32, process, preconditioning, loss):
    torch.manual_seed(0)
    x0, condition, values = torch.randn(4, 1, 16, 16, 16).clamp(-1, 1), torch.rand(4, 2, 16, 16), []
    for where in ("cpu", device):
        denoiser, network = denoiser_on(where, process, preconditioning)
        total, _ = loss().build()(denoiser, x0.to(where), condition.to(where), torch.Generator().manual_seed(3))
        total.backward()
        values.append((total.detach().cpu(), network.weight.grad.cpu()))
    torch.testing.assert_close(values[0][0], values[1][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values[0][1], values[1][1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("name", ["shape_rbc", "shape_nuclei"])
def test_shipped_shape_weights_agree(device, exact_float32, name, precision):
    config = load_config(name, [])
    path = weights_path(name, "init_from")
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    mask = ((y / 0.6) ** 2 + (x / 0.5) ** 2 < 1).float()[None]
    image = (0.5 + 0.2 * y)[None] * mask
    volumes = []
    for where, how in (("cpu", "32-true"), (device, precision)):
        module = build_from_weights(config, read_weights(config, [path])).to(where).eval()
        assert isinstance(module, ShapeModule)
        with autocast(where, how):
            shapes = module.shapes(image.to(where), mask.to(where), 5, 8)
        volumes.append(shapes.samples_NZYX.sum((1, 2, 3)).double())
    relative = (volumes[1] - volumes[0]).abs() / volumes[0]
    assert float(relative.max()) < (0.001 if precision == "32-true" else 0.02)
