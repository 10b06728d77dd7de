"""Every loss, sampler and network by name on a device that is not the CPU, and the inference engine in its variants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cytovox.diffusion.parts import DENOISING_LOSSES, PRECONDITIONINGS, PROCESSES, SAMPLERS, combination_errors
from cytovox.diffusion.preconditioning import Denoiser
from cytovox.inference.predictor import DenseInferer
from cytovox.inference.tiling import SlidingWindow
from cytovox.losses.segmentation import LOSSES
from cytovox.networks.dispr_unet import DISPRUNetConfig
from cytovox.networks.registry import NETWORKS
from cytovox.preprocess.resampling import ResampleTo
from tests.device.fake_device import FakeTensor, Watch, device
from tests.device.test_tasks_on_a_device import unstated

DATA = torch.rand(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1


def on(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(device(), non_blocking=True)


def combinations() -> list[tuple[str, str, str, str]]:
    """Every set of parts of a shape model that goes together."""
    found = []
    for process, kind in PROCESSES.items():
        for preconditioning, how in PRECONDITIONINGS.items():
            for loss, error in DENOISING_LOSSES.items():
                for sampler, walk in SAMPLERS.items():
                    if not combination_errors(kind(), how(), error(), walk()):
                        found.append((process, preconditioning, loss, sampler))
    return found


def test_every_model_of_shapes_learns_and_samples_without_a_wait(watch: Watch) -> None:
    x0, condition = on(DATA), on(torch.ones(2, 2, 4, 4))
    chosen = combinations()
    assert {part for parts in chosen for part in parts} >= {*PROCESSES, *DENOISING_LOSSES, *SAMPLERS}
    for process, preconditioning, loss, sampler in chosen:
        how, walk = PRECONDITIONINGS[preconditioning](), SAMPLERS[sampler]()
        if hasattr(walk, "steps"):
            walk.steps = 2
        walk.clip = [-1.0, 1.0]
        scale = on(torch.tensor([0.5])).requires_grad_()

        def network(x: torch.Tensor, t: torch.Tensor, _: torch.Tensor, n: int = how.outputs) -> torch.Tensor:
            return torch.cat([x * scale + t[:, None, None, None, None] / 1000] * n, dim=1)  # noqa: B023

        denoiser = Denoiser(network, PROCESSES[process]().build(), how.build())
        total, parts = DENOISING_LOSSES[loss]().build()(denoiser, x0, condition)
        total.backward()
        found = walk.build()(denoiser, (1, 4, 4, 4), condition, torch.Generator().manual_seed(1))
        assert all(isinstance(value, FakeTensor) for value in (scale.grad, found, *parts.values()))
    assert watch.table() == {}


def test_a_sample_of_the_device_is_that_of_the_cpu(watch: Watch) -> None:
    """A seed names the same sample everywhere."""
    process, walk = PROCESSES["linear_betas"]().build(), SAMPLERS["ddim"]().build()
    denoiser = Denoiser(lambda x, t, c: x / 2, process, PRECONDITIONINGS["data"]().build())
    ours, theirs = (
        walk(denoiser, (1, 4, 4, 4), condition, torch.Generator().manual_seed(5)).cpu()
        for condition in (on(torch.ones(2, 2, 4, 4)), torch.ones(2, 2, 4, 4))
    )
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("pool", [False, True])
def test_every_loss_of_organelles(watch: Watch, name: str, pool: bool) -> None:
    config: Any = LOSSES[name]()
    config.batch, config.organelle_weights = pool, [1.0, 2.0]
    loss = config.build().to(device())
    before = len(watch.syncs)
    logits = on(torch.randn(2, 2, 4, 4, 4)).requires_grad_()
    labelled = on(torch.tensor([[True, False], [True, True]]))
    loss(logits, on((torch.rand(2, 2, 4, 4, 4) > 0.5).byte()), labelled).sum().backward()
    assert isinstance(logits.grad, FakeTensor)
    assert watch.table(before) == {}


@pytest.mark.parametrize("precision", [None, torch.float16])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network(watch: Watch, name: str, precision: torch.dtype | None) -> None:
    config: Any = NETWORKS[name]()
    config = type(config)(channels=[8, 16]) if name == "residual_unet" else type(config)(width=2, layers=2)
    network = config.build(1, 2).to(device())
    before = len(watch.syncs)
    with torch.autocast(device().type, precision or torch.float16, enabled=precision is not None):
        network(on(torch.rand(1, 1, 6, 8, 8))).float().sum().backward()
    assert all(isinstance(p.grad, FakeTensor) for p in network.parameters())
    assert watch.table(before) == {}


def test_the_network_of_dispr_with_attention(watch: Watch) -> None:
    network = DISPRUNetConfig(multipliers=[1, 1], attention_levels=[1]).build(64, outputs=2).to(device())
    before = len(watch.syncs)
    found = network(on(torch.rand(1, 1, 4, 8, 8)), on(torch.tensor([3.0])), on(torch.rand(1, 2, 8, 8)))
    assert found.shape == (1, 2, 4, 8, 8)
    assert watch.table(before) == {}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"z": "center", "weight": "gaussian", "pad_yx": (4, 4)},
        {"skip_below": 0.01, "sw_batch_size": 3, "pad_mode": "constant"},
    ],
)
@pytest.mark.parametrize("members", [1, 2])
def test_the_engine_gives_on_the_device_what_it_gives_on_the_cpu(
    watch: Watch, tmp_path: Path, options: dict[str, Any], members: int
) -> None:
    rng = np.random.default_rng(0)
    ri = (1.337 + 0.04 * rng.random((11, 20, 22))).astype(np.float32)
    ri[:, :, :12] = 1.33  # medium, which may be skipped

    def predict(where: str) -> np.ndarray:
        torch.manual_seed(0)
        networks = [torch.nn.Conv3d(1, 2, 3, padding=1) for _ in range(members)]
        tiling = SlidingWindow(window=(8, 8, 8), stride=(4, 4, 4), **{"pad_yx": (0, 0), **options})
        engine = DenseInferer(
            networks, ResampleTo(spacing_um=(1.0, 1.0, 1.0)), tiling, device=where, flips=("x",) if members > 1 else (),
            memory_gb=1e-6, scratch=tmp_path,
        )  # fmt: skip
        return engine(ri, (0.8, 1.0, 1.1))

    np.testing.assert_allclose(predict(str(device())), predict("cpu"), atol=1e-6)
    assert unstated(watch.syncs) == set()
