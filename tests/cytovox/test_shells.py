"""Contrast between both sides of a surface, against known answers."""

import math

import numpy as np
import pytest

from cytovox.shells import SHELL_UM, shells_of

SPACING = (0.25, 0.2, 0.2)
Z, Y, X = (
    a * s for a, s in zip(np.mgrid[-24:24, -32:32, -32:32], SPACING, strict=True)
)  # fmt: skip
NUCLEUS, CELL = Z**2 + Y**2 + X**2 < 2**2, Z**2 + Y**2 + X**2 < 5**2


@pytest.mark.parametrize("contrast", [0.0, 0.004, -0.006])
def test_contrast_is_the_difference_over_the_deviation(contrast):
    ri = 1.346 + contrast * NUCLEUS + np.random.default_rng(0).normal(0, 0.002, CELL.shape)
    found = shells_of(ri, NUCLEUS, CELL & ~NUCLEUS, SPACING)
    assert found.difference == pytest.approx(contrast, abs=1e-4)
    assert found.contrast == pytest.approx(contrast / 0.002, abs=0.08)


def test_only_voxels_close_to_the_surface_count():
    """What lies deeper, or further away, than the shells does not change the contrast."""
    radius = np.sqrt(Z**2 + Y**2 + X**2)
    ri = np.where(NUCLEUS, 2.0, 1.0) + 0.1 * (X > 0)
    other = np.where((radius < 2 - SHELL_UM - 0.3) | (radius > 2 + SHELL_UM + 0.3), 50.0, ri)
    assert (
        shells_of(other, NUCLEUS, CELL & ~NUCLEUS, SPACING).contrast
        == shells_of(ri, NUCLEUS, CELL & ~NUCLEUS, SPACING).contrast
    )


def test_an_empty_side_and_constant_values():
    assert math.isnan(shells_of(X, NUCLEUS, np.zeros_like(CELL), SPACING).contrast)
    assert shells_of(NUCLEUS * -1.0, NUCLEUS, CELL & ~NUCLEUS, SPACING).contrast == -math.inf
    assert shells_of(np.ones(CELL.shape), NUCLEUS, CELL & ~NUCLEUS, SPACING).contrast == 0
