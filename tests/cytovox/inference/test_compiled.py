"""torch.compile and CUDA graphs through the inference engine."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from cytovox.errors import InputError
from cytovox.inference.predictor import DenseInferer
from cytovox.inference.tiling import SlidingWindow
from cytovox.preprocess.resampling import ResampleTo

RI = np.random.default_rng(0).uniform(1.33, 1.40, (8, 20, 20)).astype(np.float32)
GRID = ResampleTo(grid=(6, 20, 18))


def tiling_of(batch: int, **more) -> SlidingWindow:
    return SlidingWindow((4, 8, 8), (2, 4, 4), pad_yx=(0, 0), sw_batch_size=batch, **more)


def network_of() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.ReLU(), nn.Conv3d(4, 2, 1))


class Look(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.seen = network_of(), []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(x.shape))
        return self.inner(x)


def test_cuda_graphs_are_refused_without_cuda():
    with pytest.raises(InputError, match="expected a CUDA device, got cpu"):
        DenseInferer(network_of(), GRID, tiling_of(2), compile="cuda_graphs")


def test_an_unknown_compile_mode_is_refused():
    with pytest.raises(InputError, match="expected one of none, default, cuda_graphs"):
        DenseInferer(network_of(), GRID, tiling_of(2), compile="max-autotune")


@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("skip", [None, 0.3])
def test_all_batches_have_one_shape_and_give_the_same(layers, skip, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: network)
    expected = DenseInferer(network_of(), GRID, tiling_of(5, skip_below=skip), layers=layers)(RI, (1, 1, 1))
    network = Look()
    inferer = DenseInferer(network, GRID, tiling_of(5, skip_below=skip), layers=layers, compile="default")
    np.testing.assert_allclose(inferer(RI, (1, 1, 1)), expected, atol=1e-6)
    assert set(network.seen) == {(5, 1, 4, 8, 8)}
    assert len(tiling_of(5).windows((6, 20, 18))) % 5


def test_the_compiled_network_is_called(monkeypatch):
    called = []

    def backend(module, inputs):
        called.append(inputs)
        return module.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    expected = DenseInferer(network_of(), GRID, tiling_of(5))(RI, (1, 1, 1))
    compiled = DenseInferer(network_of(), GRID, tiling_of(5), compile="default")
    np.testing.assert_allclose(compiled(RI, (1, 1, 1)), expected, atol=1e-6)
    compiled(RI, (1, 1, 1))
    assert len(called) == 1  # no batch is compiled again


def test_a_compiler_that_fails_ends_in_one_line(monkeypatch):
    def backend(module, inputs):
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    with pytest.raises(InputError, match="choose compile none") as caught:
        DenseInferer(network_of(), GRID, tiling_of(5), compile="default")(RI, (1, 1, 1))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_default_compiler_gives_the_same_on_a_cpu():
    expected = DenseInferer(network_of(), GRID, tiling_of(4))(RI, (1, 1, 1))
    compiled = DenseInferer(network_of(), GRID, tiling_of(4), compile="default")
    np.testing.assert_allclose(compiled(RI, (1, 1, 1)), expected, atol=1e-5)
