"""Areas and curvatures of bodies whose answer is in a book."""

import numpy as np
import pytest
from skimage.measure import marching_cubes, mesh_surface_area

from cytovox.measurement.surface import outline, surface


def grid(shape, spacing, centre):
    axes = [(np.arange(n) * s - c) for n, s, c in zip(shape, spacing, centre, strict=True)]
    return np.meshgrid(*axes, indexing="ij")


def ball(radius, spacing, shift=(0.0, 0.0, 0.0)):
    shape = [int(np.ceil(2 * (radius + max(spacing)) / s)) + 3 for s in spacing]
    centre = [((n - 1) / 2 + o) * s for n, s, o in zip(shape, spacing, shift, strict=True)]
    return sum(x**2 for x in grid(shape, spacing, centre)) <= radius**2


@pytest.mark.parametrize(
    ("spacing", "within"), [((1.0, 1.0, 1.0), 0.025), ((0.5, 0.2, 0.2), 0.002), ((0.1, 0.3, 0.2), 0.002)]
)
def test_a_ball_has_the_area_of_a_ball_and_not_of_its_staircase(spacing, within):
    mask, true = ball(5.0, spacing, (0.2, -0.3, 0.1)), 4 * np.pi * 25
    assert surface(mask, spacing).area_um2 == pytest.approx(true, rel=within)
    stairs = mesh_surface_area(*marching_cubes(np.pad(mask, 1).astype(float), 0.5, spacing=spacing)[:2])
    assert stairs > 1.06 * true


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.4, 0.3)])
def test_curvature_of_a_ball_is_one_over_its_radius_everywhere(spacing):
    found = surface(ball(7.0, spacing), spacing)
    weight = found.vertex_area_V / found.area_um2
    assert weight @ found.mean_curvature_V == pytest.approx(1 / 7, rel=0.015)
    assert weight @ found.gaussian_curvature_V == pytest.approx(1 / 49, rel=0.03)
    assert np.quantile(np.abs(found.mean_curvature_V * 7 - 1), 0.95) < 0.15
    assert found.volume_um3 == pytest.approx(ball(7.0, spacing).sum() * np.prod(spacing), rel=1e-3)


def test_a_cylinder_has_half_the_mean_curvature_and_no_gaussian():
    z, y, x = grid((60, 31, 31), (1, 1, 1), (29.5, 15, 15))
    found = surface((y**2 + x**2 <= 10**2) & (np.abs(z) < 28))
    middle = np.abs(found.vertices_V3[:, 0] - 29.5) < 15
    assert found.mean_curvature_V[middle].mean() == pytest.approx(1 / 20, rel=0.03)
    assert np.abs(found.gaussian_curvature_V[middle]).max() < 0.15 / 100


def test_a_cavity_is_concave_and_counts_as_surface():
    _, whole = ball(12.0, (1, 1, 1)), surface(ball(12.0, (1, 1, 1)))
    z, y, x = grid((29, 29, 29), (1, 1, 1), (14, 14, 14))
    radius = np.sqrt(z**2 + y**2 + x**2)
    hollow = surface((radius <= 12) & (radius > 6))
    assert hollow.area_um2 == pytest.approx(4 * np.pi * (144 + 36), rel=0.03)
    assert hollow.area_um2 > 1.2 * whole.area_um2
    inner = np.linalg.norm(hollow.vertices_V3 - 14, axis=1) < 9
    assert hollow.mean_curvature_V[inner].mean() == pytest.approx(-1 / 6, rel=0.06)


def test_gauss_and_bonnet_hold_on_a_torus_and_a_ball():
    z, y, x = grid((21, 47, 47), (1, 1, 1), (10, 23, 23))
    torus = surface((np.hypot(y, x) - 15) ** 2 + z**2 <= 36)
    assert torus.area_um2 == pytest.approx(4 * np.pi**2 * 15 * 6, rel=0.01)
    assert torus.gaussian_curvature_V @ torus.vertex_area_V == pytest.approx(0, abs=0.04 * 4 * np.pi)
    assert np.quantile(torus.gaussian_curvature_V, 0.05) == pytest.approx(-1 / (6 * 9), rel=0.15)


def test_a_mask_on_the_border_is_closed_there():
    found = surface(np.ones((20, 20, 20), bool))
    assert found.volume_um3 == pytest.approx(8000, rel=1e-3)
    # its edges and corners are rounded off by the blur
    assert 0.9 * 2400 < found.area_um2 < 2400


def test_one_voxel_and_a_thin_sheet_have_a_surface_with_bounded_curvature():
    single = np.zeros((5, 5, 5), bool)
    single[2, 2, 2] = True
    sheet = np.zeros((9, 30, 30), bool)
    sheet[4, 2:28, 2:28] = True
    for mask in (single, sheet):
        found = surface(mask, (0.5, 0.2, 0.2))
        assert found.area_um2 > 0
        assert np.abs(found.mean_curvature_V).max() <= 2.0 + 1e-9
        assert np.isfinite(found.gaussian_curvature_V).all()


def test_a_mask_far_from_the_first_voxel_keeps_its_place():
    mask = np.zeros((30, 40, 50), bool)
    mask[20:27, 10:17, 33:40] = True
    found = surface(mask, (1.0, 0.5, 2.0))
    assert found.vertices_V3.mean(axis=0) == pytest.approx([23.0, 6.5, 72.0], abs=0.05)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.6, 0.3)])
def test_the_outline_of_a_disc_is_a_circle(spacing):
    y, x = grid((80, 120), spacing, (40 * spacing[0], 60 * spacing[1]))
    mask = y**2 + x**2 <= 12.2**2
    line = outline(mask, spacing)
    assert line.length_um == pytest.approx(2 * np.sqrt(np.pi * mask.sum() * np.prod(spacing)), rel=0.012)
    assert np.average(line.curvature_N, weights=line.length_N) == pytest.approx(1 / 12.2, rel=0.02)
    assert np.hypot(*(line.points_N2 - [40 * spacing[0], 60 * spacing[1]]).T) == pytest.approx(12.2, abs=0.5)


@pytest.mark.parametrize("mask", [np.zeros((4, 4, 4), bool), np.ones((4, 4), bool)])
def test_what_has_no_surface_is_refused(mask):
    with pytest.raises(ValueError, match="3D mask that is not empty"):
        surface(mask)
