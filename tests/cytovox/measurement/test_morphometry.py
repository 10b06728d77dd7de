"""Balls and ellipsoids whose volume and area are known, at voxels that are no cubes."""

import numpy as np
import pytest

from cytovox.measurement.morphometry import (
    AREA_ESTIMATORS,
    area_flag,
    border_faces,
    centroid_um,
    equivalent_diameter_um,
    marching_cubes_area_um2,
    parts,
    sphericity,
    volume_um3,
)
from cytovox.measurement.surface import surface, surface_area_um2


def ellipsoid(semi_um, spacing_um, shift=(0.0, 0.0, 0.0)):
    """An ellipsoid with two voxels around it, its centre off the middle of the grid by `shift` voxels."""
    reach = [int(np.ceil(s / d)) + 2 for s, d in zip(semi_um, spacing_um, strict=True)]
    z, y, x = np.meshgrid(
        *((np.arange(-n, n + 1) - off) * d for n, d, off in zip(reach, spacing_um, shift, strict=True)), indexing="ij"
    )
    return (z / semi_um[0]) ** 2 + (y / semi_um[1]) ** 2 + (x / semi_um[2]) ** 2 <= 1


def oblate_area(short, long):
    e = np.sqrt(1 - (short / long) ** 2)
    return 2 * np.pi * long**2 * (1 + (1 - e**2) / e * np.arctanh(e))


def prolate_area(long, short):
    e = np.sqrt(1 - (short / long) ** 2)
    return 2 * np.pi * short**2 * (1 + long / (short * e) * np.arcsin(e))


CASES = [
    ((10.0, 10.0, 10.0), 4 * np.pi * 100, (1.0, 1.0, 1.0)),
    ((5.0, 5.0, 5.0), 4 * np.pi * 25, (0.5, 0.2, 0.2)),
    ((5.0, 5.0, 5.0), 4 * np.pi * 25, (0.1, 0.3, 0.2)),
    ((4.0, 9.0, 9.0), oblate_area(4.0, 9.0), (0.36, 0.16, 0.16)),
    ((9.0, 4.0, 4.0), prolate_area(9.0, 4.0), (0.36, 0.16, 0.16)),
]


@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (0.3, -0.4, 0.2)])
@pytest.mark.parametrize(("semi_um", "area", "spacing_um"), CASES)
def test_volume_and_area_are_within_two_percent_from_ten_voxels_of_radius(semi_um, area, spacing_um, shift):
    mask = ellipsoid(semi_um, spacing_um, shift)
    assert volume_um3(mask, spacing_um) == pytest.approx(4 / 3 * np.pi * np.prod(semi_um), rel=0.02)
    assert surface_area_um2(mask, spacing_um) == pytest.approx(area, rel=0.02)


@pytest.mark.parametrize(("semi_um", "area", "spacing_um"), CASES[:3])
def test_the_published_estimator_is_too_large_by_its_stairs(semi_um, area, spacing_um):
    excess = marching_cubes_area_um2(ellipsoid(semi_um, spacing_um), spacing_um) / area - 1
    assert 0.07 < excess < 0.17


def test_the_area_is_that_of_the_surface_with_curvature():
    mask = ellipsoid((3.0, 4.0, 4.0), (0.4, 0.3, 0.3))
    assert surface_area_um2(mask, (0.4, 0.3, 0.3)) == pytest.approx(surface(mask, (0.4, 0.3, 0.3)).area_um2, rel=1e-12)


@pytest.mark.parametrize("estimator", AREA_ESTIMATORS)
def test_a_mask_at_the_border_has_a_closed_surface(estimator):
    inside = ellipsoid((4.0, 4.0, 4.0), (0.4, 0.4, 0.4))
    cut = inside[: inside.shape[0] // 2 + 1]
    alone = np.pad(cut, 5)
    area = AREA_ESTIMATORS[estimator]
    assert area(cut, (0.4, 0.4, 0.4)) == pytest.approx(area(alone, (0.4, 0.4, 0.4)), rel=1e-9)
    half = 0.5 * 4 * np.pi * 16 + np.pi * 16
    assert surface_area_um2(cut, (0.4, 0.4, 0.4)) == pytest.approx(half, rel=0.04)


def test_only_a_ball_has_a_sphericity_of_one():
    assert sphericity(4 / 3 * np.pi * 27, 4 * np.pi * 9) == pytest.approx(1)
    assert sphericity(8, 24) == pytest.approx((np.pi / 6) ** (1 / 3))  # a cube
    assert equivalent_diameter_um(4 / 3 * np.pi * 27) == pytest.approx(6)


def test_the_place_is_in_micrometres_from_the_origin():
    mask = np.zeros((4, 5, 6), bool)
    mask[1, 2, 3:5] = True
    assert centroid_um(mask, (0.5, 0.2, 0.1), (10.0, 0.0, -1.0)) == pytest.approx((10.5, 0.4, -0.65))


def test_parts_that_touch_by_a_corner_are_one():
    mask = np.zeros((3, 3, 6), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[1, 1, 4] = True
    labels, number = parts(mask)
    assert number == 2
    assert labels[0, 0, 0] == labels[1, 1, 1] != labels[1, 1, 4]


def test_the_faces_that_a_box_reaches_are_named():
    assert border_faces((slice(1, 3), slice(0, 4), slice(2, 5)), (4, 5, 5)) == "y- x+"
    assert border_faces((slice(1, 3), slice(1, 4), slice(2, 4)), (4, 5, 5)) == ""


def test_an_empty_mask_has_no_surface():
    for area in AREA_ESTIMATORS.values():
        with pytest.raises(ValueError, match="empty"):
            area(np.zeros((3, 3, 3), bool), (1.0, 1.0, 1.0))


def pancake(thickness_um, radius_um, spacing_um, shift):
    """A disc with a round rim, lying flat: all points within half its thickness of a flat disc."""
    z, y, x = flat_grid(thickness_um, radius_um, spacing_um, shift)
    beyond = np.maximum(np.hypot(y, x) - (radius_um - thickness_um / 2), 0)
    return np.hypot(beyond, z) <= thickness_um / 2


def pancake_area(thickness_um, radius_um):
    """By Pappus and Guldin: two discs, and half a circle turned about the axis."""
    r, flat = thickness_um / 2, radius_um - thickness_um / 2
    return 2 * np.pi * flat**2 + 2 * np.pi * r * (np.pi * flat + 2 * r)


def flat_grid(thickness_um, radius_um, spacing_um, shift):
    reach = [int(np.ceil(s / d)) + 2 for s, d in zip((thickness_um / 2, radius_um, radius_um), spacing_um, strict=True)]
    return np.meshgrid(
        *((np.arange(-n, n + 1) - off) * d for n, d, off in zip(reach, spacing_um, shift, strict=True)), indexing="ij"
    )


def mean_bias(make, area, spacing_um):
    """Of the area, over three places of the body between the voxels."""
    shifts = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 3))
    return np.mean([surface_area_um2(make(shift), spacing_um) for shift in shifts]) / area - 1


