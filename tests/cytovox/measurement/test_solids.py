"""Solids from outlines whose ellipse is known."""

import math

import numpy as np
import pytest
from skimage.measure import EllipseModel

from cytovox.measurement.solids import Ellipse, cylinder, ellipsoid, fit_ellipse, outline_ellipse


def drawn(
    semi_major: float, semi_minor: float, angle: float, centre_yx: tuple[float, float] = (30.0, 34.0)
) -> np.ndarray:
    y, x = np.indices((64, 64), dtype=float)
    y, x = y - centre_yx[0], x - centre_yx[1]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return (along / semi_major) ** 2 + (across / semi_minor) ** 2 <= 1


@pytest.mark.parametrize("angle", [0.0, 0.5, math.pi / 2, 2.4])
def test_the_ellipse_of_a_drawn_ellipse_is_that_ellipse(angle: float):
    got = outline_ellipse(drawn(20, 11, angle))
    assert got.centre_yx == pytest.approx((30, 34), abs=0.1)
    assert (got.semi_major, got.semi_minor) == pytest.approx((20, 11), abs=0.3)
    turn = (got.angle - angle) % math.pi
    assert min(turn, math.pi - turn) < 0.02


def test_a_disc_is_a_circle_whatever_its_angle():
    got = outline_ellipse(drawn(14, 14, 0))
    assert (got.semi_major, got.semi_minor) == pytest.approx((14, 14), abs=0.3)
    assert math.isfinite(got.angle)


def test_holes_and_specks_do_not_move_the_outline():
    mask = drawn(20, 11, 0.5)
    marred = mask.copy()
    marred[28:32, 33:36] = False
    marred[2:4, 2:4] = True
    assert outline_ellipse(marred) == outline_ellipse(mask)


@pytest.mark.parametrize("mask", [np.eye(64, dtype=bool), np.arange(64 * 64).reshape(64, 64) == 70])
def test_a_line_and_a_single_pixel_still_have_an_ellipse_within_the_plane(mask: np.ndarray):
    got = outline_ellipse(mask)
    assert 0 < got.semi_minor <= got.semi_major < 64 * math.sqrt(2)
    assert ellipsoid(mask).shape == (64, 64, 64)


def test_a_cylinder_is_the_filled_mask_half_as_high_as_wide():
    mask = drawn(16, 16, 0)
    holed = mask.copy()
    holed[28:31, 30:36] = False
    obj = cylinder(holed)
    slices = np.flatnonzero(obj.any(axis=(1, 2)))
    assert len(slices) == 16
    assert (slices[0], slices[-1]) == (24, 39)
    assert all((obj[z] == mask).all() for z in slices)


@pytest.mark.parametrize("height", [1, 2, 7, 64])
def test_a_cylinder_of_a_given_height_holds_the_known_slice(height: int):
    mask = drawn(9, 6, 1.0)
    obj = cylinder(mask, height)
    assert obj.sum() == height * mask.sum()
    assert (obj[32] == mask).all()


def test_an_ellipsoid_has_the_volume_of_its_axes_and_the_ellipse_as_its_slice():
    mask = drawn(20, 12, 0.7)
    obj = ellipsoid(mask)
    assert obj.sum() == pytest.approx(4 / 3 * math.pi * 20 * 12 * 8, rel=0.05)
    assert (obj[32] ^ mask).sum() < 0.03 * mask.sum()
    heights = np.flatnonzero(obj.any(axis=(1, 2)))
    assert (heights[0], heights[-1]) == (24, 40)


def test_the_mean_semi_axis_is_the_mean():
    assert Ellipse((0, 0), 3, 2, 0).mean_semi_axis == 2.5


def test_empty_masks_and_impossible_heights_are_refused():
    empty = np.zeros((64, 64), bool)
    for solid in (cylinder, ellipsoid):
        with pytest.raises(ValueError, match="empty mask"):
            solid(empty)
    for height in (0, 65):
        with pytest.raises(ValueError, match="1 to 64"):
            cylinder(drawn(9, 6, 0), height)


@pytest.mark.parametrize("seed", range(20))
def test_the_fit_is_that_of_scikit_image(seed: int):
    """Noisy points on part of an outline; scikit-image's fit works with numpy before 2.5."""
    if np.lib.NumpyVersion(np.__version__) >= "2.5.0":
        pytest.skip("scikit-image 0.26 cannot fit with this numpy")
    rng = np.random.default_rng(seed)
    angle, major, minor = rng.uniform(0, np.pi), rng.uniform(12, 30), rng.uniform(5, 11)
    t = rng.uniform(0, 5.0, 80)
    along, across = major * np.cos(t), minor * np.sin(t)
    x = 40 + along * np.cos(angle) - across * np.sin(angle) + rng.normal(0, 0.1, 80)
    y = 30 + along * np.sin(angle) + across * np.cos(angle) + rng.normal(0, 0.1, 80)
    expected, got = EllipseModel.from_estimate(np.stack([x, y], 1)), fit_ellipse(np.stack([y, x], 1))
    assert got is not None
    assert got.centre_yx[::-1] == pytest.approx(expected.center, abs=1e-6)
    assert (got.semi_major, got.semi_minor) == pytest.approx(sorted(expected.axis_lengths, reverse=True), abs=1e-6)
    turn = (got.angle - expected.theta) % np.pi
    assert min(turn, np.pi - turn) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.arange(12.0).reshape(6, 2), np.eye(2)])
def test_points_that_no_ellipse_fits_have_none(points: np.ndarray):
    assert fit_ellipse(points) is None
