"""Model of the microscope, compared with analytical results."""

from functools import lru_cache

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.simulation.optics import Optics, coherent_noise, fill_cone, measure, potential, refractive_index, support
from cytovox.simulation.tomogram import image

MEDIUM = 1.337
SHAPE = (48, 48, 48)
SPACING = (0.25, 0.25, 0.25)


def ball(radius_um: float, contrast: float) -> tuple[np.ndarray, np.ndarray]:
    """Index of a ball in the middle, and the distance of every voxel from its centre (µm)."""
    z, y, x = ((np.arange(n) - n // 2) * s for n, s in zip(SHAPE, SPACING, strict=True))
    distance = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    return MEDIUM + contrast * np.clip((radius_um - distance) / SPACING[0] + 0.5, 0, 1), distance


@lru_cache(maxsize=4)
def observed(rounds: int = 40) -> np.ndarray:
    return image(ball(4.0, 0.02)[0], SPACING, MEDIUM, 0.0, Optics(rounds=rounds), np.random.default_rng(0))


def test_measured_frequencies_lie_on_ewald_caps():
    optics = Optics()
    measured = support(SHAPE, SPACING, MEDIUM, optics)
    kz, ky, kx = np.meshgrid(
        *(np.fft.fftfreq(n, s) for n, s in zip(SHAPE[:2], SPACING[:2], strict=True)),
        np.fft.rfftfreq(SHAPE[2], SPACING[2]),
        indexing="ij",
    )
    wave, sine = MEDIUM / optics.wavelength_um, optics.sine(MEDIUM)
    deepest = wave * (1 - np.sqrt(1 - sine**2))
    half_bin = 0.5 / (SHAPE[0] * SPACING[0])
    assert np.abs(kz[measured]).max() <= deepest + half_bin
    assert np.hypot(ky, kx)[measured].max() <= 2 * wave * sine
    # the normal illumination alone: kz = sqrt(k^2 - kx^2) - k, checked at one frequency of the x axis
    i = 10
    drop = np.sqrt(wave**2 - kx[0, 0, i] ** 2) - wave
    assert measured[round(drop * SHAPE[0] * SPACING[0]), 0, i]


def test_only_the_mean_is_measured_on_the_optical_axis():
    measured = support(SHAPE, SPACING, MEDIUM, Optics())
    assert measured[0, 0, 0]
    assert not measured[1:, 0, 0].any()


def test_the_aperture_limits_the_angle_in_a_denser_medium():
    assert Optics().sine(1.3337) == pytest.approx(1.2 / 1.3337)
    assert Optics().sine(1.40) == pytest.approx(1.2 / 1.40)
    assert Optics().sine(1.0) == pytest.approx(np.sin(np.deg2rad(64.5)))


@settings(deadline=None, max_examples=15)
@given(
    shape=st.tuples(*[st.integers(9, 24)] * 3),
    spacing=st.tuples(*[st.sampled_from([0.15, 0.3, 0.5, 1.0])] * 3),
    medium=st.floats(1.33, 1.36),
)
def test_the_support_is_symmetric_about_the_origin(shape, spacing, medium):
    half = support(shape, spacing, medium, Optics(illuminations=12))
    noise = scipy.fft.irfftn(half.astype(np.complex64), shape)
    again = scipy.fft.rfftn(noise)
    np.testing.assert_allclose(again, half, atol=1e-4)  # a half spectrum that is not closed would not come back


def test_refractive_index_inverts_potential():
    ri = np.linspace(1.33, 1.45, 50, dtype=np.float32)
    np.testing.assert_allclose(refractive_index(potential(ri, MEDIUM), MEDIUM), ri, atol=2e-6)


def test_full_support_reproduces_the_object():
    truth = potential(ball(3.0, 0.03)[0], MEDIUM)
    everything = np.ones((*SHAPE[:2], SHAPE[2] // 2 + 1), bool)
    value = fill_cone(measure(truth, everything), everything, SHAPE, rounds=5)
    np.testing.assert_allclose(value, truth, atol=1e-5)


def test_filling_the_cone_keeps_measured_frequencies():
    truth = potential(ball(3.0, 0.03)[0], MEDIUM)
    measured = support(SHAPE, SPACING, MEDIUM, Optics())
    spectrum = measure(truth, measured)
    again = scipy.fft.rfftn(fill_cone(spectrum, measured, SHAPE, rounds=10))
    np.testing.assert_allclose(again[measured], spectrum[measured], atol=1e-2 * np.abs(spectrum).max() / 100)


def test_a_ball_keeps_its_index_within_a_few_percent():
    distance = ball(4.0, 0.02)[1]
    assert (observed()[distance < 3].mean() - MEDIUM) / 0.02 == pytest.approx(1.0, abs=0.06)


def test_a_ball_is_elongated_along_the_optical_axis_only():
    value = observed() - MEDIUM
    center = SHAPE[0] // 2
    beyond = round(4.25 / SPACING[0])  # the first voxel outside
    above = value[[center - beyond, center + beyond], center, center].mean()
    beside = value[center, [center - beyond, center + beyond]][:, center].mean()
    assert above > 0.001
    assert above > 4 * abs(beside)


def test_the_non_negativity_iteration_reduces_the_error_of_a_ball():
    truth = ball(4.0, 0.02)[0]
    error = [float(np.sqrt(np.mean((observed(rounds) - truth) ** 2))) for rounds in (0, 10, 40)]
    assert error[2] < error[1] < 0.7 * error[0]


def test_a_flat_disc_loses_more_contrast_than_a_ball():
    z, y, x = ((np.arange(n) - n // 2) * s for n, s in zip(SHAPE, SPACING, strict=True))
    disc = (np.abs(z)[:, None, None] < 0.75) & (np.hypot(y[:, None], x) < 4)
    value = image(MEDIUM + 0.02 * disc, SPACING, MEDIUM, 0.0, Optics(), np.random.default_rng(0))
    core = disc & (np.hypot(y[:, None], x) < 2)
    assert (value[core].mean() - MEDIUM) / 0.02 < 0.95


def test_noise_has_the_given_standard_deviation():
    measured = support(SHAPE, SPACING, MEDIUM, Optics())
    spectrum = coherent_noise(np.random.default_rng(1), measured, SHAPE, fringes=0)
    noise = scipy.fft.irfftn(spectrum, SHAPE)
    assert noise.std() == pytest.approx(1.0, rel=0.05)
    assert noise.dtype == np.float32