@pytest.mark.parametrize("spacing_um", [(1.0, 1.0, 1.0), (0.36, 0.16, 0.16)])
@pytest.mark.parametrize(("voxels", "within"), [(3, 0.05), (4, 0.025), (6, 0.02), (10, 0.02)])
def test_a_thin_flat_body_keeps_its_area(voxels, within, spacing_um):
    thick = voxels * spacing_um[0]
    wide = 2.5 * thick  # five times as wide as thick
    semi = (thick / 2, wide, wide)
    assert abs(mean_bias(lambda s: ellipsoid(semi, spacing_um, s), oblate_area(thick / 2, wide), spacing_um)) < within
    disc = mean_bias(lambda s: pancake(thick, wide, spacing_um, s), pancake_area(thick, wide), spacing_um)
    assert abs(disc) < 0.02


@pytest.mark.parametrize("turn", [30, 45, 62])
def test_a_thin_body_that_lies_aslant_keeps_its_area(turn):
    z, y, x = np.mgrid[-24:25, -24:25, -24:25] + np.array([0.2, -0.3, 0.4])[:, None, None, None]
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    for thick, within in ((4, 0.03), (6, 0.03)):
        mask = ((cos * z - sin * y) / (thick / 2)) ** 2 + ((sin * z + cos * y) / 18) ** 2 + (x / 18) ** 2 <= 1
        assert surface_area_um2(mask, (1.0, 1.0, 1.0)) == pytest.approx(oblate_area(thick / 2, 18), rel=within)


@pytest.mark.parametrize("spacing_um", [(1.0, 1.0, 1.0), (0.36, 0.16, 0.16)])
@pytest.mark.parametrize("voxels", [8, 10, 14, 20])
def test_what_is_done_for_thin_bodies_leaves_balls_as_they_are(voxels, spacing_um):
    radius = voxels / 2 * spacing_um[0]
    for shift in np.random.default_rng(0).uniform(-0.5, 0.5, (3, 3)):
        mask = ellipsoid((radius,) * 3, spacing_um, shift)
        volume = volume_um3(mask, spacing_um)  # of few voxels it is not the ball's own
        assert sphericity(volume, surface_area_um2(mask, spacing_um)) == pytest.approx(1, abs=0.012)


def test_thin_parts_of_a_thick_cell_keep_their_area():
    """A flat cell with a body in its middle: the area of one half above the other is known by its profile."""
    r = np.linspace(0, 40, 20001)
    height = np.where(r < 18, 6 * (1 + np.cos(np.pi * r / 18)), 0) + np.sqrt(
        np.clip(16 - np.clip(r - 36, 0, 4) ** 2, 0, 16)
    )
    area = 2 * float(np.sum(np.pi * (r[1:] + r[:-1]) * np.hypot(np.diff(r), np.diff(height))))
    z, y, x = np.mgrid[-18:19, -43:44, -43:44] + np.array([0.3, 0.1, -0.2])[:, None, None, None]
    mask = np.abs(z) <= np.interp(np.hypot(y, x), r, height, right=-1)
    assert surface_area_um2(mask, (1.0, 1.0, 1.0)) == pytest.approx(area, rel=0.02)


def test_bodies_of_few_voxels_are_flagged_as_thin_and_others_are_not():
    spacing = (1.0, 0.4, 0.4)

    def flag(mask):
        return area_flag(volume_um3(mask, spacing), surface_area_um2(mask, spacing), spacing)

    assert flag(ellipsoid((1.0, 8.0, 8.0), spacing)) == "thin"
    assert flag(ellipsoid((2.5, 2.5, 2.5), spacing)) == "thin"
    assert flag(pancake(5.0, 12.0, spacing, (0, 0, 0))) == ""
    assert flag(ellipsoid((5.0, 5.0, 5.0), spacing)) == ""
