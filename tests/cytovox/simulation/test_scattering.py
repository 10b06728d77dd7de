"""Multi-slice propagation and its reconstruction against the single-scattering model and closed forms."""

import numpy as np
import pytest
import scipy.fft

from cytovox.simulation.optics import Optics, measure, potential, support
from cytovox.simulation.scattering import scatter, unwrap
from cytovox.simulation.tomogram import image

MEDIUM = 1.337
OPTICS = Optics(numerical_aperture=1.0, half_angle_deg=90, illuminations=24, rounds=10, multiple_scattering=True)


def ball(radius_um: float, shape, spacing, shift=(0.0, 0.0, 0.0)) -> np.ndarray:
    axes = [(np.arange(n) - n / 2) * s - d for n, s, d in zip(shape, spacing, shift, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 <= radius_um**2


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((40, 64, 64), (0.3, 0.25, 0.25)), ((36, 45, 60), (0.4, 0.35, 0.3)), ((41, 63, 64), (0.25, 0.25, 0.22))],
)
def test_a_weak_object_is_measured_as_with_single_scattering(shape, spacing):
    index = (MEDIUM + 0.001 * ball(1.8, shape, spacing, (0.6, -1.0, 1.5))).astype(np.float32)
    spectrum, measured = scatter(index, spacing, MEDIUM, OPTICS)
    expected = measure(potential(index, MEDIUM), support(shape, spacing, MEDIUM, OPTICS))
    found, wanted = (scipy.fft.irfftn(s, shape) for s in (spectrum, expected))
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.95
    middle = ball(0.9, shape, spacing, (0.6, -1.0, 1.5))
    assert found[middle].mean() == pytest.approx(wanted[middle].mean(), rel=0.12)
    assert not spectrum[~measured].any()


def test_the_index_of_a_ball_is_recovered():
    shape, spacing = (40, 64, 64), (0.3, 0.25, 0.25)
    index = (MEDIUM + 0.008 * ball(2.5, shape, spacing, (0.6, 0, 0))).astype(np.float32)
    seen = image(index, spacing, MEDIUM, 0.0, OPTICS, np.random.default_rng(0)) - MEDIUM
    assert seen[ball(1.2, shape, spacing, (0.6, 0, 0))].mean() == pytest.approx(0.008, rel=0.25)
    assert abs(seen[ball(0.8, shape, spacing, (0, 6, 6))].mean()) < 0.0008


def test_a_dense_object_is_distorted_and_a_weak_one_is_not():
    """The error relative to the contrast grows with the contrast, as it does not with single scattering."""
    shape, spacing = (40, 64, 64), (0.3, 0.25, 0.25)
    inside, core = ball(4.0, shape, spacing), ball(3.2, shape, spacing)
    errors = {}
    for contrast in (0.001, 0.03):
        index = (MEDIUM + contrast * inside).astype(np.float32)
        spectrum, _ = scatter(index, spacing, MEDIUM, OPTICS)
        errors[contrast] = scipy.fft.irfftn(spectrum, shape)[core].std() / contrast
    assert errors[0.03] > 1.5 * errors[0.001]


@pytest.mark.parametrize("height", [0.5, 3.0, 20.0])
def test_a_phase_is_unwrapped(height):
    y, x = np.mgrid[-50:50, -40:40] * 0.2
    true = height * np.exp(-((y - 1) ** 2 + x**2) / 12)
    assert np.allclose(unwrap(np.angle(np.exp(1j * true))), true, atol=1e-9)


def test_noise_of_a_field_does_not_stop_the_unwrapping():
    phase = np.random.default_rng(0).uniform(-np.pi, np.pi, (60, 70))
    found = unwrap(phase)
    assert np.allclose(np.angle(np.exp(1j * (found - phase))), 0, atol=1e-9)
