"""Spectra of clouds of directions, by the addition theorem and by what is plain to see."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.special import eval_legendre

from cytovox.measurement.spherical import power_spectrum


def test_one_direction_has_all_power_in_every_degree_and_its_opposite_only_in_the_even():
    one = np.array([[0.3, -2.0, 1.1]])
    assert power_spectrum(one, np.ones(1), 6) == pytest.approx(1)
    both = power_spectrum(np.concatenate([one, -3 * one]), np.ones(2), 6)
    assert both == pytest.approx([0, 1, 0, 1, 0, 1], abs=1e-12)


def test_it_is_the_mean_legendre_polynomial_of_the_angle_between_two_directions():
    rng = np.random.default_rng(0)
    vectors, weights = rng.normal((0.5, 0, 0), size=(40, 3)), rng.random(40)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    share = weights / weights.sum()
    expected = [np.sqrt(share @ eval_legendre(n, unit @ unit.T) @ share) for n in range(1, 10)]
    assert power_spectrum(vectors, weights, 9) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_no_rotation_changes_it(seed):
    rng = np.random.default_rng(seed)
    vectors, weights = rng.normal(size=(200, 3)) * [1, 2, 3], rng.random(200)
    turned = Rotation.random(rng=rng).apply(vectors)
    assert power_spectrum(turned, weights, 8) == pytest.approx(power_spectrum(vectors, weights, 8), rel=1e-9)
