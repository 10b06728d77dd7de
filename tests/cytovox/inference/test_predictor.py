import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cytovox.errors import InputError
from cytovox.inference.predictor import DenseInferer, probability_predictor
from cytovox.inference.tiling import SlidingWindow
from cytovox.preprocess.intensity import NormaliseRI
from cytovox.preprocess.resampling import ResampleTo

SMALL = SlidingWindow((8, 8, 8), (4, 4, 4), pad_yx=(4, 4))


class Logit(nn.Module):
    """Gives back its input as probability, and the rest as a second channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.training_seen = self.training
        return torch.cat([x.logit(1e-6), (1 - x).logit(1e-6)], dim=1)


def smooth_ri(shape: tuple[int, int, int]) -> np.ndarray:
    z, y, x = np.meshgrid(*[np.linspace(0, 1, n) if n > 1 else np.zeros(1) for n in shape], indexing="ij")
    return (1.35 + 0.01 * np.cos(2 * z) * np.cos(3 * y) * np.cos(2 * x)).astype(np.float32)


def test_an_identity_on_the_own_grid_returns_the_normalised_frame():
    ri = smooth_ri((11, 19, 9))
    probabilities = DenseInferer(Logit(), ResampleTo(grid=(11, 19, 9)), SMALL)(ri, (0.2, 0.1, 0.1))
    assert probabilities.shape == (2, 11, 19, 9)
    assert probabilities.dtype == np.float32
    expected = NormaliseRI()(ri)
    np.testing.assert_allclose(probabilities[0], expected, atol=1e-4)
    np.testing.assert_allclose(probabilities[1], 1 - expected, atol=1e-4)


@pytest.mark.parametrize("resample", [ResampleTo(grid=(16, 40, 40)), ResampleTo(spacing_um=(0.15, 0.14, 0.17))])
def test_another_grid_brings_a_smooth_frame_back_to_its_own(resample):
    ri = smooth_ri((20, 24, 28))
    probabilities = DenseInferer(Logit(), resample, SMALL)(ri, (0.2, 0.2, 0.2))
    np.testing.assert_allclose(probabilities[0], NormaliseRI()(ri), atol=0.03)


@settings(deadline=None, max_examples=25)
@given(st.tuples(*[st.integers(1, 14)] * 3), st.sampled_from(["tile", "center", "middle"]))
def test_any_size_of_frame_gives_probabilities_of_that_size(shape, z):
    tiling = SlidingWindow((8, 8, 8), (5, 8, 3), pad_yx=(2, 3), z=z)
    infer = DenseInferer(Logit(), ResampleTo(spacing_um=(0.3, 0.2, 0.2)), tiling)
    probabilities = infer(np.full(shape, 1.3635), (0.2, 0.2, 0.3))
    assert probabilities.shape == (2, *shape)
    assert np.isfinite(probabilities).all()
    if z == "tile":
        np.testing.assert_allclose(probabilities, 0.5, atol=1e-4)


def test_probabilities_are_averaged_not_logits():
    values = iter([-20.0, 0.0])
    network = nn.Identity()
    network.forward = lambda x: torch.full_like(x, next(values))  # type: ignore[method-assign]
    tiling = SlidingWindow((1, 1, 8), (1, 1, 4), weight="constant", pad_yx=(0, 0))
    result = DenseInferer(network, ResampleTo(grid=(1, 1, 12)), tiling)(np.full((1, 1, 12), 1.35), (1, 1, 1))
    np.testing.assert_allclose(result[0, 0, 0, 4:8], 0.25, atol=1e-6)  # the mean logit would give 0.00005


@pytest.mark.parametrize("training", [True, False])
def test_the_network_predicts_in_evaluation_mode_and_is_left_as_it_was(training):
    network = Logit().train(training)
    DenseInferer(network, ResampleTo(grid=(8, 8, 8)), SMALL)(smooth_ri((8, 8, 8)), (1, 1, 1))
    assert not network.training_seen
    assert network.training is training


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16-mixed", 0.02), ("16-mixed", 0.003)])
def test_half_precision_and_channels_last_agree_with_float32(precision, tolerance):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.LeakyReLU(), nn.Conv3d(8, 4, 3, padding=1))
    ri, grid = smooth_ri((10, 20, 20)), ResampleTo(grid=(10, 20, 20))
    reference = DenseInferer(network, grid, SMALL)(ri, (1, 1, 1))
    faster = DenseInferer(network, grid, SMALL, precision=precision, channels_last=True)(ri, (1, 1, 1))
    assert faster.dtype == np.float32
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    np.testing.assert_allclose(faster, reference, atol=tolerance)


def test_the_sigmoid_is_taken_in_float32():
    predict = probability_predictor(lambda windows: torch.full_like(windows, -9.0).half())
    probabilities = predict(torch.zeros((1, 1, 2, 2, 2)))
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities, torch.full_like(probabilities, 1.2339458e-4))


def test_an_unknown_precision_is_an_input_error():
    with pytest.raises(InputError, match="bf16-mixed"):
        DenseInferer(Logit(), ResampleTo(grid=(8, 8, 8)), SMALL, precision="fp8")
